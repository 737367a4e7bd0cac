//! Who sits down beside an agent stays who they are: what answers on its tmux socket may be the agent's own.

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::TaskState;

use super::World;

/// Has the client of whoever is attached run a program, which tells what it is and what it can read.
const TRAP: &str = r#"
echo ready; read -r socket; read -r key; here=$PWD
cat > trap.sh <<END
{ echo "uid $(printf '$')(id -u)"; env; cat "$key"; } > "$here/caught" 2>&1; mv "$here/caught" "$here/done"
END
until tmux -S "$socket" detach-client -t "$(tmux -S "$socket" list-clients -F '#{client_name}')" -E "sh $here/trap.sh"; do
    sleep 0.1
done
until [ -e done ]; do sleep 0.1; done
cat done; echo told; read -r end
"#;

async fn nothing_is_caught(world: World) -> Result<()> {
    let Some(stack) = world.stack("").await? else { return Ok(()) };
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", TRAP]).await?;
    let running = stack.until(&task, "running", |task| task.state() == TaskState::Running).await?;
    let socket = running.attempts.last().map(|attempt| attempt.tmux_socket.clone()).context("it has no attempt")?;
    let key = stack.data().join("executor/identity/key.pem");
    ensure!(key.is_file(), "there is no key in {}", key.display());

    let mut person = stack.terminal(&["attach", &task])?;
    person.shows("ready").await?;
    person.types(&format!("{socket}\r"))?;
    person.types(&format!("{}\r", key.display()))?;
    stack.log_until(&task, "what was caught", |log| String::from_utf8_lossy(log).contains("told")).await?;
    person.ends().await?;
    let log = String::from_utf8_lossy(&stack.logs(&task).await?).into_owned();
    ensure!(log.contains("uid ") && !log.contains("uid 0\r"), "{world:?}: {log}");
    for secret in ["PRIVATE KEY", "SCULPT_TOKEN", "SCULPT_URL"] {
        ensure!(!log.contains(secret), "{world:?} gave {secret} away: {log}");
    }

    // The agent has lost nothing by it, and neither has the person.
    let mut person = stack.terminal(&["attach", &task])?;
    person.shows("told").await?;
    person.types("\r")?;
    stack.done(&task).await?;
    if world == World::Bubblewrap {
        // The last picture goes with the sandbox.
        person.ends().await?;
    } else {
        ensure!(person.leaves().await? == 0);
    }
    stack.finish().await
}

#[tokio::test]
async fn who_attaches_runs_nothing_for_an_agent_with_an_account() -> Result<()> {
    nothing_is_caught(World::Accounts).await
}

#[tokio::test]
async fn who_attaches_runs_nothing_for_an_agent_in_a_sandbox() -> Result<()> {
    nothing_is_caught(World::Bubblewrap).await
}

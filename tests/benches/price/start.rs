//! From the wish to the running process: `sculpt run` beside a script that clones and opens a tmux session.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use sculpt_tests::harness::{Stack, eventually};

use crate::{report::Row, samples::Samples};

/// What a person writes who has no sculpt: repository, workspace, socket, command.
const SCRIPT: &str = r#"
set -eu
git clone -q --shared "$1" "$2"
git -C "$2" checkout -q -b work
exec tmux -S "$3" -f /dev/null new-session -d -x 200 -y 50 -c "$2" "$4"
"#;

/// Of the reference, below the stack's directory.
const SOCKET: &str = "tmux.socket";

pub(crate) async fn measure(stack: &Stack, count: usize) -> Result<Vec<Row>> {
    let repo = stack.repo()?;
    for number in 0..50 {
        fs::write(repo.path().join(format!("{number}.txt")), "text\n".repeat(1000))?;
    }
    repo.commit("last.txt", "the base of all\n")?;
    let scratch = stack.root().join("start");
    fs::create_dir_all(&scratch)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first of each fills caches: ours the store of the project, theirs the disk's.
    for number in 0..=count {
        let told = scratch.join(format!("ours-{number}"));
        let agent = agent(&told)?;
        let began = now()?;
        let task = stack.detached(repo.path(), ["--", "bash", &agent]).await?;
        let took = since(began, &told).await?;
        stack.done(&task).await?;
        let told = scratch.join(format!("theirs-{number}"));
        let reference = script(stack, repo.path(), &scratch.join(format!("clone-{number}")), &told).await?;
        eprintln!("bench: start {number} of {count}: {took:.1?}, by hand {reference:.1?}");
        if number > 0 {
            ours.push(took);
            theirs.push(reference);
        }
    }
    // The server went with its last session and left its socket.
    fs::remove_file(stack.root().join(SOCKET)).context("remove the socket of the reference")?;
    let samples = |times: Vec<Duration>| Samples::of_times(times).context("no sample");
    let reference = Some(("git clone --shared, tmux new-session", samples(theirs)?));
    Ok(vec![Row {
        name: "create a task until its process runs",
        unit: "ms",
        ours: samples(ours)?,
        reference,
        bound: None,
    }])
}

async fn script(stack: &Stack, repo: &Path, clone: &Path, told: &Path) -> Result<Duration> {
    let socket = stack.root().join(SOCKET);
    let command = format!("exec bash '{}'", agent(told)?);
    let began = now()?;
    let arguments = [clone.as_os_str(), socket.as_os_str(), command.as_ref()];
    let arguments = ["-c".as_ref(), SCRIPT.as_ref(), "start".as_ref(), repo.as_os_str()].into_iter().chain(arguments);
    stack.shell("bash", arguments).run().await?.done()?;
    since(began, told).await
}

/// A program that writes down when it ran, in one piece.
fn agent(told: &Path) -> Result<String> {
    let program = format!("{}.sh", told.display());
    let told = told.display();
    fs::write(&program, format!("echo $EPOCHREALTIME > '{told}.new' && mv '{told}.new' '{told}'\n"))?;
    Ok(program)
}

/// How long after `began` the agent ran.
async fn since(began: Duration, told: &Path) -> Result<Duration> {
    let text = eventually("the agent to run", || Ok(fs::read_to_string(told).ok())).await?;
    let ran: f64 = text.trim().parse().with_context(|| format!("the agent's clock says {text:?}"))?;
    Ok(Duration::from_secs_f64(ran).saturating_sub(began))
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

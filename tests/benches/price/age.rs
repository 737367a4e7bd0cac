//! How old a line is when a person sees it: `sculpt logs -f` beside `ssh HOST tail -f`, both of the same lines of one agent.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Follow, Stack};

use crate::{report::Row, samples::Samples, sshd::Sshd};

/// Says what time it is, on its terminal and into a file, once both are looked at.
const AGENT: &str = r#"
until [ -e "$1/go" ]; do sleep 0.02; done
for ((n = 0; n < $2; n++)); do
    now=$EPOCHREALTIME
    echo "at $now"
    echo "at $now" >> "$1/log"
    sleep 0.03
done
"#;

pub(crate) async fn measure(stack: &Stack, lines: usize) -> Result<Vec<Row>> {
    let scratch = stack.root().join("age");
    fs::create_dir_all(&scratch)?;
    fs::write(scratch.join("log"), "at 0\n")?;
    let place = scratch.to_str().context("a path of the tests is text")?;
    let sshd = Sshd::start(stack, &scratch).await?;
    let count = lines.to_string();
    let task = stack.detached(stack.root(), ["--no-repo", "--", "bash", "-c", AGENT, "agent", place, &count]).await?;
    stack.until(&task, "it runs", |task| task.state() == TaskState::Running).await?;
    let ours = stack.sculpt(["logs", &task, "-f"]).follow()?;
    let tail = format!("tail -n +1 -f '{place}/log'");
    let mut theirs = sshd.program(stack, "ssh", &[Sshd::HOST, &tail])?.follow()?;
    theirs.line(|line| line == "at 0").await.context("ssh has connected")?;
    fs::write(scratch.join("go"), "")?;
    let (ours, theirs) = tokio::try_join!(ages(ours, lines), ages(theirs, lines))?;
    stack.done(&task).await?;
    sshd.end().await?;
    let reference = Some(("ssh localhost tail -f", theirs));
    Ok(vec![Row { name: "age of a line when it is seen", unit: "ms", ours, reference, bound: None }])
}

async fn ages(mut follow: Follow, lines: usize) -> Result<Samples> {
    let mut ages = Vec::new();
    while ages.len() < lines {
        let line = follow.line(|line| line.starts_with("at ")).await?;
        let seen = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let said: f64 = line["at ".len()..].parse().with_context(|| format!("the agent's clock says {line:?}"))?;
        ages.push((seen - said) * 1e3);
    }
    Samples::of(ages).context("no line")
}

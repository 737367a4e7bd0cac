//! Tasks wait for a place, and say why.

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::Stack;

/// A command that runs until the file `gate` is there.
fn until(gate: &std::path::Path) -> [String; 5] {
    let script = r#"while [ ! -e "$1" ]; do sleep 0.02; done"#;
    ["sh", "-c", script, "gate", &gate.to_string_lossy()].map(str::to_owned)
}

async fn waiting(stack: &Stack, gate: &std::path::Path, arguments: &[&str]) -> Result<String> {
    let command = until(gate);
    let all = ["--no-repo", "--no-tty"].iter().chain(arguments).chain(&["--"]).copied();
    stack.detached(stack.root(), all.chain(command.iter().map(String::as_str))).await
}

#[tokio::test]
async fn ten_tasks_share_four_slots() -> Result<()> {
    let stack = Stack::up().await?;
    let gate = stack.fresh("gate");
    std::fs::create_dir_all(gate.parent().context("a parent")?)?;
    let mut tasks = Vec::new();
    for _ in 0..10 {
        tasks.push(waiting(&stack, &gate, &[]).await?);
    }
    for task in &tasks[..4] {
        stack.until(task, "running, being among the oldest", |task| task.state() == TaskState::Running).await?;
    }
    for task in &tasks[4..] {
        let shown = stack.show(task).await?;
        ensure!(shown["state"] == "queued" && shown.to_string().contains("slot"), "{shown:#}");
    }
    let running = stack.sculpt(["ls", "--state", "running", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(running.as_array().is_some_and(|list| list.len() == 4), "{running:#}");
    std::fs::write(&gate, "")?;
    stack.sculpt(["wait".to_owned()].into_iter().chain(tasks)).run().await?.done()?;
    stack.finish().await
}

/// Whoever follows a task from its first moment misses nothing, also when it is placed at that very moment.
#[tokio::test]
async fn a_log_can_be_followed_while_its_task_is_being_placed() -> Result<()> {
    let stack = Stack::up().await?;
    for _ in 0..20 {
        let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "echo", "here"]).await?;
        stack.log_until(&task, "its line", |log| log == b"here\n").await?;
        stack.done(&task).await?;
    }
    stack.finish().await
}

#[tokio::test]
async fn a_higher_priority_starts_earlier() -> Result<()> {
    let stack = Stack::options().slots(1).up().await?;
    let gate = stack.fresh("gate");
    std::fs::create_dir_all(gate.parent().context("a parent")?)?;
    let first = waiting(&stack, &gate, &[]).await?;
    stack.until(&first, "running", |task| task.state() == TaskState::Running).await?;
    let low = waiting(&stack, &gate, &["--priority", "-5"]).await?;
    let high = waiting(&stack, &gate, &["--priority", "5"]).await?;
    std::fs::write(&gate, "")?;
    let started = async |task: &str| -> Result<_> {
        stack.sculpt(["wait", task]).run().await?.done()?;
        let task = stack.until(task, "ended", |task| task.state() == TaskState::Completed).await?;
        let at = task.attempts.first().and_then(|attempt| attempt.started_at).context("a start")?;
        Ok((at.seconds, at.nanos))
    };
    let (low, high) = (started(&low).await?, started(&high).await?);
    ensure!(high < low, "high started at {high:?}, low at {low:?}");
    stack.finish().await
}

/// What cannot be placed is refused, or waits and names what is missing; either way it can be stopped.
#[tokio::test]
async fn what_nobody_offers_is_named() -> Result<()> {
    let stack = Stack::options().settings("[agents.robot]\ncommand = ['echo', '{prompt}']\n").up().await?;
    for (arguments, missing) in [
        (&["--require", "gpu=h100", "--", "true"][..], "gpu"),
        (&["--pool", "moon", "--", "true"], "moon"),
        (&["--agent", "stranger", "do it"], "stranger"),
    ] {
        let all = ["run", "-q", "-d", "--no-repo"].iter().chain(arguments);
        let output = stack.sculpt(all).run().await?;
        if output.code != 0 {
            output.says(missing)?;
            continue;
        }
        let task = output.text();
        let shown = stack.show(&task).await?;
        ensure!(shown["state"] == "queued" && shown.to_string().contains(missing), "{shown:#}");
        let text = stack.sculpt(["show", &task]).run().await?.done()?.text();
        ensure!(text.contains(missing), "{text}");
        stack.sculpt(["stop", &task]).run().await?.done()?;
        stack.sculpt(["wait", &task]).run().await?.exits(4)?;
    }
    stack.finish().await
}

#[tokio::test]
async fn the_journal_tells_a_task_from_its_start_to_its_end() -> Result<()> {
    let stack = Stack::up().await?;
    let mut events = stack.sculpt(["events", "-f", "-o", "json"]).follow()?;
    let task = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
    let of_task = |line: &str, state: &str| {
        let event = event(line);
        event["task"].as_u64() == task.parse().ok() && event["state"] == state
    };
    let queued = event(&events.line(|line| of_task(line, "queued")).await?);
    events.line(|line| of_task(line, "running")).await?;
    events.line(|line| of_task(line, "completed")).await?;
    // From a cursor on, what was seen before does not come again.
    let cursor = queued["cursor"].as_str().context("a cursor")?;
    let later = stack.sculpt(["events", "--from-cursor", cursor, "-o", "json"]).run().await?.done()?.text();
    ensure!(!later.lines().any(|line| event(line)["cursor"] == cursor), "{later}");
    ensure!(later.lines().any(|line| of_task(line, "completed")), "{later}");
    drop(events);
    stack.finish().await
}

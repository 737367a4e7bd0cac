//! Executors that die, stand still, are replaced, are doubled, or lose their host: agents go on, and nobody else's end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Counting, DEADLINE, Stack, eventually};

/// How soon a new executor must have taken over what lives.
const TAKEN_OVER: Duration = Duration::from_secs(5);

/// Starts the executor and fails when `counting` has not been taken over in time, with the same process.
async fn adopts(stack: &mut Stack, counting: &Counting) -> Result<()> {
    let begun = Instant::now();
    stack.start_executor().await?;
    counting.arrives(stack).await?;
    let took = begun.elapsed();
    ensure!(took < TAKEN_OVER, "it took {took:?} until a living agent was adopted");
    Ok(())
}

/// A copy of the executor's program under a path of its own, as a new release would be installed.
fn release(stack: &Stack, number: u32) -> Result<PathBuf> {
    let directory = stack.root().join(format!("release-{number}"));
    fs::create_dir(&directory)?;
    let (from, to) = (stack.program("sculpt-executor"), directory.join("sculpt-executor"));
    // By a process of its own: a neighbour that is just being started would hold a file open that this one writes.
    let status = Command::new("cp").args([&from, &to]).status().context("run cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(to)
}

/// Upgrades while an agent runs: each release is gone from the disk when the next one takes over.
#[tokio::test]
async fn kill_9_at_any_moment_and_a_new_binary_each_time() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    for round in 0..6_u32 {
        // Sometimes in the middle of its first words, sometimes when all is calm.
        counting.counter.prints(u64::from(round * 13 % 17)).await?;
        stack.executor()?.kill().await?;
        if round % 2 == 0 {
            let next = release(&stack, round)?;
            stack.executor_is(next);
        }
        adopts(&mut stack, &counting).await.with_context(|| format!("in round {round}"))?;
        if round > 0 {
            fs::remove_dir_all(stack.root().join(format!("release-{}", round - 1))).or_else(absent)?;
        }
    }
    counting.ends_well(&stack).await?;
    stack.finish().await
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Killed while it makes attempts ready: wherever it stood, it goes on from there, and each runs once.
#[tokio::test]
async fn kill_9_in_the_middle_of_preparing() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let mut tasks = Vec::new();
    for round in 0..6_u64 {
        let runs = stack.root().join(format!("runs-{round}"));
        let script = r#"echo run >> "$1"; git commit -q --allow-empty -m work; seq 1 2000"#;
        let arguments = ["--no-tty", "--", "sh", "-c", script, "x", &runs.to_string_lossy()].map(str::to_owned);
        let task = stack.detached(repo.path(), arguments).await?;
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        stack.executor()?.kill().await?;
        stack.start_executor().await?;
        tasks.push((task, runs));
    }
    let expected: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    for (task, runs) in tasks {
        let shown = stack.done(&task).await?;
        ensure!(shown["state"] == "needs_review" && shown["attempt"] == 1, "{shown:#}");
        ensure!(stack.logs(&task).await? == expected.as_bytes(), "the log of task {task} is not what was printed");
        ensure!(fs::read_to_string(&runs)? == "run\n", "the agent of task {task} ran twice");
    }
    stack.finish().await
}

/// Longer than the watchdogs: the executor is given up, and comes back as if nothing had been.
#[tokio::test]
async fn stopped_beyond_the_watchdog() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let executor = stack.executor()?;
    executor.signal(Signal::STOP)?;
    let found = stack.until(&counting.task, "unreachable", |task| task.unreachable).await?;
    ensure!(found.state() == TaskState::Running, "nothing is stopped because nobody is heard: {found:?}");
    executor.signal(Signal::CONT)?;
    stack.until(&counting.task, "reachable again", |task| !task.unreachable).await?;
    counting.arrives(&stack).await?;
    executor.end(Signal::TERM, DEADLINE).await?;
    stack.start_executor().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

/// What began under one executor and ended under none is told by the next, once there is a controller again.
#[tokio::test]
async fn restarted_while_the_controller_is_away() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let (going, ending) = (stack.counting(&[]).await?, stack.counting(&["--no-tty"]).await?);
    stack.controller()?.kill().await?;
    for _ in 0..3 {
        stack.executor()?.kill().await?;
        stack.begin_executor().await?;
        going.counter.prints(30).await?;
    }
    ending.counter.stop()?;
    eventually("the agent to end", || Ok(ending.is_gone().then_some(()))).await?;
    stack.start_controller().await?;
    going.arrives(&stack).await?;
    ending.ends_well(&stack).await?;
    going.ends_well(&stack).await?;
    stack.finish().await
}

/// A second executor on the same data directory does not start.
#[tokio::test]
async fn two_executors_on_one_data_directory() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let url = stack.executor_url()?;
    let second = stack.executor_command(&url, &stack.executor_data(), "worker")?.output().await?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && said.contains("another executor"), "{}: {said}", second.status);
    counting.arrives(&stack).await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

/// A copied identity on an empty directory takes the session, and ends nothing by what it lacks.
#[tokio::test]
async fn two_executors_with_one_identity() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let copy = stack.data().join("copy");
    stack.copy_identity(&copy)?;
    let first = stack.executor()?;
    let second = stack.another_executor(&copy, "worker").await?;
    let status = first.gone().await?;
    ensure!(!status.success(), "the executor that was superseded ended with {status}");
    counting.counter.prints(50).await?;
    counting.lives_on()?;
    let shown = stack.show(&counting.task).await?;
    ensure!(shown["state"] == "running" && shown["attempt"] == 1, "{shown:#}");
    second.end(Signal::TERM, DEADLINE).await?;
    fs::remove_dir_all(&copy)?;
    adopts(&mut stack, &counting).await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

/// What the executor and its shims take for the kernel's id of this boot, in a mount namespace of theirs.
fn boots_as(stack: &mut Stack, id: &str) -> Result<()> {
    let file = stack.root().join("boot_id");
    fs::write(&file, format!("{id}\n"))?;
    let script = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#;
    stack.executor_via(["unshare", "--mount", "sh", "-c", script, &file.to_string_lossy()]);
    Ok(())
}

/// The host goes down hard: everything of the executor is gone at once, only its disk is left.
async fn host_goes_down(stack: &mut Stack) -> Result<()> {
    stack.executor()?.kill().await?;
    kill_attempts(stack).await
}

async fn kill_attempts(stack: &Stack) -> Result<()> {
    eventually("everything of the executor to be dead", || {
        let left = stack.traces().of_attempts();
        left.iter().for_each(|(_, found)| found.signal(Signal::KILL));
        Ok(left.is_empty().then_some(()))
    })
    .await
}

/// A stack whose executor can be told that its host has booted; none without the right to.
async fn on_a_host_that_can_boot() -> Result<Option<Stack>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another boot id needs root");
        return Ok(None);
    }
    let mut stack = Stack::options().empty().await?;
    boots_as(&mut stack, "00000000-0000-4000-8000-000000000001")?;
    stack.start_controller().await?;
    stack.start_executor().await?;
    Ok(Some(stack))
}

/// An attempt ends `interrupted` with what was on disk of its log, and runs again on request.
#[tokio::test]
async fn the_host_is_rebooted() -> Result<()> {
    let Some(mut stack) = on_a_host_that_can_boot().await? else { return Ok(()) };
    for arguments in [&[][..], &["--no-tty"]] {
        let counting = stack.counting(arguments).await?;
        counting.arrives(&stack).await?;
        host_goes_down(&mut stack).await?;
        boots_as(&mut stack, &uuid::Uuid::new_v4().to_string())?;
        stack.start_executor().await?;
        stack.sculpt(["wait", &counting.task]).run().await?.exits(1)?;
        let shown = stack.show(&counting.task).await?;
        ensure!(shown["state"] == "failed" && shown["cause"] == "interrupted", "{shown:#}");
        stack.sculpt(["retry", &counting.task]).run().await?.done()?;
        stack.until(&counting.task, "running again", |task| task.state() == TaskState::Running).await?;
        counting.counter.stop()?;
        let shown = stack.done(&counting.task).await?;
        ensure!(shown["state"] == "completed" && shown["attempt"] == 2, "{shown:#}");
    }
    stack.finish().await
}

/// An exit record that was written before the host went down is the end, whatever was running beside it.
#[tokio::test]
async fn an_end_just_before_the_reboot_is_told() -> Result<()> {
    let Some(mut stack) = on_a_host_that_can_boot().await? else { return Ok(()) };
    let counting = stack.counting(&["--no-tty"]).await?;
    let record = recorded(&stack, &stack.attempt_of(&counting.task).await?);
    stack.executor()?.kill().await?;
    counting.counter.stop()?;
    eventually("the exit record", || Ok(is_written(&record).then_some(()))).await?;
    kill_attempts(&stack).await?;
    boots_as(&mut stack, "00000000-0000-4000-8000-000000000002")?;
    stack.start_executor().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

fn recorded(stack: &Stack, attempt: &str) -> PathBuf {
    stack.executor_data().join("attempts").join(attempt).join("exit.json")
}

/// Space for it is reserved under another name before the agent starts.
fn is_written(record: &Path) -> bool {
    fs::read(record).is_ok_and(|json| serde_json::from_slice::<serde_json::Value>(&json).is_ok())
}

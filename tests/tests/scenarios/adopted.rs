//! What outlived its owner is gone on with: attempts whose controller lost its database, workspaces whose attempt ended.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{DEADLINE, Stack, eventually, processes};
use serde_json::Value;

/// Copies a directory with owners and permissions: that of the built-in Postgres minds both.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status().context("run cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

async fn stop_controller(stack: &mut Stack) -> Result<()> {
    stack.controller()?.end(Signal::TERM, DEADLINE).await.map(drop)
}

/// The attempts that the executor has and the controller does not know.
async fn unknown(stack: &Stack) -> Result<Vec<String>> {
    let shown = stack.sculpt(["executor", "show", "worker", "-o", "json"]).run().await?.done()?.json()?;
    let unknown = shown["unknown_attempts"].as_array().context("unknown_attempts")?;
    Ok(unknown.iter().filter_map(|attempt| attempt.as_str().map(str::to_owned)).collect())
}

/// Waits until the executor has said that it has `attempt`.
async fn is_unknown(stack: &Stack, attempt: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while unknown(stack).await.unwrap_or_default() != [attempt] {
        ensure!(tokio::time::Instant::now() < deadline, "the executor never named {attempt}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}

/// A database that was restored from a copy made before the task: its agent goes on, its log arrives from the first byte and
/// its commits on its branch.
#[tokio::test]
async fn a_restored_database_takes_a_running_attempt_over() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let repo = stack.repo()?;
    // The project and its base are in the copy.
    let first = stack.detached(repo.path(), ["--", "true"]).await?;
    stack.done(&first).await?;
    let (live, backup) = (stack.data().join("controller"), stack.root().join("backup"));
    stop_controller(&mut stack).await?;
    copy(&live, &backup)?;
    stack.start_controller().await?;

    let mark = stack.ledger().mark();
    let counter = stack.counter()?;
    let commits = "\"$@\"; echo made > made.txt && git add made.txt && git commit -qm made";
    let command = counter.command();
    let all = ["--", "sh", "-c", commits, "sh"].into_iter().chain(command.iter().map(String::as_str));
    let task = stack.detached(repo.path(), all).await?;
    let pid = counter.pid().await?;
    let born = processes::alive(pid);
    counter.prints(20).await?;
    stack.until(&task, "running", |task| task.state() == TaskState::Running).await?;
    let attempt = stack.attempt_of(&task).await?;

    stop_controller(&mut stack).await?;
    fs::remove_dir_all(&live)?;
    copy(&backup, &live)?;
    stack.loses_since(&mark);
    stack.start_controller().await?;
    is_unknown(&stack, &attempt).await?;
    stack.sculpt(["show", &task]).run().await?.exits(6)?;
    let text = stack.sculpt(["executor", "show", "worker"]).run().await?.done()?.text();
    ensure!(text.contains("sculpt executor adopt worker"), "{text}");

    let said = stack.sculpt(["executor", "adopt", "worker"]).run().await?.done()?.text();
    ensure!(said == format!("attempt {attempt}: adopted as task {task}"), "{said}");
    let again = stack.sculpt(["executor", "adopt", "worker", &attempt, "-o", "json"]).run().await?.done()?.json()?;
    ensure!(again[0]["task"] == task.parse::<u64>()? && again[0]["attempt_uuid"] == attempt.as_str(), "{again}");
    ensure!(unknown(&stack).await?.is_empty());
    counter.prints(20).await?;
    ensure!(processes::alive(pid) == born, "the agent {pid} is not the process it was");
    counter.stop()?;
    let shown = stack.done(&task).await?;
    ensure!(shown["state"] == "needs_review" && shown["attempt"] == 1, "{shown:#}");
    counter.check(&stack.logs(&task).await?)?;
    stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
    let branch = shown["branch"].as_str().context("a branch")?;
    ensure!(repo.git(["show", &format!("{branch}:made.txt")])? == "made");
    // Numbers go on behind what was taken over.
    let next = stack.detached(repo.path(), ["--", "true"]).await?;
    ensure!(next.parse::<u64>()? > task.parse::<u64>()?, "{next} after {task}");
    stack.done(&next).await?;
    stack.finish().await
}

/// Attempts that had ended with commits when the database was put back: one that the copy knows as running, and one that it
/// does not know. Nobody may remove what they published, and both come through.
#[tokio::test]
async fn attempts_that_ended_with_a_head_before_the_copy_was_put_back_come_through() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let first = stack.detached(repo.path(), ["--", "true"]).await?;
    stack.done(&first).await?;
    let mark = stack.ledger().mark();
    let gate = stack.root().join("gate");
    let known = format!("until [ -e '{}' ]; do sleep 0.1; done; echo known > made.txt", gate.display());
    let commit = "git add made.txt && git commit -qm made";
    let known = stack.detached(repo.path(), ["--", "sh", "-c", &format!("{known}; {commit}")]).await?;
    stack.until(&known, "running", |task| task.state() == TaskState::Running).await?;
    let (live, backup) = (stack.data().join("controller"), stack.root().join("backup"));
    stop_controller(&mut stack).await?;
    copy(&live, &backup)?;
    stack.start_controller().await?;

    fs::write(&gate, "")?;
    let lost = format!("echo lost > made.txt; {commit}");
    let lost = stack.detached(repo.path(), ["--", "sh", "-c", &lost]).await?;
    let mut released = Vec::new();
    for task in [&known, &lost] {
        stack.done(task).await?;
        let attempt = stack.attempt_of(task).await?;
        released.push(stack.executor_data().join("attempts").join(&attempt).join("released.json"));
    }
    eventually("both to be released", || Ok(released.iter().all(|path| path.exists()).then_some(()))).await?;
    let attempt = stack.attempt_of(&lost).await?;

    stop_controller(&mut stack).await?;
    fs::remove_dir_all(&live)?;
    copy(&backup, &live)?;
    stack.loses_since(&mark);
    stack.start_controller().await?;
    is_unknown(&stack, &attempt).await?;
    let said = stack.sculpt(["executor", "gc", "worker", "--all"]).run().await?.done()?.text();
    ensure!(said.contains("the controller does not say that it knows its attempt"), "{said}");
    let said = stack.sculpt(["executor", "adopt", "worker"]).run().await?.done()?.text();
    ensure!(said == format!("attempt {attempt}: adopted as task {lost}"), "{said}");
    for (task, content) in [(&known, "known"), (&lost, "lost")] {
        let shown = stack.done(task).await?;
        ensure!(shown["state"] == "needs_review" && shown["attempt"] == 1, "{shown:#}");
        stack.sculpt(["fetch", task]).dir(repo.path()).run().await?.done()?;
        let branch = shown["branch"].as_str().context("a branch")?;
        ensure!(repo.git(["show", &format!("{branch}:made.txt")])? == content);
    }
    stack.finish().await
}

/// A controller that was rebuilt from nothing: the executor refuses it until a person says otherwise, and what it has is
/// taken over then.
#[tokio::test]
async fn a_rebuilt_controller_takes_over_what_another_cluster_minted() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let mark = stack.ledger().mark();
    let counting = stack.counting(&[]).await?;
    let attempt = stack.attempt_of(&counting.task).await?;
    stop_controller(&mut stack).await?;
    for part in ["postgres", "blobs", "cache"] {
        let path = stack.data().join("controller").join(part);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    stack.loses_since(&mark);
    stack.start_controller().await?;
    let ended = stack.executor()?.gone().await?;
    ensure!(!ended.success(), "the executor went on with another cluster");
    let log = fs::read_to_string(stack.root().join("executor.log"))?;
    ensure!(log.contains("sculpt-executor rebind --data-dir"), "{log}");
    counting.lives_on()?;

    let data = stack.executor_data().to_string_lossy().into_owned();
    stack.shell("sculpt-executor", ["rebind", "--data-dir", &data]).run().await?.done()?;
    stack.start_executor().await?;
    is_unknown(&stack, &attempt).await?;
    let said = stack.sculpt(["executor", "adopt", "worker", &attempt]).run().await?.done()?.text();
    ensure!(said == format!("attempt {attempt}: adopted as task {}", counting.task), "{said}");
    counting.arrives(&stack).await?;
    // It is this cluster's now, whoever asks: a stop reaches it.
    stack.executor()?.kill().await?;
    stack.start_executor().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

/// What `show` says of a task that has failed.
async fn failed(stack: &Stack, task: &str) -> Result<Value> {
    stack.sculpt(["wait", task]).run().await?.exits(1)?;
    stack.show(task).await
}

/// What an attempt left behind that nobody has committed is there for the next one, and nowhere else.
#[tokio::test]
async fn a_retry_goes_on_in_the_surviving_workspace() -> Result<()> {
    let stack = Stack::options().slots(1).settings("keep_workspaces = '1h'").parts().await?;
    let repo = stack.repo()?;
    let script = "if [ -e work ]; then cat work; git status --porcelain; else echo precious > work; exit 3; fi";
    let task = stack.detached(repo.path(), ["--no-tty", "--", "sh", "-c", script]).await?;
    ensure!(failed(&stack, &task).await?["attempt"] == 1);
    let left = stack.executor_data().join("workspaces").join(stack.attempt_of(&task).await?);
    ensure!(left.join("work").exists());

    // The only place that will do is taken; it says so, and waits for it.
    let holder = stack.detached(stack.root(), ["--no-repo", "--", "sleep", "600"]).await?;
    stack.until(&holder, "running", |task| task.state() == TaskState::Running).await?;
    stack.sculpt(["retry", &task, "--in-workspace"]).run().await?.done()?;
    let shown = stack.sculpt(["show", &task]).run().await?.done()?.text();
    ensure!(shown.contains("for executor worker, which has its workspace: all of its 1 slots are taken"), "{shown}");
    // A person who wants room does not get this one, once its executor has heard of the retry.
    let released =
        stack.executor_data().join("attempts").join(left.file_name().context("a name")?).join("released.json");
    eventually("the executor to keep it", || Ok((!released.exists()).then_some(()))).await?;
    stack.sculpt(["executor", "gc", "worker", "--all"]).run().await?.done()?;
    ensure!(left.join("work").exists(), "the workspace of a queued retry is gone");
    stack.sculpt(["stop", &holder]).run().await?.done()?;
    let shown = stack.done(&task).await?;
    ensure!(shown["state"] == "completed" && shown["attempt"] == 2, "{shown:#}");
    ensure!(stack.logs(&task).await? == b"precious\n?? work\n");
    ensure!(!left.exists(), "it was moved");

    // A fresh clone has nothing of it; and what is gone is said to be.
    let other = stack.detached(repo.path(), ["--no-tty", "--", "sh", "-c", script]).await?;
    ensure!(failed(&stack, &other).await?["attempt"] == 1);
    stack.sculpt(["retry", &other]).run().await?.done()?;
    ensure!(failed(&stack, &other).await?["attempt"] == 2);
    fs::remove_dir_all(stack.executor_data().join("workspaces").join(stack.attempt_of(&other).await?))?;
    stack.sculpt(["retry", &other, "--in-workspace"]).run().await?.done()?;
    let shown = failed(&stack, &other).await?;
    ensure!(shown["attempt"] == 3 && shown["cause"] == "workspace", "{shown:#}");
    ensure!(shown.to_string().contains("the workspace of attempt 2 is gone from worker"), "{shown:#}");
    stack.sculpt(["executor", "gc", "worker", "--all"]).run().await?.done()?;
    stack.finish().await
}

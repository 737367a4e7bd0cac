//! `sculpt up`: one command, one data directory, and agents that do not notice its end.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Stack, processes};

#[tokio::test]
async fn ctrl_c_leaves_agents_running_and_up_again_adopts_them() -> Result<()> {
    let mut stack = Stack::up().await?;
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["--no-repo", "--"].into_iter().chain(command.iter().map(String::as_str));
    let task = stack.detached(stack.root(), all).await?;
    let pid = counter.pid().await?;
    let born = processes::alive(pid);
    counter.prints(20).await?;

    let status = stack.upper()?.end(Signal::INT, Duration::from_secs(8)).await?;
    ensure!(status.success() || status.code() == Some(130), "{status}");
    for part in ["sculpt-controller", "postgres"] {
        let left = stack.processes(part);
        ensure!(left.is_empty(), "still there: {left:#?}");
    }
    counter.prints(50).await?;

    stack.start_up().await?;
    counter.prints(20).await?;
    ensure!(processes::alive(pid) == born, "the agent {pid} is not the process it was");
    counter.stop()?;
    let shown = stack.done(&task).await?;
    ensure!(shown["state"] == "completed" && shown["attempt"] == 1, "{shown:#}");
    counter.check(&stack.logs(&task).await?)?;
    stack.finish().await
}

#[tokio::test]
async fn a_second_one_on_the_same_directory_is_refused_and_names_the_first() -> Result<()> {
    let mut stack = Stack::up().await?;
    let up = stack.upper()?;
    let pid = up.pid()?.to_string();
    let data = stack.data().to_string_lossy().into_owned();
    let second = stack.sculpt(["up", "--data-dir", &data]).deadline(Duration::from_secs(20)).run().await?;
    assert_ne!(second.code, 0);
    second.says(&pid)?;
    // The first is unhurt.
    stack.sculpt(["ls"]).run().await?.done()?;
    up.end(Signal::INT, Duration::from_secs(15)).await?;
    stack.finish().await
}

#[tokio::test]
async fn kill_9_of_up_takes_its_parts_along_and_leaves_agents() -> Result<()> {
    let mut stack = Stack::up().await?;
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["--no-repo", "--"].into_iter().chain(command.iter().map(String::as_str));
    let task = stack.detached(stack.root(), all).await?;
    counter.prints(20).await?;
    stack.upper()?.kill().await?;
    counter.prints(20).await?;
    // Its parts end on their own; a new one must not have to be started by hand a second time.
    stack.start_up().await?;
    counter.prints(20).await?;
    counter.stop()?;
    stack.done(&task).await?;
    counter.check(&stack.logs(&task).await?)?;
    stack.finish().await
}

#[tokio::test]
async fn without_a_controller_every_command_says_so_at_once() -> Result<()> {
    let mut stack = Stack::up().await?;
    stack.upper()?.end(Signal::INT, Duration::from_secs(15)).await?;
    for command in
        [&["ls"][..], &["wait", "1"], &["run", "--no-repo", "--", "true"], &["logs", "1"], &["executor", "ls"]]
    {
        let output = stack.sculpt(command).run().await?.exits(69)?.says("sculpt up")?;
        ensure!(output.took < Duration::from_secs(5), "{command:?} took {:?}", output.took);
    }
    stack.finish().await
}

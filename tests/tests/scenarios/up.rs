//! `sculpt up`: one command, one data directory, and agents that do not notice its end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Stack, again, eventually, processes};
use serde_json::Value;

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

/// They have come straight to the executor, on a port of this machine.
#[tokio::test]
async fn who_sits_beside_an_agent_stays_while_the_controller_is_started_again() -> Result<()> {
    let mut stack = Stack::up().await?;
    let listens = "while read line; do echo \"heard $line\"; done";
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", listens]).await?;
    let mut seat = stack.terminal(&["pair", &task])?;
    seat.types("before\r")?;
    seat.shows("heard before").await?;

    let controller = |stack: &Stack| stack.processes("sculpt-controller serve").into_iter().next();
    let first = controller(&stack).context("a controller")?;
    first.signal(Signal::KILL);
    seat.types("meanwhile\r")?;
    seat.shows("heard meanwhile").await?;
    let back = || Ok(controller(&stack).filter(|other| other.pid != first.pid));
    eventually("another controller", back).await?;
    let shown = again(DEADLINE, "the controller to say who is there", async || {
        let said = stack.sculpt(["-o", "json", "show", &task]).run().await?;
        Ok((said.code == 0).then(|| serde_json::from_slice::<Value>(&said.stdout)).transpose()?)
    });
    let shown = shown.await?;
    ensure!(shown["attached"].as_array().is_some_and(|all| all.len() == 1), "{shown:#}");
    ensure!(!seat.has_shown("the connection is lost"), "{}", seat.screen());
    ensure!(seat.leaves().await? == 0);

    // The next start finds the same port, so that what ssh was told once still leads there.
    let port = async |stack: &Stack| -> Result<String> {
        let printed = stack.sculpt(["-o", "json", "pair", "--print", &task]).run().await?.done()?;
        let printed: Value = serde_json::from_slice(&printed.stdout)?;
        ensure!(printed["host"] == "127.0.0.1", "{printed:#}");
        Ok(printed["port"].to_string())
    };
    let before = port(&stack).await?;
    stack.upper()?.end(Signal::INT, Duration::from_secs(15)).await?;
    stack.start_up().await?;
    assert_eq!(port(&stack).await?, before);
    stack.sculpt(["stop", &task]).run().await?.done()?;
    stack.sculpt(["wait", &task]).run().await?.exits(4)?;
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

//! How tasks end, what is left of them, and the exit codes that scripts rely on.

use anyhow::{Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Stack, eventually};

#[tokio::test]
async fn exit_codes() -> Result<()> {
    let stack = Stack::up().await?;
    let run = ["run", "--no-repo", "--"];
    let attached = stack.sculpt(run.into_iter().chain(["sh", "-c", "echo out"])).run().await?.done()?;
    ensure!(attached.stdout == b"out\r\n", "{attached:?}");
    stack.sculpt(run.into_iter().chain(["sh", "-c", "exit 3"])).run().await?.exits(1)?;
    let shown = stack.show("2").await?;
    ensure!(shown["state"] == "failed" && shown["exit_code"] == 3 && shown["cause"] == "agent_exit", "{shown:#}");
    stack.sculpt(run.into_iter().chain(["sh", "-c", "kill -9 $$"])).run().await?.exits(1)?;
    let text = stack.sculpt(["show", "3"]).run().await?.done()?.text();
    ensure!(text.contains('9') || text.contains("KILL"), "{text}");
    stack.sculpt(run.into_iter().chain(["/no/such/program"])).run().await?.exits(1)?;
    let text = stack.sculpt(["show", "4"]).run().await?.done()?.text();
    ensure!(text.contains("/no/such/program"), "{text}");

    stack.sculpt(["wait", "1", "2"]).run().await?.exits(1)?;
    stack.sculpt(["show", "77"]).run().await?.exits(6)?;
    stack.sculpt(["wait", "77"]).run().await?.exits(6)?;
    stack.sculpt(["logs", "77"]).run().await?.exits(6)?;
    stack.sculpt(["stop", "77"]).run().await?.exits(6)?;
    stack.sculpt(["frobnicate"]).run().await?.exits(2)?;
    stack.sculpt(["run", "--no-such-flag"]).run().await?.exits(2)?;
    stack.sculpt(["stop", "1"]).run().await?.exits(7)?;
    let uuid = stack.show("1").await?["uuid"].as_str().unwrap_or_default().to_owned();
    let by_uuid = stack.show(&uuid).await?;
    ensure!(by_uuid["number"] == 1, "{by_uuid:#}");
    stack.finish().await
}

#[tokio::test]
async fn a_task_that_goes_on_can_be_waited_for_and_stopped() -> Result<()> {
    let stack = Stack::up().await?;
    // It ignores TERM, HUP and INT, and so does the child it leaves in the background.
    let script = "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & \
                  while :; do echo alive; sleep 0.1; done";
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", script]).await?;
    stack.log_until(&task, "a sign of life", |log| log.starts_with(b"alive")).await?;
    stack.sculpt(["wait", &task, "--timeout", "200ms"]).run().await?.exits(124)?;
    stack.sculpt(["stop", &task]).run().await?.done()?;
    stack.sculpt(["wait", &task]).run().await?.exits(4)?;
    ensure!(stack.show(&task).await?["state"] == "cancelled", "{:#}", stack.show(&task).await?);
    eventually("every process of the task to be gone", || Ok(stack.processes("trap").is_empty().then_some(()))).await?;
    // Stopped before it ran: one end as well.
    stack.finish().await
}

#[tokio::test]
async fn what_an_agent_leaves_in_the_background_ends_with_it() -> Result<()> {
    let stack = Stack::up().await?;
    let script = "(setsid sh -c 'sleep 4242 & sleep 4242' >/dev/null 2>&1 &) ; echo done";
    for mode in [&["--no-repo"][..], &["--no-repo", "--no-tty"]] {
        let task = stack.detached(stack.root(), mode.iter().chain(&["--", "sh", "-c", script])).await?;
        let shown = stack.done(&task).await?;
        ensure!(shown["state"] == "completed", "{shown:#}");
        ensure!(stack.processes("4242").is_empty(), "{:#?}", stack.processes("4242"));
    }
    stack.finish().await
}

#[tokio::test]
async fn a_timeout_ends_a_task_and_a_retry_runs_it_again() -> Result<()> {
    let stack = Stack::up().await?;
    let flag = stack.fresh("flags");
    std::fs::create_dir_all(&flag)?;
    let script = r#"[ -e "$1/second" ] && exit 0; : > "$1/second"; while :; do sleep 0.05; done"#;
    let flag = flag.to_string_lossy();
    let all = ["--no-repo", "--timeout", "1s", "--", "sh", "-c", script, "x", &flag];
    let task = stack.detached(stack.root(), all).await?;
    stack.sculpt(["wait", &task]).run().await?.exits(1)?;
    let shown = stack.show(&task).await?;
    ensure!(shown["cause"] == "timeout", "{shown:#}");
    stack.sculpt(["retry", &task]).run().await?.done()?;
    let shown = stack.done(&task).await?;
    ensure!(shown["attempt"] == 2 && shown["state"] == "completed", "{shown:#}");
    // The first attempt's log is still there.
    stack.sculpt(["logs", &task, "--attempt", "1"]).run().await?.done()?;
    stack.sculpt(["stop", &task]).run().await?.exits(7)?;
    stack.finish().await
}

#[tokio::test]
async fn a_queued_task_is_stopped_without_having_run() -> Result<()> {
    let stack = Stack::options().slots(1).up().await?;
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["--no-repo", "--"].into_iter().chain(command.iter().map(String::as_str));
    let first = stack.detached(stack.root(), all).await?;
    stack.until(&first, "running", |task| task.state() == TaskState::Running).await?;
    let second = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    stack.sculpt(["stop", &second]).run().await?.done()?;
    stack.sculpt(["wait", &second]).run().await?.exits(4)?;
    let shown = stack.show(&second).await?;
    ensure!(shown["state"] == "cancelled" && shown["log_bytes"].as_u64().unwrap_or(0) == 0, "{shown:#}");
    counter.stop()?;
    stack.done(&first).await?;
    stack.finish().await
}

/// Ctrl-C leaves the task alone and says so; a second look finds it where it is.
#[tokio::test]
async fn ctrl_c_in_an_attached_run_detaches() -> Result<()> {
    let stack = Stack::up().await?;
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["run", "--no-repo", "--"].into_iter().chain(command.iter().map(String::as_str));
    let mut run = stack.sculpt(all).follow()?;
    run.line(|line| line == "line 5").await?;
    run.interrupt()?;
    run.rest().await?;
    counter.prints(20).await?;
    let mut logs = stack.sculpt(["logs", "-f", "1"]).follow()?;
    logs.line(|line| line == "line 6").await?;
    logs.interrupt()?;
    logs.rest().await?;
    counter.prints(5).await?;
    counter.stop()?;
    stack.done("1").await?;
    counter.check(&stack.logs("1").await?)?;
    stack.finish().await
}

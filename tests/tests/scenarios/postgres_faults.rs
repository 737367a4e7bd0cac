//! A Postgres that dies, stands still, is out of reach, or comes back without its last seconds.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::{ListExecutorsRequest, TaskState};
use sculpt_tests::harness::{
    Cluster, Fault, Proxy, Stack, eventually,
    nemesis::{Part, candidates, postmaster},
};

#[tokio::test]
async fn a_dead_or_halted_postgres_costs_nobody_anything() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&["--no-tty"]).await?;
    let following = stack.following(&counting).await?;
    for (part, signal) in [
        (Part::Postmaster, Signal::KILL),
        // What `pg_ctl stop -m immediate` sends.
        (Part::Postmaster, Signal::QUIT),
        (Part::Backend, Signal::KILL),
        (Part::Backend, Signal::KILL),
    ] {
        let found = eventually("somebody to harm", || Ok(candidates(&stack, part).into_iter().next())).await?;
        found.signal(signal);
        counting.counter.prints(20).await?;
        postmaster(&stack).await?;
        counting.arrives(&stack).await.with_context(|| format!("after signal {} to {part:?}", signal.as_raw()))?;
    }
    let all: Vec<_> = [Part::Postmaster, Part::Backend].into_iter().flat_map(|part| candidates(&stack, part)).collect();
    all.iter().for_each(|found| found.signal(Signal::STOP));
    // Four seconds at the least: a hundred lines a second at the most.
    counting.counter.prints(400).await?;
    all.iter().for_each(|found| found.signal(Signal::CONT));
    counting.arrives(&stack).await?;
    following.saw_all(&stack, counting).await?;
    stack.finish().await
}

#[tokio::test]
async fn the_line_to_the_database_fails() -> Result<()> {
    let cluster = Cluster::start().await?;
    let proxy = Proxy::start(cluster.address(), 9).await?;
    let mut stack = Stack::options().empty().await?;
    stack.uses(&cluster, &proxy.address().to_string());
    stack.start_controller().await?;
    stack.start_executor().await?;
    let counting = stack.counting(&["--no-tty"]).await?;
    let following = stack.following(&counting).await?;
    for fault in [Fault::Cut, Fault::BlackholeUp, Fault::BlackholeDown, Fault::HalfOpen, Fault::Throttle(20_000)] {
        proxy.set(fault);
        counting.counter.prints(150).await?;
        proxy.set(Fault::None);
        counting.arrives(&stack).await.with_context(|| format!("after {fault:?}"))?;
    }
    for _ in 0..6 {
        proxy.set(Fault::Cut);
        counting.counter.prints(3).await?;
        proxy.set(Fault::None);
        counting.counter.prints(3).await?;
    }
    counting.arrives(&stack).await.context("after flapping")?;
    following.saw_all(&stack, counting).await?;
    stack.finish().await
}

/// Controller and Postgres are gone at once, as when their host fails.
async fn fails_over(stack: &mut Stack) -> Result<()> {
    let first = postmaster(stack).await?;
    stack.controller()?.kill().await?;
    first.signal(Signal::QUIT);
    eventually("Postgres to be gone", || Ok(candidates(stack, Part::Postmaster).is_empty().then_some(()))).await
}

/// Copies a directory with owners and permissions, which Postgres minds.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status().context("run cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

/// A standby that lacks the last seconds becomes the database: log tails that were acknowledged are sent again, a number
/// that is minted twice is told apart by its uuid, and what nobody knows any more runs on and is named.
#[tokio::test]
async fn a_promotion_that_loses_the_last_seconds() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let (live, standby) = (stack.data().join("controller/postgres"), stack.root().join("standby"));
    let counting = stack.counting(&["--no-tty"]).await?;
    let gate = stack.root().join("gate");
    let counter = stack.counter()?;
    let script = r#"[ -e "$0" ] || exit 3; exec "$@""#;
    let command = counter.command();
    let gate_path = gate.to_string_lossy();
    let twice = ["--no-repo", "--no-tty", "--", "sh", "-c", script, &gate_path];
    let twice = stack.detached(stack.root(), twice.into_iter().chain(command.iter().map(String::as_str))).await?;
    stack.sculpt(["wait", &twice]).run().await?.exits(1)?;
    counting.arrives(&stack).await?;

    fails_over(&mut stack).await?;
    copy(&live, &standby)?;
    stack.start_controller().await?;
    let mark = stack.ledger().mark();

    // What the standby will not have heard of: bytes of a log, and a second attempt.
    counting.arrives(&stack).await?;
    fs::write(&gate, "")?;
    stack.sculpt(["retry", &twice]).run().await?.done()?;
    stack.until(&twice, "running again", |task| task.state() == TaskState::Running).await?;
    let pid = counter.pid().await?;
    let forgotten = stack.attempt_of(&twice).await?;
    counter.prints(10).await?;

    fails_over(&mut stack).await?;
    fs::remove_dir_all(&live)?;
    fs::rename(&standby, &live)?;
    stack.loses_since(&mark);
    stack.start_controller().await?;

    counting.arrives(&stack).await.context("the acknowledged tail of the log")?;
    let mut api = stack.api().await?;
    let mut named = Vec::new();
    for _ in 0..100 {
        let executors = api.executors.list_executors(ListExecutorsRequest {}).await?.into_inner().executors;
        named = executors.into_iter().flat_map(|executor| executor.unknown_attempts).collect();
        if !named.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(named == [forgotten.clone()], "{named:?} are named as unknown, not {forgotten}");
    fs::remove_file(&gate)?;
    stack.sculpt(["retry", &twice]).run().await?.done()?;
    stack.sculpt(["wait", &twice]).run().await?.exits(1)?;
    let shown = stack.show(&twice).await?;
    ensure!(shown["attempt"] == 2 && shown["exit_code"] == 3, "{shown:#}");
    ensure!(stack.attempt_of(&twice).await? != forgotten, "two attempts have one uuid");
    counter.prints(10).await?;
    ensure!(sculpt_tests::harness::processes::alive(pid).is_some(), "what the database does not know was ended");

    counting.ends_well(&stack).await?;
    counter.stop()?;
    eventually("the forgotten agent to end", || {
        Ok(sculpt_tests::harness::processes::alive(pid).is_none().then_some(()))
    })
    .await?;
    // Its task has gone on, so nobody takes it over, and it stays where it is.
    stack.check().await
}

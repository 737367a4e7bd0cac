//! Wall clocks that are an hour wrong, and jump: nothing but displayed times may follow them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Stack};

use crate::certificates::{certificate, runs_out, short_lived};

/// The library that lies about the time of day, if it is installed.
fn liar() -> Option<PathBuf> {
    let mut places =
        fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let found = places.find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: the package faketime is not installed; run scripts/setup");
    }
    found
}

/// What a program is started through so that its wall clock, and no other clock, is off by what stands in `file`.
fn by(liar: &Path, file: &Path) -> Vec<String> {
    let variables = [
        ("LD_PRELOAD", liar.to_string_lossy()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let all = variables.iter().map(|(name, value)| format!("{name}={value}"));
    ["env".to_owned()].into_iter().chain(all).collect()
}

/// The clock of each side jumps by an hour and back under a running session; then each starts with a wrong one.
#[tokio::test]
async fn a_wall_clock_that_is_an_hour_off_changes_nothing() -> Result<()> {
    let Some(liar) = liar() else { return Ok(()) };
    let mut stack = Stack::options().empty().await?;
    let [of_executor, of_controller] =
        ["executor", "controller"].map(|name| stack.root().join(format!("{name}.clock")));
    for file in [&of_executor, &of_controller] {
        fs::write(file, "+0\n")?;
    }
    stack.executor_via(by(&liar, &of_executor));
    stack.controller_via(by(&liar, &of_controller));
    stack.start_controller().await?;
    stack.start_executor().await?;
    for file in [&of_executor, &of_controller] {
        let counting = stack.counting(&[]).await?;
        for offset in ["+3600", "-3600", "+0"] {
            fs::write(file, format!("{offset}\n"))?;
            counting.arrives(&stack).await.with_context(|| format!("{} at {offset}", file.display()))?;
            limits_hold(&stack).await.with_context(|| format!("{} at {offset}", file.display()))?;
        }
        fs::write(file, "-3600\n")?;
        stack.executor()?.kill().await?;
        stack.controller()?.kill().await?;
        stack.start_controller().await?;
        stack.start_executor().await?;
        counting.arrives(&stack).await.context("after a start with a wrong clock")?;
        ensure!(!stack.show(&counting.task).await?["unreachable"].as_bool().unwrap_or(true));
        counting.ends_well(&stack).await?;
    }
    stack.finish().await
}

/// An hour is forgiven, so that a certificate of seconds is good for long by a clock that is so far behind.
#[tokio::test]
async fn a_certificate_that_has_run_out_is_renewed_by_an_executor_that_takes_it_for_good() -> Result<()> {
    let Some(liar) = liar() else { return Ok(()) };
    let mut stack = short_lived().empty().await?;
    let file = stack.root().join("executor.clock");
    fs::write(&file, "+0\n")?;
    stack.executor_via(by(&liar, &file));
    stack.start_controller().await?;
    stack.start_executor().await?;
    let (before, until) = certificate(&stack.executor_data())?;
    stack.executor()?.end(Signal::TERM, DEADLINE).await?;
    runs_out(until).await?;
    fs::write(&file, "-3000\n")?;
    let told = fs::read_to_string(stack.root().join("executor.log"))?.len();
    stack.start_executor().await?;
    let (after, _) = certificate(&stack.executor_data())?;
    ensure!(after.generation > before.generation, "{before:?} became {after:?}");
    let log = fs::read_to_string(stack.root().join("executor.log"))?;
    ensure!(log[told..].contains("wants a newer certificate first"), "its own clock was not behind: {log}");
    stack.finish().await
}

/// A time limit is a span, and times in the database are the database's.
async fn limits_hold(stack: &Stack) -> Result<()> {
    let before = now();
    let arguments = ["--no-repo", "--no-tty", "--timeout", "1s", "--", "sleep", "4242"];
    let task = stack.detached(stack.root(), arguments).await?;
    let output = stack.sculpt(["wait", &task]).run().await?.exits(1)?;
    ensure!(output.took.as_secs() < 30, "a limit of 1 s took {:?}", output.took);
    let shown = stack.show(&task).await?;
    ensure!(shown["cause"] == "timeout", "{shown:#}");
    let quick = stack.detached(stack.root(), ["--no-repo", "--timeout", "1h", "--", "true"]).await?;
    ensure!(stack.done(&quick).await?["state"] == "completed", "a limit of an hour cut off what took no time");
    let found = stack.until(&quick, "its times", |task| task.ended_at.is_some()).await?;
    let created = found.created_at.context("a time of creation")?.seconds;
    ensure!((created - before).abs() < 600, "it was created at {created}, but it is {before}");
    Ok(())
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

//! The network between executor and controller: packets vanish, connections stand half-open, the line is slow or flaps.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::{TaskState, WatchTaskRequest};
use sculpt_tests::harness::{Cable, DEADLINE, Fault, Proxy, Stack, Way, netns};

/// A stack whose executor is at the other end of `cable`.
async fn apart(cable: &Cable) -> Result<Stack> {
    let mut stack = Stack::options().empty().await?;
    stack.executors_arrive_at(netns::CONTROLLER);
    stack.executor_via(cable.via());
    stack.start_controller().await?;
    stack.start_executor().await?;
    Ok(stack)
}

/// Shorter than any watchdog: TCP alone repairs it.
#[tokio::test]
async fn packets_vanish_for_a_moment_both_ways_and_one_way() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let stack = apart(&cable).await?;
    let running = stack.counting(&[]).await?;
    for ways in [&[Way::Up][..], &[Way::Down], &[Way::Up, Way::Down]] {
        ways.iter().try_for_each(|way| cable.cut(*way))?;
        running.counter.prints(100).await?;
        ways.iter().try_for_each(|way| cable.mend(*way))?;
        running.arrives(&stack).await.with_context(|| format!("after {ways:?} was cut"))?;
    }
    running.ends_well(&stack).await?;
    stack.finish().await
}

/// Longer than the watchdogs of both sides: each gives its half of the session up, and they find each other again.
#[tokio::test]
async fn a_partition_beyond_the_watchdog_is_shown_and_heals() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let stack = apart(&cable).await?;
    let running = stack.counting(&[]).await?;
    [Way::Up, Way::Down].iter().try_for_each(|way| cable.cut(*way))?;
    let found = stack.until(&running.task, "unreachable", |task| task.unreachable).await?;
    ensure!(found.state() == TaskState::Running, "nothing is stopped because nobody is heard: {found:?}");
    [Way::Up, Way::Down].iter().try_for_each(|way| cable.mend(*way))?;
    stack.until(&running.task, "reachable again", |task| !task.unreachable).await?;
    running.arrives(&stack).await?;
    running.ends_well(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn a_line_that_flaps_loses_nothing() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let stack = apart(&cable).await?;
    let running = stack.counting(&[]).await?;
    for round in 0..10_u64 {
        let way = if round % 3 == 0 { Way::Up } else { Way::Down };
        cable.cut(way)?;
        running.counter.prints(5 + 7 * round % 23).await?;
        cable.mend(way)?;
        running.counter.prints(3).await?;
    }
    running.arrives(&stack).await?;
    running.ends_well(&stack).await?;
    stack.finish().await
}

/// The controller's host vanishes without a word: its end of every connection is gone, the executor's still stands.
#[tokio::test]
async fn half_open_connections_are_given_up() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let mut stack = apart(&cable).await?;
    let running = stack.counting(&[]).await?;
    [Way::Up, Way::Down].iter().try_for_each(|way| cable.cut(*way))?;
    // Nobody hears its goodbye.
    stack.controller()?.kill().await?;
    running.counter.prints(50).await?;
    stack.start_controller().await?;
    [Way::Up, Way::Down].iter().try_for_each(|way| cable.mend(*way))?;
    running.arrives(&stack).await?;
    running.ends_well(&stack).await?;
    stack.finish().await
}

/// A log that fills a slow line for longer than the watchdog's 30 s delays no heartbeat: the session lives on.
#[tokio::test]
async fn a_flood_on_a_slow_line_starves_no_heartbeat() -> Result<()> {
    let Some(cable) = Cable::lay()? else { return Ok(()) };
    let stack = apart(&cable).await?;
    cable.slow(Way::Up, 800)?;
    let gate = stack.root().join("gate");
    let script = r#"head -c 3700000 /dev/zero | tr '\0' x; while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let arguments =
        ["--no-repo", "--no-tty", "--", "sh", "-c", script, "x", &gate.to_string_lossy()].map(str::to_owned);
    let task = stack.detached(stack.root(), arguments).await?;
    let started = Instant::now();
    let log = log_without_silence(&stack, &task, 3_700_000).await?;
    ensure!(log.iter().all(|byte| *byte == b'x'), "the log is not what was printed");
    ensure!(started.elapsed() > Duration::from_secs(33), "the line was not slow: {:?}", started.elapsed());
    fs::write(&gate, "")?;
    ensure!(stack.done(&task).await?["state"] == "completed");
    cable.mend(Way::Up)?;
    stack.finish().await
}

/// Waits for so many bytes of the log, and fails when the executor is called unreachable meanwhile.
async fn log_without_silence(stack: &Stack, task: &str, length: usize) -> Result<Vec<u8>> {
    let mut api = stack.api().await?;
    let request = WatchTaskRequest { task: task.to_owned() };
    let mut seen = api.tasks.watch_task(request).await?.into_inner();
    let log = stack.log_until(task, "all that was printed", |log| log.len() == length);
    tokio::pin!(log);
    loop {
        tokio::select! {
            log = &mut log => return log,
            message = seen.message() => {
                let task = message?.and_then(|message| message.task).context("a task in each message")?;
                ensure!(!task.unreachable, "heartbeats starve behind the log");
            }
        }
    }
}

/// What a broken middlebox does to connections: bytes come late, slowly, and in the end not at all.
#[tokio::test]
async fn a_line_that_delays_and_throttles_and_breaks_again_and_again() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let proxy = Proxy::start(stack.executor_address()?, 7).await?;
    stack.executor_dials(proxy.url());
    stack.executor()?.end(Signal::TERM, DEADLINE).await?;
    stack.start_executor().await?;
    let running = stack.counting(&[]).await?;
    for _ in 0..4 {
        for fault in
            [Fault::Delay(Duration::from_millis(80)), Fault::Cut, Fault::Throttle(30_000), Fault::BlackholeDown]
        {
            proxy.set(fault);
            running.counter.prints(15).await?;
        }
        proxy.set(Fault::None);
        running.arrives(&stack).await?;
    }
    running.ends_well(&stack).await?;
    stack.finish().await
}

//! The agent outlives everything else: whatever is killed, every line arrives once, in order, from the same process.

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Counter, Counting, Fault, Proxy, Stack, eventually, processes};

/// Runs a counting agent, does `harm` to the stack meanwhile, and checks that the agent never noticed.
async fn an_agent_outlives(
    stack: &mut Stack,
    arguments: &[&str],
    harm: impl AsyncFnOnce(&mut Stack, &Counter, &str) -> Result<()>,
) -> Result<()> {
    let counting = stack.counting(arguments).await?;
    harm(stack, &counting.counter, &counting.task).await?;
    counting.arrives(stack).await?;
    counting.ends_well(stack).await
}

#[tokio::test]
async fn kill_9_of_the_executor() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for arguments in [&[][..], &["--no-tty"]] {
        an_agent_outlives(&mut stack, arguments, async |stack, counter, _| {
            stack.executor()?.kill().await?;
            counter.prints(50).await?;
            stack.start_executor().await
        })
        .await?;
    }
    stack.finish().await
}

#[tokio::test]
async fn kill_9_of_the_controller() -> Result<()> {
    let mut stack = Stack::parts().await?;
    an_agent_outlives(&mut stack, &[], async |stack, counter, _| {
        stack.controller()?.kill().await?;
        counter.prints(50).await?;
        stack.start_controller().await
    })
    .await?;
    stack.finish().await
}

#[tokio::test]
async fn kill_9_of_the_tmux_server() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let server = |stack: &Stack| stack.processes("tmux: server").into_iter().next();
    an_agent_outlives(&mut stack, &[], async |stack, counter, _| {
        let first = eventually("the tmux server", || Ok(server(stack))).await?;
        first.signal(Signal::KILL);
        counter.prints(20).await?;
        let other = || Ok(server(stack).filter(|found| *found != first));
        eventually("a new tmux server around the living agent", other).await.map(drop)
    })
    .await?;
    stack.finish().await
}

/// The postmaster of the built-in Postgres: the one whose parent is no Postgres.
fn postmaster(stack: &Stack) -> Option<processes::Found> {
    let all = stack.processes("postgres");
    let all: Vec<_> = all.into_iter().filter(|found| found.name == "postgres").collect();
    all.iter().find(|found| !all.iter().any(|other| other.pid == found.parent)).cloned()
}

#[tokio::test]
async fn kill_9_of_postgres() -> Result<()> {
    let mut stack = Stack::parts().await?;
    an_agent_outlives(&mut stack, &[], async |stack, counter, task| {
        let first = postmaster(stack).context("the built-in Postgres runs")?;
        first.signal(Signal::KILL);
        counter.prints(50).await?;
        let other = || Ok(postmaster(stack).filter(|found| *found != first));
        eventually("Postgres to run again", other).await?;
        stack.until(task, "known as running again", |task| task.state() == TaskState::Running).await.map(drop)
    })
    .await?;
    stack.finish().await
}

#[tokio::test]
async fn kill_9_of_executor_and_controller_at_once() -> Result<()> {
    let mut stack = Stack::parts().await?;
    an_agent_outlives(&mut stack, &[], async |stack, counter, _| {
        tokio::try_join!(stack.executor()?.kill(), stack.controller()?.kill())?;
        counter.prints(50).await?;
        stack.start_controller().await?;
        stack.start_executor().await
    })
    .await?;
    stack.finish().await
}

/// Neither a frozen executor nor a frozen view holds up the agent.
#[tokio::test]
async fn stopped_parts_stall_nothing() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for part in ["sculpt-executor run", "tmux: server"] {
        an_agent_outlives(&mut stack, &[], async |stack, counter, _| {
            let found = eventually(part, || Ok(stack.processes(part).into_iter().next())).await?;
            found.signal(Signal::STOP);
            counter.prints(300).await?;
            found.signal(Signal::CONT);
            Ok(())
        })
        .await
        .with_context(|| format!("while {part} was stopped"))?;
    }
    stack.finish().await
}

#[tokio::test]
async fn the_controller_is_away_for_a_while() -> Result<()> {
    let lines = std::env::var("SCULPT_TEST_AWAY_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let mut stack = Stack::parts().await?;
    an_agent_outlives(&mut stack, &[], async |stack, counter, _| {
        stack.controller()?.end(Signal::TERM, sculpt_tests::harness::DEADLINE).await?;
        counter.prints(lines).await?;
        stack.start_controller().await
    })
    .await?;
    stack.finish().await
}

#[tokio::test]
async fn the_line_between_executor_and_controller_fails() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let proxy = Proxy::start(stack.executor_address()?, 1).await?;
    stack.executor_dials(proxy.url());
    stack.executor()?.end(Signal::TERM, sculpt_tests::harness::DEADLINE).await?;
    stack.start_executor().await?;
    for fault in [Fault::Cut, Fault::BlackholeUp, Fault::BlackholeDown, Fault::Throttle(20_000)] {
        an_agent_outlives(&mut stack, &[], async |_, counter, _| {
            proxy.set(fault);
            counter.prints(50).await?;
            proxy.set(Fault::None);
            Ok(())
        })
        .await
        .with_context(|| format!("under {fault:?}"))?;
    }
    stack.finish().await
}

/// The exit record is the shim's: an end that nobody saw is reported all the same.
#[tokio::test]
async fn an_end_while_the_executor_is_dead_is_reported() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    stack.executor()?.kill().await?;
    counting.counter.stop()?;
    eventually("the agent to end", || Ok(counting.is_gone().then_some(()))).await?;
    stack.start_executor().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn an_end_while_the_controller_is_dead_is_reported() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    stack.controller()?.kill().await?;
    counting.counter.stop()?;
    eventually("the agent to end", || Ok(counting.is_gone().then_some(()))).await?;
    stack.start_controller().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

/// A log that a person follows goes on by itself after an outage, without a hole.
#[tokio::test]
async fn a_followed_log_goes_on_after_the_controller_was_killed() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let Counting { counter, task, .. } = stack.counting(&[]).await?;
    let mut follow = stack.sculpt(["logs", "-f", &task]).follow()?;
    let mut log = format!("{}\r\n", follow.line(|_| true).await?).into_bytes();
    stack.controller()?.kill().await?;
    counter.prints(20).await?;
    stack.start_controller().await?;
    counter.prints(20).await?;
    counter.stop()?;
    stack.done(&task).await?;
    let (rest, code) = follow.rest().await?;
    log.extend(rest);
    assert_eq!(code, 0);
    counter.check(&log)?;
    stack.finish().await
}

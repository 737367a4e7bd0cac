//! The shim, its agent and its view: whichever of them dies, stands still or fights the others, there is one end, no
//! process is left, and the log holds what was read.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Counting, Stack, eventually, processes::Found};

/// The shim of the only attempt that runs.
async fn shim(stack: &Stack) -> Result<Found> {
    eventually("the shim", || Ok(stack.processes("sculpt-executor shim run").into_iter().next())).await
}

/// Waits for an end that a fault has brought about.
async fn fails(stack: &Stack, counting: &Counting, cause: &str) -> Result<()> {
    stack.sculpt(["wait", &counting.task]).run().await?.exits(1)?;
    let shown = stack.show(&counting.task).await?;
    ensure!(shown["state"] == "failed" && shown["cause"] == cause, "{shown:#}");
    eventually("the agent to be gone", || Ok(counting.is_gone().then_some(()))).await
}

#[tokio::test]
async fn kill_9_of_the_shim() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for (arguments, executor_is_dead) in [(&[][..], false), (&["--no-tty"], false), (&[], true)] {
        let counting = stack.counting(arguments).await?;
        counting.arrives(&stack).await?;
        if executor_is_dead {
            stack.executor()?.kill().await?;
        }
        shim(&stack).await?.signal(Signal::KILL);
        if executor_is_dead {
            stack.start_executor().await?;
        }
        fails(&stack, &counting, "internal").await?;
        ensure!(!stack.logs(&counting.task).await?.is_empty());
    }
    stack.finish().await
}

/// It stands still as somebody's debugger would have it: the agent waits at most for its output, and nothing is lost.
#[tokio::test]
async fn a_stopped_shim_loses_nothing() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for arguments in [&[][..], &["--no-tty"]] {
        let counting = stack.counting(arguments).await?;
        let shim = shim(&stack).await?;
        shim.signal(Signal::STOP);
        counting.counter.prints(50).await?;
        // Neither does a new executor take a silent shim for a dead one.
        stack.executor()?.kill().await?;
        stack.start_executor().await?;
        counting.counter.prints(50).await?;
        counting.lives_on()?;
        shim.signal(Signal::CONT);
        counting.arrives(&stack).await?;
        counting.ends_well(&stack).await?;
    }
    stack.finish().await
}

/// What is asked of a shim that stands still is done as soon as it goes on.
#[tokio::test]
async fn a_stop_reaches_a_shim_that_was_stopped() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let shim = shim(&stack).await?;
    shim.signal(Signal::STOP);
    stack.sculpt(["stop", &counting.task]).run().await?.done()?;
    counting.counter.prints(20).await?;
    shim.signal(Signal::CONT);
    stack.sculpt(["wait", &counting.task]).run().await?.exits(4)?;
    eventually("the agent to be gone", || Ok(counting.is_gone().then_some(()))).await?;
    stack.finish().await
}

/// An agent runs as its shim does where nothing separates them, and may kill it.
#[tokio::test]
async fn an_agent_kills_its_shim() -> Result<()> {
    let stack = Stack::parts().await?;
    for arguments in [&["--no-repo"][..], &["--no-repo", "--no-tty"]] {
        let script = "echo before; sleep 0.5; kill -9 $PPID; while :; do sleep 4242; done";
        let task = stack.detached(stack.root(), arguments.iter().chain(&["--", "sh", "-c", script])).await?;
        stack.sculpt(["wait", &task]).run().await?.exits(1)?;
        let shown = stack.show(&task).await?;
        ensure!(shown["state"] == "failed" && shown["cause"] == "internal", "{shown:#}");
        ensure!(String::from_utf8_lossy(&stack.logs(&task).await?).lines().eq(["before"]));
        eventually("nothing of it to be left", || Ok(stack.processes("4242").is_empty().then_some(()))).await?;
    }
    stack.finish().await
}

/// Its view and what leads there are for people: without them the agent lives, and they come back.
#[tokio::test]
async fn the_view_is_stopped_killed_and_loses_its_socket() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let server = || eventually("the tmux server", || Ok(stack.processes("tmux: server").into_iter().next()));
    let shown = stack.until(&counting.task, "a view", |task| !socket(task).is_empty()).await?;
    let socket = socket(&shown).to_owned();
    for harm in [Signal::STOP, Signal::KILL, Signal::CONT] {
        let found = server().await?;
        if harm == Signal::CONT {
            // Nobody tells a server that its socket is gone; it must not stay behind, either.
            std::fs::remove_file(&socket)?;
        }
        found.signal(harm);
        counting.counter.prints(30).await?;
        if harm == Signal::STOP {
            found.signal(Signal::CONT);
        } else {
            let answers = || {
                let asked = std::process::Command::new("tmux").args(["-S", &socket, "has-session"]).output()?;
                Ok(asked.status.success().then_some(()))
            };
            eventually("a view that answers", answers).await.with_context(|| format!("after {harm:?}"))?;
        }
    }
    counting.arrives(&stack).await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

fn socket(task: &sculpt_proto::v1::Task) -> &str {
    task.attempts.last().map_or("", |attempt| attempt.tmux_socket.as_str())
}

/// Agents that hide, multiply and refuse: a stop is done only when nothing of them is left.
#[tokio::test]
async fn agents_that_fight_their_end() -> Result<()> {
    let stack = Stack::options().slots(10).parts().await?;
    let mut tasks = Vec::new();
    let deaf = "trap '' TERM HUP INT QUIT;";
    for (what, script) in [
        ("a daemon", format!("{deaf} (setsid sh -c \"{deaf} while :; do sleep 4242; done\" &) ; echo up; sleep 4242")),
        (
            // Bounded, and still more than one sweep over a process list finds.
            "a bomb",
            format!(
                "{deaf} for n in $(seq 150); do (setsid sh -c \"{deaf} sleep 4242; sleep 4242\" &) ; done; echo up; sleep 4242"
            ),
        ),
        (
            "one that is born again and again",
            format!(
                "{deaf} echo up; while :; do (setsid sh -c \"{deaf} sleep 4242; sleep 4242\" &) ; sleep 0.02; done"
            ),
        ),
        ("one without outputs", format!("{deaf} echo up; exec >&- 2>&- ; sleep 4242; sleep 4242")),
        ("one without a directory", format!("{deaf} echo up; rm -rf \"$PWD\"; sleep 4242; sleep 4242")),
    ] {
        for mode in [&["--no-repo"][..], &["--no-repo", "--no-tty"]] {
            let arguments = mode.iter().copied().chain(["--", "sh", "-c", script.as_str()]);
            tasks.push((what, stack.detached(stack.root(), arguments).await?));
        }
    }
    for (what, task) in &tasks {
        stack.log_until(task, "a sign of life", |log| log.starts_with(b"up")).await.context(*what)?;
        stack.sculpt(["stop", task]).run().await?.done()?;
    }
    for (what, task) in &tasks {
        stack.sculpt(["wait", task]).run().await?.exits(4).context(*what)?;
        let attempt = stack.attempt_of(task).await?;
        let mut left = stack.traces().of_attempts();
        left.retain(|(of, found)| *of == attempt && found.command.contains("4242"));
        ensure!(left.is_empty(), "{what} was called stopped, but is left: {left:#?}");
    }
    stack.finish().await
}

/// The end is that of the main process, also when nothing was heard of it for long.
#[tokio::test]
async fn an_agent_that_closes_its_outputs_has_an_exit_code() -> Result<()> {
    let stack = Stack::parts().await?;
    for mode in [&["--no-repo"][..], &["--no-repo", "--no-tty"]] {
        let script = "echo last words; exec >&- 2>&- <&-; sleep 0.5; exit 7";
        let task = stack.detached(stack.root(), mode.iter().chain(&["--", "sh", "-c", script])).await?;
        stack.sculpt(["wait", &task]).run().await?.exits(1)?;
        let shown = stack.show(&task).await?;
        ensure!(shown["exit_code"] == 7 && shown["cause"] == "agent_exit", "{shown:#}");
        ensure!(String::from_utf8_lossy(&stack.logs(&task).await?).lines().eq(["last words"]));
    }
    stack.finish().await
}

/// Cancelled, timed out or killed at the moment when it ends by itself: one end, whichever was first.
#[tokio::test]
async fn ends_that_race_are_one_end() -> Result<()> {
    let stack = Stack::options().slots(6).parts().await?;
    let mut tasks = Vec::new();
    for round in 0..12_u32 {
        let agent = format!("echo $$; sleep 0.{:02}; echo done", 90 + round % 3);
        let limit = if round % 3 == 0 { &["--timeout", "1s"][..] } else { &[] };
        let arguments = ["--no-repo", "--no-tty"].iter().chain(limit).copied();
        let task = stack.detached(stack.root(), arguments.chain(["--", "sh", "-c", agent.as_str()])).await?;
        tasks.push((round, task));
        if tasks.len() % 4 == 0 {
            for (round, task) in &tasks[tasks.len() - 4..] {
                let log = stack.log_until(task, "its pid", |log| log.contains(&b'\n')).await;
                match round % 3 {
                    // It may well be over by now.
                    1 => drop(stack.sculpt(["stop", task]).run().await?),
                    2 => {
                        let pid = String::from_utf8_lossy(&log.unwrap_or_default()).lines().next().map(str::to_owned);
                        drop(stack.shell("kill", ["-9", &pid.unwrap_or_default()]).run().await?);
                    }
                    _ => {}
                }
            }
        }
    }
    for (_, task) in tasks {
        let found = stack.until(&task, "an end", |task| task.ended_at.is_some()).await?;
        let ended = [TaskState::Completed, TaskState::Failed, TaskState::Cancelled].contains(&found.state());
        ensure!(ended && found.attempts.len() == 1, "{found:?}");
    }
    stack.finish().await
}

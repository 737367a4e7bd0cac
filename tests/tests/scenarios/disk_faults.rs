//! Disks that fail: files that are torn, flipped or gone, calls that return EIO, and calls that take for ever.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{BadDisk, Counting, Stack, checker::Cut, eventually};

fn directory(stack: &Stack, attempt: &str) -> PathBuf {
    stack.executor_data().join("attempts").join(attempt)
}

/// What is done to a file of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Flip,
    Tear,
    Remove,
}

const HARMS: [Harm; 3] = [Harm::Flip, Harm::Tear, Harm::Remove];

impl Harm {
    fn strike(self, file: &Path) -> Result<()> {
        let what = || format!("{self:?} {}", file.display());
        let mut content = fs::read(file).with_context(what)?;
        match self {
            Self::Flip => {
                let middle = content.len() / 2;
                content[middle] ^= 0x20;
                fs::write(file, content).with_context(what)
            }
            Self::Tear => fs::write(file, &content[..content.len() / 2]).with_context(what),
            Self::Remove => fs::remove_file(file).with_context(what),
        }
    }
}

/// The remarks on `task` and its failure, as people see them.
async fn told(stack: &Stack, task: &str) -> Result<String> {
    let shown = stack.show(task).await?;
    Ok(format!("{} {} {}", shown["cause"], shown["message"], shown["attempts"]))
}

/// A living agent whose spec or journal was damaged under a dead executor is left alone; a stop still reaches it, and the
/// damage is named. Its neighbour is delivered as if nothing had been.
#[tokio::test]
async fn the_files_of_a_living_attempt_are_damaged() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    for file in ["spec", "journal"] {
        for harm in HARMS {
            let counting = stack.counting(&["--no-tty"]).await?;
            let attempt = stack.attempt_of(&counting.task).await?;
            stack.executor()?.kill().await?;
            harm.strike(&directory(&stack, &attempt).join(file))?;
            stack.start_executor().await?;
            let what = format!("{harm:?} of the {file}");
            counting.counter.prints(20).await.context(what.clone())?;
            counting.lives_on().context(what.clone())?;
            stack.sculpt(["stop", &counting.task]).run().await?.done()?;
            eventually("the agent to be ended", || Ok(counting.is_gone().then_some(()))).await.context(what.clone())?;
            let found = stack.until(&counting.task, "an end", |task| task.ended_at.is_some()).await;
            found.with_context(|| what.clone())?;
            // The beginning of a journal is a journal.
            if (file, harm) != ("journal", Harm::Tear) {
                let told = told(&stack, &counting.task).await?;
                ensure!(told.contains("internal") && told.contains("quarantine"), "{what}: {told}");
            }
            neighbour.arrives(&stack).await.context(what)?;
        }
    }
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

/// The recording of an attempt whose shim died is damaged: what is whole of it is delivered, and the loss is named.
#[tokio::test]
async fn the_recording_of_a_dead_attempt_is_damaged() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for harm in HARMS {
        let counting = stack.counting(&["--no-tty"]).await?;
        counting.arrives(&stack).await?;
        let attempt = stack.attempt_of(&counting.task).await?;
        stack.executor()?.kill().await?;
        for found in stack.traces().of_attempts() {
            found.1.signal(Signal::KILL);
        }
        eventually("the agent to be gone", || Ok(counting.is_gone().then_some(()))).await?;
        harm.strike(&directory(&stack, &attempt).join("spool/00000000000000000000.spool"))?;
        stack.may_lack(&counting.task, Cut::Recording)?;
        stack.start_executor().await?;
        stack.sculpt(["wait", &counting.task]).run().await?.exits(1)?;
        // What the controller has is never taken back.
        let log = String::from_utf8_lossy(&stack.logs(&counting.task).await?).into_owned();
        let in_order = log.lines().enumerate().all(|(index, line)| format!("line {}", index + 1).starts_with(line));
        ensure!(in_order && !log.is_empty(), "after {harm:?} the log is {log:?}");
        ensure!(told(&stack, &counting.task).await?.contains("internal"), "{}", told(&stack, &counting.task).await?);
    }
    stack.finish().await
}

/// The calls with which a shim writes its recording fail for a while: the agent waits, nothing is lost.
#[tokio::test]
async fn input_and_output_errors_hold_the_agent_and_lose_nothing() -> Result<()> {
    let stack = Stack::parts().await?;
    for calls in ["write,pwrite64,writev,pwritev,pwritev2", "fsync,fdatasync,sync_file_range"] {
        let counting = stack.counting(&[]).await?;
        let spool = segment(&stack, &counting).await?;
        let shim = stack.processes("sculpt-executor shim run").into_iter().next().context("the shim")?;
        let Some(bad) = BadDisk::failing(&shim, calls, Some(&spool), "EIO").await? else { return stack.finish().await };
        bad.strikes(3).await.with_context(|| format!("EIO of {calls}"))?;
        counting.lives_on()?;
        bad.mends().await?;
        counting.arrives(&stack).await.with_context(|| format!("after EIO of {calls}"))?;
        counting.ends_well(&stack).await?;
    }
    stack.finish().await
}

async fn segment(stack: &Stack, counting: &Counting) -> Result<PathBuf> {
    Ok(directory(stack, &stack.attempt_of(&counting.task).await?).join("spool/00000000000000000000.spool"))
}

/// Each flush takes a third of a second, of the shim and of the executor: the session stands, and the log arrives.
#[tokio::test]
async fn a_slow_disk_delays_and_loses_nothing() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let shim = stack.processes("sculpt-executor shim run").into_iter().next().context("the shim")?;
    let executor = stack.processes("sculpt-executor run").into_iter().next().context("the executor")?;
    let flushes = "fsync,fdatasync";
    let Some(one) = BadDisk::slow(&shim, flushes, Duration::from_millis(300)).await? else {
        counting.ends_well(&stack).await?;
        return stack.finish().await;
    };
    let other = BadDisk::slow(&executor, flushes, Duration::from_millis(300)).await?.context("strace is there")?;
    one.strikes(5).await?;
    // Every step of a whole task waits for several of these.
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "seq", "1", "5000"]).await?;
    ensure!(stack.done(&task).await?["state"] == "completed");
    ensure!(!stack.show(&counting.task).await?["unreachable"].as_bool().unwrap_or(true), "a slow disk is no silence");
    counting.arrives(&stack).await?;
    one.mends().await?;
    other.mends().await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

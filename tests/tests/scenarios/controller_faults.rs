//! Controllers that die at random moments or stand still: agents never notice, and whoever follows misses nothing.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Dice, Stack};

/// Lines that the agent prints meanwhile, a hundred a second at the most: longer than the CLI takes to notice that nobody answers.
const STANDSTILL: u64 = 800;

#[tokio::test]
async fn kill_9_at_random_moments_while_people_follow() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&["--no-tty"]).await?;
    let following = stack.following(&counting).await?;
    let mut dice = Dice::new(5);
    for round in 0..5 {
        // In the middle of a task's creation, claim, start, log or end, as it happens.
        let other = tokio::spawn(stack.sculpt(["run", "-q", "-d", "--no-repo", "--", "echo", "hi"]).run());
        tokio::time::sleep(dice.pause(0, 700)).await;
        stack.controller()?.kill().await?;
        stack.start_controller().await?;
        counting.arrives(&stack).await.with_context(|| format!("in round {round}"))?;
        let other = other.await??;
        if other.code == 0 {
            stack.done(&other.text()).await?;
        }
    }
    following.saw_all(&stack, counting).await?;
    stack.sculpt(["run", "-q", "--no-repo", "--", "true"]).run().await?.done()?;
    stack.finish().await
}

#[tokio::test]
async fn an_attached_run_goes_on_after_kill_9() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["run", "--no-repo", "--no-tty", "--"].into_iter().chain(command.iter().map(String::as_str));
    let mut run = stack.sculpt(all).follow()?;
    let mut log = Vec::new();
    for _ in 0..2 {
        log.extend(format!("{}\n", run.line(|_| true).await?).into_bytes());
        counter.prints(20).await?;
        stack.controller()?.kill().await?;
        counter.prints(20).await?;
        stack.start_controller().await?;
    }
    counter.prints(20).await?;
    counter.stop()?;
    let (rest, code) = run.rest().await?;
    log.extend(rest);
    ensure!(code == 0, "the attached run exited {code}");
    counter.check(&log)?;
    stack.finish().await
}

#[tokio::test]
async fn a_controller_that_stands_still() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let counting = stack.counting(&[]).await?;
    let following = stack.following(&counting).await?;
    let controller = stack.controller()?;
    controller.signal(Signal::STOP)?;
    counting.counter.prints(STANDSTILL).await?;
    controller.signal(Signal::CONT)?;
    stack.controller_is(controller);
    counting.arrives(&stack).await?;
    following.saw_all(&stack, counting).await?;
    stack.finish().await
}

//! Whom nothing can be shown, and what they are told.

use anyhow::{Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::Stack;

use super::world::World;

#[tokio::test]
async fn what_cannot_be_sat_beside_is_named() -> Result<()> {
    let world = World::start().await?;
    let stack = &world.stack;
    let told = async |line: String, words: &[&str]| {
        let seat = world.sits(&world.ada, &line)?;
        for words in words {
            seat.shows(words).await?;
        }
        let code = seat.ends().await?;
        ensure!(code == 7, "{line} exited {code}");
        Ok(())
    };
    let over = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    stack.done(&over).await?;
    told(format!("sculpt pair {over}"), &["completed"]).await?;
    world.ada.types(stack, &format!("sculpt ssh {over} -- true")).run().await?.exits(7)?.says("completed")?;

    let mute = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sleep", "1d"]).await?;
    stack.until(&mute, "running", |task| task.state() == TaskState::Running).await?;
    told(format!("sculpt pair {mute}"), &["--no-tty", "sculpt logs"]).await?;

    world.ada.types(stack, "sculpt pair 77").run().await?.exits(6)?;
    world.ada.types(stack, "sculpt ssh 77 -- true").run().await?.exits(6)?;
    world.ada.types(stack, "sculpt tunnel 77").run().await?.exits(6)?;
    // A pipe is no terminal.
    world.ada.types(stack, &format!("sculpt pair {mute}")).run().await?.exits(7)?;
    let task = world.listens().await?;
    world.ada.types(stack, &format!("sculpt pair {task}")).run().await?.exits(64)?.says("terminal")?;
    // Without ssh there is a way to mend that.
    let alone = world.ada.types(stack, &format!("sculpt ssh {task} -- true")).env("PATH", "/nonexistent");
    alone.run().await?.exits(1)?.says("openssh-client")?;
    world.stops(&mute).await?;
    world.ends(&task).await
}

/// Who comes too early is told why, and sits down as soon as there is something to sit at.
#[tokio::test]
async fn a_task_that_has_not_started_is_waited_for() -> Result<()> {
    let world = World::with(Stack::options().slots(1)).await?;
    let stack = &world.stack;
    let first = world.listens().await?;
    let second = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", "echo my turn; read -r end"]).await?;
    let early = world.sits(&world.ada, &format!("sculpt pair {second}"))?;
    early.shows("queued").await?;
    let seat = world.sits(&world.ada, &format!("sculpt pair {second} --no-wait"))?;
    seat.shows("queued").await?;
    let code = seat.ends().await?;
    ensure!(code == 7, "nobody waits who does not want to: {code}");
    world.stops(&first).await?;
    early.shows("my turn").await?;
    ensure!(early.leaves().await? == 0);
    world.ends(&second).await
}

//! What a task is for and how far it has come, for whoever sits there.

use anyhow::{Result, ensure};

use super::world::World;

/// Said by somebody outside or within: it stands in the status line, and in `show`.
#[tokio::test]
async fn what_is_said_stands_in_the_status_line() -> Result<()> {
    let world = World::start().await?;
    world.ada("sculpt config-ssh").await?;
    let task = world.listens().await?;
    let seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    let say = async |words: &[&str]| world.ada.runs(&world.stack, words).run().await?.done();
    say(&["sculpt", "milestone", &task, "--intent", "parse dates", "it compiles"]).await?;
    seat.shows("parse dates").await?;
    seat.shows("it compiles").await?;
    let within = ["ssh", &format!("sculpt.{task}"), "sculpt milestone 'the tests pass'"];
    world.ssh(&world.ada, &within).run().await?.done()?;
    seat.shows("the tests pass").await?;
    ensure!(seat.leaves().await? == 0);

    let shown = world.ada(&format!("sculpt show {task}")).await?;
    for words in ["parse dates", "it compiles", "the tests pass"] {
        ensure!(shown.contains(words), "{words} is not in {shown}");
    }
    world.ends(&task).await
}

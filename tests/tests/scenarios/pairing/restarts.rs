//! Every process on the way dies under somebody who sits there: they are told at once, sit there again by themselves, and the
//! agent has not noticed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Stack, eventually, within};
use serde_json::Value;

use super::{ports::free_port, world::World};

/// How soon somebody is told that nobody is there any more.
const TOLD: Duration = Duration::from_secs(5);

/// What is shown when a connection broke.
const LOST: &str = "the connection is lost";

/// Sits down, does `harm`, and fails unless the person is told and sits there again once everything is `mended`.
async fn a_person_sits_there_again(
    harm: impl AsyncFnOnce(&mut Stack) -> Result<()>,
    mend: impl AsyncFnOnce(&mut Stack) -> Result<()>,
) -> Result<()> {
    let mut world = World::start().await?;
    let task = world.listens().await?;
    let mut seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    seat.types("before\r")?;
    seat.shows(" heard before").await?;
    harm(&mut world.stack).await?;
    within(TOLD, "the person to be told", seat.shows(LOST)).await?;
    seat.forgets();
    mend(&mut world.stack).await?;
    seat.shows(" heard before").await.context("the terminal is shown again")?;
    seat.types("after\r")?;
    seat.shows(" heard after").await?;
    ensure!(seat.leaves().await? == 0);
    world.attached(&task, &[]).await?;
    world.goes_on(&task).await?;
    world.ends(&task).await
}

#[tokio::test]
async fn kill_9_of_the_controller() -> Result<()> {
    let kill = async |stack: &mut Stack| stack.controller()?.kill().await;
    a_person_sits_there_again(kill, async |stack| stack.start_controller().await).await
}

/// Who has come by the executor's own door does not even notice.
#[tokio::test]
async fn kill_9_of_the_controller_under_who_came_straight() -> Result<()> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let settings = format!("[ssh]\nlisten = '{address}'\nadvertise = '{address}'\n");
    let mut world = World::with(Stack::options().settings(&settings)).await?;
    let task = world.listens().await?;
    let printed = world.ada(&format!("sculpt pair {task} --print -o json")).await?;
    let printed: Value = serde_json::from_str(&printed)?;
    ensure!(printed["route"] == "direct", "{printed:#}");
    let mut seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    world.stack.controller()?.kill().await?;
    seat.types("meanwhile\r")?;
    seat.shows(" heard meanwhile").await?;
    world.stack.start_controller().await?;
    world.attached(&task, &[("ada", "driver")]).await?;
    ensure!(!seat.has_shown(LOST), "{}", seat.screen());
    ensure!(seat.leaves().await? == 0);
    world.goes_on(&task).await?;
    world.ends(&task).await
}

#[tokio::test]
async fn kill_9_of_the_executor() -> Result<()> {
    let kill = async |stack: &mut Stack| stack.executor()?.kill().await;
    a_person_sits_there_again(kill, async |stack| stack.start_executor().await).await
}

/// The executor makes another one by itself.
#[tokio::test]
async fn kill_9_of_the_tmux_server() -> Result<()> {
    let kill = async |stack: &mut Stack| {
        let server = || Ok(stack.processes("tmux: server").into_iter().next());
        eventually("the tmux server", server).await?.signal(Signal::KILL);
        Ok(())
    };
    a_person_sits_there_again(kill, async |_| Ok(())).await
}

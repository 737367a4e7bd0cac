//! Every process on the way dies under somebody who sits there: they are told at once, sit there again by themselves, and the
//! agent has not noticed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Stack, Terminal, eventually, within};
use serde_json::Value;

use super::{ports::free_port, world::World};

/// How soon somebody is told that nobody is there any more.
const TOLD: Duration = Duration::from_secs(5);

/// What is shown when a connection broke.
const LOST: &str = "the connection is lost";

/// Somebody who sits beside an agent, and has said who they are there.
async fn sits_down(world: &World, task: &str, name: &str) -> Result<Terminal> {
    let mut seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    seat.types(&format!("before {name}\r"))?;
    seat.shows(&format!(" heard before {name}")).await?;
    Ok(seat)
}

/// Sits down, does the harm that is called `name`, and fails unless the person is told and sits there again once everything is
/// mended.
async fn sits_there_again(
    world: &mut World,
    task: &str,
    name: &str,
    harm: impl AsyncFnOnce(&mut Stack) -> Result<()>,
    mend: impl AsyncFnOnce(&mut Stack) -> Result<()>,
) -> Result<()> {
    let again = async {
        let mut seat = sits_down(world, task, name).await?;
        harm(&mut world.stack).await?;
        within(TOLD, "the person to be told", seat.shows(LOST)).await?;
        seat.forgets();
        mend(&mut world.stack).await?;
        seat.shows(&format!(" heard before {name}")).await.context("the terminal is shown again")?;
        seat.types(&format!("after {name}\r"))?;
        seat.shows(&format!(" heard after {name}")).await?;
        ensure!(seat.leaves().await? == 0);
        world.attached(task, &[]).await?;
        world.goes_on(task).await
    };
    again.await.with_context(|| format!("kill -9 of {name}"))
}

/// Kills a process of this name whose arguments hold `words`.
async fn dies(stack: &Stack, name: &str, words: &str) -> Result<()> {
    let found = || Ok(stack.processes(words).into_iter().find(|found| found.name.starts_with(name)));
    eventually(&format!("{name} with {words:?}"), found).await?.signal(Signal::KILL);
    Ok(())
}

/// What may die on whichever way a person has come.
async fn on_every_way(world: &mut World, task: &str) -> Result<()> {
    let executor = async |stack: &mut Stack| stack.executor()?.kill().await;
    sits_there_again(world, task, "the executor", executor, async |stack| stack.start_executor().await).await?;
    // The executor makes another one by itself.
    let tmux = async |stack: &mut Stack| dies(stack, "tmux: server", "tmux").await;
    sits_there_again(world, task, "the tmux server", tmux, async |_| Ok(())).await?;
    let ssh = async |stack: &mut Stack| dies(stack, "ssh", "sculpt-attach").await;
    sits_there_again(world, task, "the person's ssh", ssh, async |_| Ok(())).await?;

    let seat = sits_down(world, task, "sculpt pair").await?;
    dies(&world.stack, "sculpt", "sculpt pair").await?;
    ensure!(seat.ends().await? != 0);
    world.attached(task, &[]).await.context("who was killed is not there")?;
    world.goes_on(task).await
}

/// The agent goes with its shim, which nobody can stand in for, and who sat there is told how it ended.
async fn kill_9_of_the_shim(world: World, task: &str) -> Result<()> {
    let seat = sits_down(&world, task, "the shim").await?;
    dies(&world.stack, "sculpt-executor", "shim run").await?;
    seat.shows(&format!("task {task} failed (internal)")).await?;
    ensure!(seat.ends().await? == 0);
    world.stack.sculpt(["wait", task]).run().await?.exits(1)?;
    world.attached(task, &[]).await?;
    world.stack.finish().await
}

#[tokio::test]
async fn kill_9_under_who_came_through_the_controller() -> Result<()> {
    let mut world = World::start().await?;
    let task = world.listens().await?;
    let controller = async |stack: &mut Stack| stack.controller()?.kill().await;
    let mend = async |stack: &mut Stack| stack.start_controller().await;
    sits_there_again(&mut world, &task, "the controller", controller, mend).await?;
    let tunnel = async |stack: &mut Stack| dies(stack, "sculpt", " tunnel ").await;
    sits_there_again(&mut world, &task, "the tunnel", tunnel, async |_| Ok(())).await?;
    on_every_way(&mut world, &task).await?;
    kill_9_of_the_shim(world, &task).await
}

/// Who has come by the executor's own door does not even notice that the controller is away.
#[tokio::test]
async fn kill_9_under_who_came_straight() -> Result<()> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let settings = format!("[ssh]\nlisten = '{address}'\nadvertise = '{address}'\n");
    let mut world = World::with(Stack::options().settings(&settings)).await?;
    let task = world.listens().await?;
    let printed = world.ada(&format!("sculpt pair {task} --print -o json")).await?;
    let printed: Value = serde_json::from_str(&printed)?;
    ensure!(printed["route"] == "direct", "{printed:#}");
    let mut seat = sits_down(&world, &task, "the controller").await?;
    world.stack.controller()?.kill().await?;
    seat.types("meanwhile\r")?;
    seat.shows(" heard meanwhile").await?;
    world.stack.start_controller().await?;
    world.attached(&task, &[("ada", "driver")]).await?;
    ensure!(!seat.has_shown(LOST), "{}", seat.screen());
    ensure!(seat.leaves().await? == 0);
    world.attached(&task, &[]).await?;
    world.goes_on(&task).await?;
    on_every_way(&mut world, &task).await?;
    kill_9_of_the_shim(world, &task).await
}

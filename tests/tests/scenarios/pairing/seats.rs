//! Seats at the agent's terminal: who sees, who types, who leaves, and who is told of it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{World, holds};

#[tokio::test]
async fn a_person_sees_types_draws_the_window_larger_and_leaves_and_the_agent_goes_on() -> Result<()> {
    let world = World::start().await?;
    let task = world.listens().await?;
    let mut seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    seat.types("hello\r")?;
    seat.shows(" heard hello").await?;
    seat.resizes(72, 22)?;
    seat.shows("window of 72x").await?;
    ensure!(seat.leaves().await? == 0, "who leaves has done nothing wrong");
    world.attached(&task, &[]).await?;
    // By its other names, and what was there is there again.
    for verb in ["attach", "connect"] {
        let seat = world.sits(&world.ada, &format!("sculpt {verb} {task}"))?;
        seat.shows(" heard hello").await?;
        ensure!(seat.leaves().await? == 0, "{verb}");
    }
    world.goes_on(&task).await?;
    world.ends(&task).await
}

/// One looks on, one types; the first reaches nothing of the agent or its terminal, and both are known by name.
#[tokio::test]
async fn two_people_in_different_roles_sit_beside_one_agent() -> Result<()> {
    let world = World::start().await?;
    let task = world.listens().await?;
    let bob = world.person("bob", "viewer").await?;
    let mut drives = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    drives.shows(" listens").await?;
    let mut looks_on = world.sits(&bob, &format!("sculpt pair {task} --read-only"))?;
    looks_on.shows(" listens").await?;
    looks_on.types("by bob\r\u{2}c\u{2}:kill-server\r")?;
    looks_on.resizes(40, 10)?;
    drives.types("by ada\r")?;
    drives.shows(" heard by ada").await?;
    looks_on.shows(" heard by ada").await?;
    world.attached(&task, &[("ada", "driver"), ("bob", "observer")]).await?;
    let text = world.ada(&format!("sculpt show {task}")).await?;
    ensure!(text.contains("bob") && text.contains("observer"), "{text}");

    ensure!(looks_on.leaves().await? == 0, "who looks on leaves by the same keys");
    world.attached(&task, &[("ada", "driver")]).await?;
    ensure!(drives.leaves().await? == 0);
    let log = world.stack.logs(&task).await?;
    ensure!(!holds(&log, "by bob") && !holds(&log, "window of 40x"), "{}", String::from_utf8_lossy(&log));

    let deeds = world.deeds(&task, 5).await?;
    let of = |name: &str| deeds.iter().filter(|deed| deed["actor"] == name).collect::<Vec<_>>();
    let kinds = |all: &[&Value]| all.iter().map(|deed| deed["kind"].clone()).collect::<Vec<_>>();
    ensure!(kinds(&of("bob")) == ["pairing.attached", "pairing.detached"], "{deeds:#?}");
    let hers = of("ada");
    ensure!(kinds(&hers) == ["pairing.attached", "pairing.typed", "pairing.detached"], "{deeds:#?}");
    // How much, and not what: nobody has asked for that.
    let typed = &hers[1]["data"];
    ensure!(typed["bytes"].as_u64() >= Some(7) && typed["text"].is_null(), "{typed:#}");
    ensure!(!format!("{deeds:?}").contains("by ada"), "{deeds:#?}");
    world.ends(&task).await
}

/// What was typed stands in the journal where the project wants that, and nowhere else.
#[tokio::test]
async fn a_project_may_have_recorded_what_people_type() -> Result<()> {
    let world = World::start().await?;
    let repo = world.stack.repo()?;
    world.stack.sculpt(["project", "add", "--record-typing", "yes"]).dir(repo.path()).run().await?.done()?;
    let task = world.listens_in(&repo).await?;
    let mut seat = world.sits(&world.ada, &format!("sculpt pair {task}"))?;
    seat.shows(" listens").await?;
    seat.types("by ada\r")?;
    seat.shows(" heard by ada").await?;
    ensure!(seat.leaves().await? == 0);
    let deeds = world.deeds(&task, 3).await?;
    let typed = deeds.iter().find(|deed| deed["kind"] == "pairing.typed").context("something was typed")?;
    ensure!(typed["data"]["text"].as_str().is_some_and(|text| text.starts_with("by ada")), "{typed:#}");
    world.ends(&task).await
}

/// Who may only look on does, whatever they ask for, and has no shell.
#[tokio::test]
async fn a_viewer_looks_on_and_nothing_else() -> Result<()> {
    let world = World::start().await?;
    let task = world.listens().await?;
    let eve = world.person("eve", "viewer").await?;
    eve.types(&world.stack, &format!("sculpt ssh {task} -- touch made")).run().await?.exits(77)?;
    let seat = world.sits(&eve, &format!("sculpt pair {task}"))?;
    let code = seat.ends().await?;
    ensure!(code == 77, "to drive is not a viewer's: {code}");
    let seat = world.sits(&eve, &format!("sculpt pair {task} --read-only"))?;
    seat.shows(" listens").await?;
    ensure!(seat.leaves().await? == 0);
    world.goes_on(&task).await?;
    world.ends(&task).await
}

/// Windows of sizes that no terminal has, and terminals that nobody knows.
#[tokio::test]
async fn odd_windows_and_unknown_terminals() -> Result<()> {
    let world = World::start().await?;
    let task = world.listens().await?;
    let pair = format!("sculpt pair {task}");
    for (columns, rows) in [(0, 0), (10_000, 10_000), (1, 1)] {
        let seat = world.ada.sits(&world.stack, &pair).size(columns, rows).sit()?;
        world.is_joined(&task).await?;
        let code = seat.leaves().await?;
        ensure!(code == 0, "{columns}x{rows}: {code}");
        world.attached(&task, &[]).await?;
    }
    let seat = world.ada.sits(&world.stack, &pair).env("TERM", "from-tomorrow").sit()?;
    seat.shows("this host does not know").await?;
    seat.shows(" listens").await?;
    ensure!(seat.leaves().await? == 0);
    let seat = world.ada.sits(&world.stack, &pair).env("TERM", "dumb").sit()?;
    seat.shows("TERM").await?;
    ensure!(seat.ends().await? == 64, "a terminal that can show nothing is refused");
    world.goes_on(&task).await?;
    world.ends(&task).await
}

//! Who may not be there any more is cut while they sit there, and the agent does not notice.

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::{ClosePairingRequest, ListPairingsRequest};
use sculpt_tests::harness::within;
use uuid::Uuid;

use super::world::{CUT, World};

#[tokio::test]
async fn who_loses_their_right_is_cut_within_10_s() -> Result<()> {
    let world = World::start().await?;
    let task = world.listens().await?;
    let losses = [
        ("bob", "sculpt admin user revoke bob pair"),
        ("carl", "sculpt lock user carl --reason left"),
        ("dora", "sculpt admin user rm dora"),
    ];
    for (name, loss) in losses {
        let person = world.person(name, "pair").await?;
        let mut seat = world.sits(&person, &format!("sculpt pair {task}"))?;
        seat.shows(" listens").await?;
        seat.types(&format!("by {name}\r"))?;
        seat.shows(&format!(" heard by {name}")).await?;
        world.ada(loss).await?;
        let code = within(CUT, &format!("{name} to be cut"), seat.ends()).await?;
        ensure!(code == 77, "{name} is told that it is over: {code}");
        world.attached(&task, &[]).await?;
        person.types(&world.stack, &format!("sculpt pair {task} --print")).run().await?.exits(77)?;
    }
    world.goes_on(&task).await?;
    world.ends(&task).await
}

/// A pairing that is taken back cuts what is open through it, and opens nothing any more.
#[tokio::test]
async fn a_pairing_that_is_closed_is_cut_within_10_s() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let host = format!("sculpt.{}", server.task);
    let mut open = world.ssh(&world.ada, &["ssh", &host, "echo here; exec sleep 1000"]).follow()?;
    open.line(|line| line == "here").await?;
    let mut api = world.stack.api().await?;
    let request = ListPairingsRequest { task: server.task.clone() };
    let pairings = api.pairings.list_pairings(request).await?.into_inner().pairings;
    ensure!(pairings.len() == 1 && pairings[0].user == "ada", "{pairings:?}");
    let pairing = pairings.into_iter().next().context("a pairing")?.uuid;
    let request = ClosePairingRequest { request_id: Uuid::new_v4().to_string(), pairing };
    api.pairings.close_pairing(request).await?;
    let (_, code) = within(CUT, "ssh to be cut", open.rest()).await?;
    ensure!(code == 255, "ssh exits {code}");
    world.ends(&server.task).await
}

//! From a machine that has no way to the executor's, which nobody can dial.

use std::fs;

use anyhow::{Result, ensure};

use super::world::ssh_config;
use crate::networks::fleet::Fleet;

#[tokio::test]
async fn a_person_elsewhere_sits_beside_an_agent_behind_a_router() -> Result<()> {
    let Some(fleet) = Fleet::start(&["build-1"]).await? else { return Ok(()) };
    let script = "echo listens; while read -r line; do echo \"heard $line\"; done";
    let arguments = ["--no-repo", "--pool", "build-1", "--", "sh", "-c", script];
    let task = fleet.stack.detached(fleet.stack.root(), arguments).await?;
    let mut seat = fleet.ada.sits(&fleet.stack, &format!("sculpt pair {task}")).sit()?;
    seat.shows("listens").await?;
    seat.types("from afar\r")?;
    seat.shows("heard from afar").await?;
    ensure!(seat.leaves().await? == 0);

    fleet.ada("sculpt config-ssh").await?;
    let config = ssh_config(&fleet.ada);
    let written = fs::read_to_string(&config)?;
    ensure!(!written.contains("StrictHostKeyChecking no"), "{written}");
    // Whoever would be asked about a key of the host is a pipe here, and says no.
    let ssh = format!("ssh -F {} sculpt.{task} pwd", config.display());
    let said = fleet.ada.types(&fleet.stack, &ssh).run().await?.done()?;
    ensure!(said.text().contains("/workspaces/"), "{said:?}");
    ensure!(said.stderr.is_empty(), "nothing is said of keys: {said:?}");
    ensure!(!fleet.ada.home.join(".ssh/known_hosts").exists());
    let said = fleet.ada(&format!("sculpt ssh {task} -- hostname")).await?;
    ensure!(!said.is_empty());

    fleet.ada(&format!("sculpt stop {task}")).await?;
    fleet.stack.sculpt(["wait", &task]).run().await?.exits(4)?;
    fleet.finish().await
}

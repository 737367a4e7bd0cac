//! From a machine that has no way to the executor's, which nobody can dial.

use std::fs;

use anyhow::{Result, ensure};

use super::world::{SERVER, Server, ssh_config};
use crate::networks::fleet::Fleet;

impl Fleet {
    /// Sets up ada's ssh, and has an agent serve behind a router.
    async fn serves(&self) -> Result<Server> {
        self.ada("sculpt config-ssh").await?;
        let arguments = ["--no-tty", "--pool", "build-1", "--", "python3", "-c", SERVER];
        Server::of(&self.stack, self.stack.detached(self.stack.repo()?.path(), arguments).await?).await
    }
}

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

/// What OpenSSH's own programs copy goes through as well.
#[tokio::test]
async fn files_come_and_go_through_a_router_that_lets_nobody_in() -> Result<()> {
    let Some(fleet) = Fleet::start(&["build-1"]).await? else { return Ok(()) };
    let server = fleet.serves().await?;
    let (host, home) = (format!("sculpt.{}", server.task), &fleet.ada.home);
    let config = ssh_config(&fleet.ada).to_string_lossy().into_owned();
    let over = format!("ssh -F {config}");
    let run = |words: &[&str]| fleet.ada.runs(&fleet.stack, words).env("GIT_SSH_COMMAND", &over).run();
    fs::write(home.join("sent"), vec![b'7'; 3_000_000])?;

    run(&["scp", "-q", "-F", &config, "sent", &format!("{host}:by-scp")]).await?.done()?;
    run(&["scp", "-q", "-F", &config, &format!("{host}:by-scp"), "scp-back"]).await?.done()?;
    let batch = "put sent by-sftp\nget by-sftp sftp-back\n";
    let sftp = ["sftp", "-q", "-F", &config, "-b", "-", &host];
    fleet.ada.runs(&fleet.stack, &sftp).stdin(batch).run().await?.done()?;
    run(&["rsync", "-e", &over, "sent", &format!("{host}:by-rsync")]).await?.done()?;
    run(&["rsync", "-e", &over, &format!("{host}:by-rsync"), "rsync-back"]).await?.done()?;
    for back in ["scp-back", "sftp-back", "rsync-back"] {
        ensure!(fs::read(home.join(back))? == fs::read(home.join("sent"))?, "{back} is not what was sent");
    }
    run(&["git", "clone", "-q", &format!("{host}:."), "clone"]).await?.done()?;
    ensure!(fs::read(home.join("clone/README.md"))? == b"A project.\n");

    let asks = format!("localhost:{}", server.port);
    let asks = ["ssh", "-F", &config, "-W", &asks, &host];
    let said = fleet.ada.runs(&fleet.stack, &asks).stdin("hello\n").run().await?.done()?;
    ensure!(said.stdout == b"HELLO\n", "{said:?}");

    // Its workspace is kept for a while, and what it served on would be taken for something left over.
    run(&["ssh", "-F", &config, &host, "rm served"]).await?.done()?;
    fleet.ada(&format!("sculpt stop {}", server.task)).await?;
    fleet.stack.sculpt(["wait", &server.task]).run().await?.exits(4)?;
    fleet.finish().await
}

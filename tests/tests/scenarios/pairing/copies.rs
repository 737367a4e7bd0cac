//! Files both ways: scp, sftp, rsync, git, and `sculpt cp`.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::Stack;

use super::world::{World, ssh_config};

/// What a person may well copy.
const LARGE: u64 = 100 << 20;

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of the tests is text")
}

#[tokio::test]
async fn a_hundred_megabytes_both_ways() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let (here, back) = (world.ada.home.join("large"), world.ada.home.join("back"));
    let mut large = Vec::new();
    fs::File::open("/dev/urandom")?.take(LARGE).read_to_end(&mut large)?;
    fs::write(&here, &large)?;
    let there = format!("sculpt.{}:large", server.task);
    world.ssh(&world.ada, &["scp", "-q", text(&here)?, &there]).run().await?.done()?;
    ensure!(fs::read(server.place.join("large"))? == large, "what arrived is not what was sent");
    world.ssh(&world.ada, &["scp", "-q", &there, text(&back)?]).run().await?.done()?;
    ensure!(fs::read(&back)? == large, "what came back is not what was sent");
    world.ends(&server.task).await
}

#[tokio::test]
async fn whatever_copies_over_ssh_does() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let (home, host) = (&world.ada.home, format!("sculpt.{}", server.task));
    fs::create_dir_all(home.join("tree/below"))?;
    fs::write(home.join("tree/a file"), "one\n")?;
    fs::write(home.join("tree/below/another"), vec![b'2'; 300_000])?;
    let same = |here: &str, there: &str| -> Result<()> {
        for file in ["a file", "below/another"] {
            let (here, there) = (home.join(here).join(file), server.place.join(there).join(file));
            ensure!(fs::read(&here)? == fs::read(&there)?, "{} is not {}", there.display(), here.display());
        }
        Ok(())
    };
    let ssh = |words: &[&str]| world.ssh(&world.ada, words);

    // The protocol of today, and the one of before.
    for (protocol, name) in [("-s", "by-sftp"), ("-O", "by-scp")] {
        ssh(&["scp", "-q", protocol, "-r", "tree", &format!("{host}:{name}")]).run().await?.done()?;
        same("tree", name)?;
        ssh(&["scp", "-q", protocol, "-r", &format!("{host}:{name}"), &format!("back-{name}")]).run().await?.done()?;
        same(&format!("back-{name}"), name)?;
    }
    let batch = "mkdir made\nput \"tree/a file\" made/b\nrename made/b made/c\nget made/c c\n";
    ssh(&["sftp", "-q", "-b", "-", &host]).stdin(batch).run().await?.done()?;
    ensure!(fs::read(home.join("c"))? == b"one\n");

    let over = format!("ssh -F {}", ssh_config(&world.ada).display());
    let rsync = |from: &str, to: &str| world.ada.runs(&world.stack, &["rsync", "-a", "-e", &over, from, to]).run();
    rsync("tree/", &format!("{host}:synced/")).await?.done()?;
    same("tree", "synced")?;
    rsync(&format!("{host}:synced/"), "back-synced/").await?.done()?;
    same("back-synced", "synced")?;

    let clone = ["git", "clone", "-q", &format!("{host}:."), "clone"];
    world.ada.runs(&world.stack, &clone).env("GIT_SSH_COMMAND", &over).run().await?.done()?;
    ensure!(fs::read(home.join("clone/README.md"))? == b"A project.\n");

    let task = &server.task;
    world.ada(&format!("sculpt cp tree {task}:copied")).await?;
    same("tree", "copied")?;
    world.ada(&format!("sculpt cp {task}:copied back-copied")).await?;
    same("back-copied", "copied")?;
    world.ada.types(&world.stack, "sculpt cp tree elsewhere").run().await?.exits(64)?;
    world.ends(task).await
}

/// A path that leads out of the workspace leads no further than the agent's own account does.
#[tokio::test]
async fn nothing_is_copied_out_of_what_is_the_agents() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root makes accounts");
        return Ok(());
    }
    let world = World::with(Stack::options().separate()).await?;
    world.ada("sculpt config-ssh").await?;
    let repo = world.stack.repo()?;
    let (server, other) = (world.serves(&repo).await?, world.serves(&repo).await?);
    fs::write(world.ada.home.join("given"), "given\n")?;
    fs::write(other.place.join("theirs"), "theirs\n")?;
    let key = world.stack.executor_data().join("identity/key.pem");
    ensure!(key.is_file(), "there is no key in {}", key.display());
    let host = format!("sculpt.{}", server.task);
    let beside = format!("../{}/given", text(&other.place)?.rsplit('/').next().unwrap_or_default());
    let scp = |from: &str, to: &str| world.ssh(&world.ada, &["scp", "-q", from, to]).run();
    for path in ["/etc/given", "../given", &beside] {
        let put = scp("given", &format!("{host}:{path}")).await?;
        ensure!(put.code != 0 && put.stderr.contains("Permission denied"), "to {path}: {put:?}");
    }
    for path in [key, other.place.join("theirs")] {
        let taken = scp(&format!("{host}:{}", path.display()), "taken").await?;
        ensure!(taken.code != 0, "from {}: {taken:?}", path.display());
    }
    ensure!(!world.ada.home.join("taken").exists());
    for given in [Path::new("/etc/given"), &other.place.join("given")] {
        ensure!(!given.exists(), "{} was written", given.display());
    }
    world.stops(&other.task).await?;
    world.ends(&server.task).await
}

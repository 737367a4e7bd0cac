//! What `sculpt config-ssh` writes, and what plain ssh then does.

use std::fs;

use anyhow::{Result, ensure};

use super::world::{World, ssh_config};

/// A person's own settings, without an end of the last line.
const THEIRS: &str = "# mine\nHost other\n  Port 2222\n  User somebody";

#[tokio::test]
async fn settings_of_a_person_are_kept_and_ours_come_and_go() -> Result<()> {
    let world = World::start().await?;
    let config = ssh_config(&world.ada);
    let shown = world.ada("sculpt config-ssh --dry-run").await?;
    ensure!(shown.contains("Match"), "{shown}");
    ensure!(!config.exists(), "a dry run has written");
    world.ada("sculpt config-ssh").await?;
    let written = fs::read_to_string(&config)?;
    let lower = written.to_lowercase();
    for insecure in ["stricthostkeychecking no", "stricthostkeychecking accept-new", "userknownhostsfile /dev/null"] {
        ensure!(!lower.contains(insecure), "{written}");
    }
    let program = world.stack.program("sculpt").canonicalize()?;
    ensure!(written.contains(&*program.to_string_lossy()), "ssh finds {} by its path: {written}", program.display());
    world.ada("sculpt config-ssh").await?;
    ensure!(fs::read_to_string(&config)? == written, "twice is not as once");
    world.ada("sculpt config-ssh --remove").await?;
    ensure!(!config.exists() || fs::read(&config)?.is_empty(), "{}", fs::read_to_string(&config)?);

    fs::create_dir_all(world.ada.home.join(".ssh"))?;
    fs::write(&config, THEIRS)?;
    world.ada("sculpt config-ssh").await?;
    let both = fs::read_to_string(&config)?;
    ensure!(both.contains(THEIRS), "{both}");
    let resolved = world.ssh(&world.ada, &["ssh", "-G", "other"]).run().await?.done()?.text();
    ensure!(resolved.contains("port 2222") && resolved.contains("user somebody"), "{resolved}");
    world.ada("sculpt config-ssh --dry-run").await?;
    world.ada("sculpt config-ssh").await?;
    ensure!(fs::read_to_string(&config)? == both, "twice is not as once");
    world.ada("sculpt config-ssh --remove").await?;
    ensure!(fs::read_to_string(&config)?.trim_end() == THEIRS, "{}", fs::read_to_string(&config)?);
    world.stack.finish().await
}

#[tokio::test]
async fn plain_ssh_runs_commands_where_the_agent_works() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let host = format!("sculpt.{}", server.task);
    let ssh = |words: &[&str]| world.ssh(&world.ada, &[&["ssh", &host], words].concat()).run();
    let said = ssh(&["pwd; echo words >&2; exit 7"]).await?.exits(7)?.says("words")?;
    ensure!(said.text() == server.place.to_string_lossy(), "{said:?}");
    ssh(&["kill -TERM $$"]).await?.exits(128 + 15)?;
    ssh(&["no-such-program"]).await?.exits(127)?.says("no-such-program")?;
    let cat = world.ssh(&world.ada, &["ssh", &host, "cat; echo end"]).stdin("given\n").run().await?.done()?;
    ensure!(cat.stdout == b"given\nend\n", "{cat:?}");
    // Neither keys nor windows of the person's machine are the agent's, whatever is asked for.
    let config = ssh_config(&world.ada);
    let config = config.to_string_lossy();
    let asked = ["ssh-agent", "ssh", "-F", &config, "-A", "-X", &host, "echo ${SSH_AUTH_SOCK-no} ${DISPLAY-no}"];
    let said = world.ada.runs(&world.stack, &asked).env("DISPLAY", ":77").run().await?.done()?;
    ensure!(said.text() == "no no", "{said:?}");
    let resolved = world.ssh(&world.ada, &["ssh", "-G", &host]).run().await?.done()?.text();
    for line in ["stricthostkeychecking true", "forwardagent no", "forwardx11 no", "identitiesonly yes"] {
        ensure!(resolved.lines().any(|found| found == line), "{line} is not in {resolved}");
    }
    // Nobody was asked about a key, and none was written down.
    ensure!(!world.ada.home.join(".ssh/known_hosts").exists());
    world.ends(&server.task).await
}

#[tokio::test]
async fn words_arrive_as_they_were_given() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let words = ["a b", "it's", "$HOME", "`id`", "*", "~", "!x", "", "a\nb", "ü", "--", "-x", "\\", "\""];
    let ssh = ["sculpt", "ssh", &server.task, "--", "printf", "%s\\0"];
    let said = world.ada.runs(&world.stack, &[&ssh[..], &words].concat()).run().await?.done()?;
    let arrived: Vec<&[u8]> = said.stdout.split(|byte| *byte == 0).collect();
    let given: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).chain([&b""[..]]).collect();
    ensure!(arrived == given, "{said:?}");
    let line = format!("sculpt ssh {} -- sh -c", server.task);
    let line: Vec<&str> = line.split(' ').chain(["echo words >&2; exit 9"]).collect();
    world.ada.runs(&world.stack, &line).run().await?.exits(9)?.says("words")?;
    world.ends(&server.task).await
}

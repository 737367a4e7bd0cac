//! What runs for people beside an agent.

use std::{fs, process::Stdio};

use sculpt_executor::{shim::Mode, tree::ProcessId};
use sculpt_pairing::Profile;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Child,
};

use super::{
    terminal::told,
    world::{Person, World, finish},
};
use crate::attempt::{Attempt, eventually};

async fn world() -> World {
    let mut attempt = Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000");
    attempt.launch.env.insert("AGENTS_OWN".into(), "kept".into());
    attempt.launch.env.insert("PAGER".into(), "cat".into());
    World::around(attempt).await
}

/// A connection that others go over, and the option by which they do.
async fn master(person: &Person) -> (Child, String) {
    let socket = person.directory.join("master");
    let control = format!("ControlPath={}", socket.display());
    let master = person.command("ssh", &["-M", "-N", "-o", &control, "sculpt"]).spawn().unwrap();
    eventually(|| socket.exists().then_some(())).await;
    (master, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_workspace_and_its_end_is_told() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let work = world.attempt.work().display().to_string();
    let said = person.ssh(&["pwd; echo words >&2; exit 7"]).await;
    assert_eq!((said.code, said.out, said.err.as_str()), (Some(7), format!("{work}\n"), "words\n"));
    let said = person.ssh(&["kill -TERM $$"]).await;
    assert_eq!(said.code, Some(128 + 15), "ended by a signal: {said:?}");
    let said = person.ssh(&["no-such-program"]).await;
    assert!(said.code == Some(127) && said.err.contains("no-such-program"), "{said:?}");
    let said = person.ssh(&["echo ${AGENTS_OWN}-${SCULPT_ATTEMPT-none}-${PAGER-none}-$SHELL"]).await;
    assert_eq!(said.out, "kept-none-none-/bin/bash\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn little_of_a_persons_environment_comes_along() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let words = ["-o", "SetEnv=LC_TIME=de_DE GIT_PROTOCOL=version=2 BASH_ENV=evil LD_PRELOAD=evil", "sculpt", "env"];
    let said = person.run("ssh", &words).await;
    assert!(said.out.contains("\nLC_TIME=de_DE\n") && said.out.contains("\nGIT_PROTOCOL=version=2\n"), "{said:?}");
    assert!(!said.out.contains("evil"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_output_end_on_their_own() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let mut child = person.command("ssh", &["sculpt", "cat; echo rest"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"given\n").await.unwrap();
    assert_eq!(finish(child).await.out, "given\nrest\n");
    // The program closes its output and goes on reading.
    let words = ["sculpt", "exec >&- 2>&-; cat > taken"];
    let mut child = person.command("ssh", &words).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"given").await.unwrap();
    assert_eq!(finish(child).await.code, Some(0));
    assert_eq!(fs::read(world.attempt.work().join("taken")).unwrap(), b"given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_and_kind_that_was_asked_for() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let mut command = person.command("ssh", &["-tt", "sculpt", "stty size; tty; echo $TERM"]);
    let said = finish(command.env("TERM", "vt220-from-tomorrow").spawn().unwrap()).await;
    let lines: Vec<&str> = said.out.lines().collect();
    // Without a terminal of its own ssh asks for 0x0.
    assert_eq!(lines[0], "24 80", "{said:?}");
    assert!(lines[1].starts_with("/dev/pts/"), "{said:?}");
    assert_eq!(lines[2], "xterm-256color");
    assert!(said.err.contains("does not know the terminal \"vt220-from-tomorrow\""), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_has_its_profile_and_finds_what_the_agent_finds() {
    let mut attempt = Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000");
    let home = attempt.work();
    fs::write(home.join(".bash_profile"), "PATH=/usr/bin:/bin; export OWN=profile\n").unwrap();
    attempt.launch.env.insert("HOME".into(), home.as_path().into());
    attempt.launch.env.insert("PATH".into(), "/agents/own:/usr/bin".into());
    let world = World::around(attempt).await;
    let person = world.person("ada", Profile::Workspace);
    for terminal in ["-tt", "-T"] {
        let mut child = person.command("ssh", &[terminal, "sculpt"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"echo $OWN=$PATH\nset -m && exit 5\n").await.unwrap();
        let said = finish(child).await;
        assert_eq!(said.code, Some(5), "{said:?}");
        assert!(said.out.contains("profile=/agents/own:/usr/bin:/usr/bin:/bin"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_on_a_connection_without_a_terminal_is_told_once() {
    let mut world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let (mut master, control) = master(&person).await;
    for _ in 0..3 {
        assert_eq!(person.run("ssh", &["-o", &control, "sculpt", "echo here"]).await.out, "here\n");
    }
    let copied = person.directory.join("config").display().to_string();
    let said = person.run("scp", &["-s", "-o", &control, &copied, "sculpt:copied"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    master.kill().await.unwrap();
    assert_eq!(told(&mut world, 2).await, ["ada command", "ada gone"]);
    let said = person.run("scp", &["-s", &copied, "sculpt:copied"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(told(&mut world, 2).await, ["ada files", "ada gone"]);
    assert_eq!(person.ssh(&["true"]).await.code, Some(0));
    assert_eq!(told(&mut world, 2).await, ["ada command", "ada gone"], "and nothing before it");
}

/// Writes its number into the file of that name, and sleeps.
fn sleeper(name: &str) -> String {
    format!("sh -c 'echo $$ > {name}; exec sleep 1000' > /dev/null 2>&1 < /dev/null")
}

async fn running<const N: usize>(world: &World, names: [&str; N]) -> [ProcessId; N] {
    let mut found = Vec::new();
    for name in names {
        found.push(ProcessId::of(world.attempt.number(name).await).expect("it runs"));
    }
    found.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_in_the_background_stays_when_its_person_goes() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let said = person.ssh(&[&format!("{} & until test -s server; do :; done", sleeper("server"))]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = format!("{} & setsid {} & echo $$ > shell; wait", sleeper("left"), sleeper("away"));
    let mut child = person.command("ssh", &["sculpt", &line]).spawn().unwrap();
    let [server, left, away, shell] = running(&world, ["server", "left", "away", "shell"]).await;
    child.kill().await.unwrap();
    eventually(|| (!shell.is_alive()).then_some(())).await;
    assert!([server, left, away].into_iter().all(ProcessId::is_alive));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_goes_with_its_person_takes_along_what_it_hangs_up_on() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let line = format!("{} & nohup {} & echo $$ > shell; wait", sleeper("left"), sleeper("immune"));
    let mut child = person.command("ssh", &["-tt", "sculpt", &line]).spawn().unwrap();
    let [left, immune, shell] = running(&world, ["left", "immune", "shell"]).await;
    child.kill().await.unwrap();
    eventually(|| (!shell.is_alive() && !left.is_alive()).then_some(())).await;
    assert!(immune.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_run_anything_runs_nothing() {
    let world = world().await;
    let person = world.person("ada", Profile::Attach);
    let said = person.ssh(&["touch ran"]).await;
    assert_eq!((said.code, said.err.trim_end()), (Some(77), "sculpt: you may not run commands beside this agent"));
    let said = person.run("sftp", &["sculpt:"]).await;
    assert!(said.err.contains("you may not copy files"), "{said:?}");
    let said = person.run("ssh", &["-s", "sculpt", "netconf"]).await;
    assert!(said.err.contains("no subsystem"), "{said:?}");
    assert!(!world.attempt.work().join("ran").exists());
    let said = person.run("ssh", &["-tt", "sculpt"]).await;
    assert_eq!(said.code, Some(69));
    assert!(said.err.contains("has no terminal"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_both_ways() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let large: Vec<u8> =
        (0..100 * 1024 * 1024_u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let given = person.directory.join("given");
    fs::write(&given, &large).unwrap();
    let sum = Sha256::digest(&large);
    for (protocol, name) in [("-s", "by-sftp"), ("-O", "by-scp")] {
        let (there, back) = (format!("sculpt:{name}"), person.directory.join(name));
        let said = person.run("scp", &[protocol, given.to_str().unwrap(), &there]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(Sha256::digest(fs::read(world.attempt.work().join(name)).unwrap()) == sum);
        let said = person.run("scp", &[protocol, &there, back.to_str().unwrap()]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(Sha256::digest(fs::read(back).unwrap()) == sum);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_cloned_from_the_workspace() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let made = "git init -q repository && cd repository && git -c user.name=a -c user.email=a commit -q --allow-empty -m first";
    assert_eq!(person.ssh(&[made]).await.code, Some(0));
    let ssh = format!("ssh -F {}", person.directory.join("config").display());
    let clone = person.directory.join("clone");
    let mut git = tokio::process::Command::new("git");
    let url = format!("sculpt:{}", world.attempt.work().join("repository").display());
    git.args(["clone", "-q", &url]).arg(&clone).env("GIT_SSH_COMMAND", ssh);
    let output = git.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(clone.join(".git/HEAD").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_does_not_read_costs_no_memory_and_stalls_no_other_channel() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let (mut master, control) = master(&person).await;
    // The flood's writer says how far it has come.
    let flood =
        "i=0; while :; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > written.new; mv written.new written; done";
    let mut unread = person.command("ssh", &["-o", &control, "sculpt", flood]).spawn().unwrap();
    let mut first = [0; 1];
    unread.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    let written = || fs::read_to_string(world.attempt.work().join("written")).ok()?.trim().parse::<u64>().ok();
    eventually(|| written().filter(|pieces| *pieces > 8)).await;
    // A channel that waits for nobody answers meanwhile, again and again.
    for _ in 0..20 {
        assert_eq!(person.run("ssh", &["-o", &control, "sculpt", "echo here"]).await.out, "here\n");
    }
    assert!(written().unwrap() < 512, "what is not read is not written");
    unread.kill().await.unwrap();
    master.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_channels_is_refused_beyond_its_bound() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let (mut master, control) = master(&person).await;
    let mut held = Vec::new();
    for _ in 0..32 {
        let words = ["-o", &control, "sculpt", "echo here; cat"];
        let mut child = person.command("ssh", &words).stdin(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
        assert_eq!(line, "here\n");
        held.push(child);
    }
    let said = person.run("ssh", &["-o", &control, "sculpt", "echo here"]).await;
    // ssh then opens another connection.
    assert!(said.err.contains("Session open refused by peer"), "{said:?}");
    drop(held.pop().unwrap().stdin.take());
    // It closes, and there is room again.
    loop {
        let said = person.run("ssh", &["-o", &control, "sculpt", "echo here"]).await;
        assert_eq!(said.out, "here\n");
        if said.err.is_empty() {
            break;
        }
    }
    for child in &mut held {
        child.kill().await.unwrap();
    }
    master.kill().await.unwrap();
}

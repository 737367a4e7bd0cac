//! People beside an agent in a sandbox: they are in it, too.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::PathBuf,
};

use sculpt_executor::{
    cgroup::Leaf,
    host,
    sandbox::{Network, Sandbox},
    shim::Mode,
    stage::Identity,
    tree::ProcessId,
};
use sculpt_pairing::Profile;
use tokio::io::AsyncWriteExt as _;

use super::{
    terminal::Window,
    world::{World, finish},
};
use crate::attempt::{Attempt, PROGRAM, eventually};

/// An agent with a network of its own, in which it listens.
async fn world(mode: Mode, script: &str) -> World {
    let mut attempt = Attempt::new(mode, script).in_cgroup();
    let sockets = attempt.path().join("data/run").join(attempt.id.to_string()).join("view");
    fs::create_dir_all(&sockets).unwrap();
    // What is empty is tidied up.
    fs::write(sockets.join("keep"), "").unwrap();
    attempt.launch.view_socket = sockets.join("shim");
    attempt.launch.sandbox = Some(Sandbox {
        bwrap: PathBuf::from("/usr/bin/bwrap"),
        program: PROGRAM.into(),
        writable: vec![attempt.work(), sockets],
        network: Network::None,
        ..Sandbox::default()
    });
    let world = World::around(attempt).await;
    // Who comes before the sandbox stands is not let into it.
    world.attempt.says(&world.client, "ready").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_for_a_person_is_in_the_sandbox() {
    let world = world(Mode::Pipes, "echo ready; exec sleep 1000").await;
    let person = world.person("ada", Profile::Workspace);
    let hidden = world.attempt.directory();
    let line = format!("pwd; ls {} 2>&1 >/dev/null | wc -l; grep -c : /proc/net/dev; exit 9", hidden.display());
    let said = person.ssh(&[&line]).await;
    assert_eq!(said.code, Some(9), "{said:?}");
    assert_eq!(said.out, format!("{}\n1\n1\n", world.attempt.work().display()), "{said:?}");
    let said = person.ssh(&["kill -KILL $$"]).await;
    assert_eq!(said.code, Some(128 + 9), "{said:?}");
    let mut sized = person.command("ssh", &["-tt", "sculpt", "stty size; echo $TERM; tty < /dev/tty; set -m"]);
    let said = finish(sized.env("TERM", "vt100").spawn().unwrap()).await;
    assert!(said.out.starts_with("24 80\r\nvt100\r\n"), "{said:?}");
    let given = person.directory.join("given");
    fs::write(&given, vec![7; 3_000_000]).unwrap();
    let said = person.run("scp", &[given.to_str().unwrap(), "sculpt:taken"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(fs::read(world.attempt.work().join("taken")).unwrap().len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_leaves_nothing_in_the_sandbox() {
    let world = world(Mode::Pipes, "echo ready; exec sleep 1000").await;
    let person = world.person("ada", Profile::Workspace);
    let before = world.attempt.launch.cgroup.members(Leaf::View);
    let line = "trap '' HUP TERM; touch begun; exec sleep 1000";
    let mut child = person.command("ssh", &["sculpt", line]).spawn().unwrap();
    eventually(|| world.attempt.work().join("begun").exists().then_some(())).await;
    let cgroup = &world.attempt.launch.cgroup;
    if cgroup.unified.is_some() {
        assert!(cgroup.members(Leaf::View).len() > before.len(), "it is in the leaf of views");
    }
    child.kill().await.unwrap();
    eventually(|| (cgroup.members(Leaf::View) == before).then_some(())).await;
    assert!(ProcessId::of(world.attempt.status().await.agent.unwrap().pid).is_some(), "the agent goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_network_is_reached_by_whoever_may() {
    let server = "exec /usr/bin/python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 4711)); print(\"ready\", flush=True)\n\
                  while True:\n c = s.accept()[0]; c.sendall(c.recv(100).upper()); c.close()'";
    let world = world(Mode::Pipes, server).await;
    if world.attempt.launch.cgroup.unified.is_none() {
        return;
    }
    let person = world.person("ada", Profile::Workspace);
    let mut command = person.command("ssh", &["-W", "localhost:4711", "sculpt"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"inside").await.unwrap();
    let said = finish(child).await;
    assert_eq!(said.out, "INSIDE", "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_at_its_terminal_is_in_the_sandbox() {
    let agent = "stty -echo; echo ready; while read -r line; do echo \"got $line\"; done";
    let world = world(Mode::Terminal { columns: 200, rows: 50 }, agent).await;
    for profile in [Profile::Attach, Profile::Observe] {
        let mut seat = Window::open(&world.person("ada", profile), (80, 24), &[]);
        seat.sees("ready").await;
        seat.types(b"typed\r");
        seat.sees("got typed").await;
        seat.types(b"\x02d");
        assert_eq!(seat.closes().await, Some(0));
    }
    assert_eq!(String::from_utf8(world.attempt.log(None)).unwrap().matches("got typed").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_for_a_person_runs_as_the_attempts_account() {
    if !host::is_root() {
        return;
    }
    let mut attempt = Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000").in_cgroup();
    let (uid, gid) = (54_321, 54_322);
    attempt.launch.identity = Some(Identity { uid, gid, groups: Vec::new() });
    fs::set_permissions(attempt.path(), fs::Permissions::from_mode(0o711)).unwrap();
    chown(attempt.work(), Some(uid), Some(gid)).unwrap();
    let world = World::around(attempt).await;
    let person = world.person("ada", Profile::Workspace);
    let who = "id -u; id -g; id -G; touch made; grep NoNewPrivs /proc/self/status; stty size < $(tty)";
    let said = person.run("ssh", &["-tt", "sculpt", who]).await;
    assert_eq!(said.out, format!("{uid}\r\n{gid}\r\n{gid}\r\nNoNewPrivs:\t1\r\n24 80\r\n"), "{said:?}");
    assert_eq!(fs::metadata(world.attempt.work().join("made")).unwrap().uid(), uid);
}

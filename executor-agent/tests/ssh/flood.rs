//! Who sends what nobody has asked for, or reads nothing of what was asked: it takes nothing of anybody else.

use std::{fs, path::Path, sync::Arc};

use russh::{ChannelMsg, client};
use sculpt_executor::{shim::Mode, tree::ProcessId};
use sculpt_pairing::{Profile, login};
use ssh_key::Certificate;

use super::{
    windows::kept,
    world::{Person, World, key},
};
use crate::attempt::{Attempt, ended, eventually};

/// Connections of one person, and channels of each.
const CONNECTIONS: usize = 4;
const CHANNELS: usize = 31;

/// What is sent into each: nearly as much as the peer has let us.
const MUCH: usize = (1 << 20) - 1;

/// Somebody who comes without OpenSSH's own programs, and asks nobody who they are.
struct Rude;

impl client::Handler for Rude {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn connect(world: &World, person: &Person) -> client::Handle<Rude> {
    let certificate = fs::read_to_string(person.directory.join("key-cert.pub")).unwrap();
    let certificate = Certificate::from_openssh(&certificate).unwrap();
    let mut handle = client::connect(Arc::default(), world.address, Rude).await.unwrap();
    let name = login(person.pass.attempt);
    let entered = handle.authenticate_openssh_cert(name, Arc::new(key(9)), certificate).await.unwrap();
    assert!(entered.success(), "{entered:?}");
    handle
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_nobody_is_not_kept() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let (ada, bob) = (world.person("ada", Profile::Observe), world.person("bob", Profile::Workspace));
    let (mut connections, mut channels) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let connection = connect(&world, &ada).await;
        for _ in 0..CHANNELS {
            let channel = connection.channel_open_session().await.unwrap();
            // It may be closed before all of it was sent.
            let _closed = channel.data_bytes(vec![0; MUCH]).await;
            assert_eq!(kept(&world.attempt), 0);
            channels.push(channel);
        }
        connections.push(connection);
    }
    assert_eq!(bob.ssh(&["echo alive"]).await.out, "alive\n");
    for mut channel in channels {
        let mut words = Vec::new();
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::ExtendedData { data, .. } => words.extend_from_slice(&data),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        let words = String::from_utf8_lossy(&words);
        assert!(words.contains("before anything was asked to run in it"), "{words}");
    }
    // Only the channels were lost.
    assert!(connections.iter().all(|connection| !connection.is_closed()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_keeps_no_program_beyond_the_attempt() {
    let agent = "echo ready; until test -e ends; do sleep 0.01; done";
    let world = World::around(Attempt::new(Mode::Pipes, agent)).await;
    let person = world.person("ada", Profile::Workspace);
    let line = "echo $$ > pid.new; mv pid.new pid; exec cat /dev/zero";
    let reader = person.command("ssh", &["sculpt", line]).spawn().unwrap();
    let pid = world.attempt.number("pid").await;
    // More than a window of it was sent, so that there is hardly room for any word.
    let written = || {
        let account = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let written = account.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse::<u64>().unwrap();
        (written >= 2 << 20).then_some(())
    };
    eventually(written).await;
    fs::write(world.attempt.work().join("ends"), "").unwrap();
    ended(&world.client).await;
    world.ends.send_modify(|ends| *ends += 1);
    eventually(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())).await;
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_channel_was_closed_arrives() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let connection = connect(&world, &world.person("ada", Profile::Workspace)).await;
    for length in [5, 200_000, MUCH] {
        let channel = connection.channel_open_session().await.unwrap();
        let file = format!("sent-{length}");
        channel.exec(false, format!("cat > {file}")).await.unwrap();
        channel.data_bytes(vec![b'x'; length]).await.unwrap();
        channel.close().await.unwrap();
        let file = world.attempt.work().join(file);
        eventually(|| (fs::metadata(&file).ok()?.len() == length as u64).then_some(())).await;
    }
    // A program to which nothing was sent does not outlive its channel for that.
    let channel = connection.channel_open_session().await.unwrap();
    channel.exec(false, "echo $$ > began; exec sleep 1000").await.unwrap();
    let began = world.attempt.work().join("began");
    let program = eventually(|| fs::read_to_string(&began).ok()?.trim().parse::<u32>().ok()).await;
    channel.close().await.unwrap();
    eventually(|| ProcessId::of(program).is_none().then_some(())).await;
}

//! Who comes in, who does not, and who has to go.

use std::process::Stdio;

use sculpt_executor::shim::Mode;
use sculpt_pairing::{Pass, Profile, Window};
use sculpt_proto::id::AttemptId;
use ssh_key::{Certificate, PublicKey};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::world::{PEOPLE, World, finish, key, now};
use crate::attempt::{Attempt, PATIENCE, ended, eventually};

async fn world() -> World {
    World::around(Attempt::new(Mode::Pipes, "echo ready; read -r line < fifo || exec sleep 1000")).await
}

/// What of a good certificate is changed.
type Change = fn(&World, &mut Pass, &mut Window, &mut u8);

#[tokio::test(flavor = "multi_thread")]
async fn only_good_certificates_open() {
    let world = world().await;
    let public: PublicKey = key(9).public_key().clone();
    let certify = |change: Change| -> (Pass, Certificate) {
        let (mut pass, mut window, mut authority) = (world.pass("ada", Profile::Workspace.rights()), now(), PEOPLE);
        change(&world, &mut pass, &mut window, &mut authority);
        let certificate = pass.certify(&public, window, &key(authority)).unwrap();
        (pass, certificate)
    };
    let table: [(&str, Change, &str); 6] = [
        ("nobody was told of it", |_, _, _, _| {}, "this pairing is not known here"),
        (
            "another authority",
            |world, pass, _, authority| {
                world.tell(pass);
                *authority = 7;
            },
            "Permission denied (publickey)",
        ),
        (
            "it is over",
            |world, pass, window, _| {
                world.tell(pass);
                *window = Window { since: window.since - 600, until: window.since };
            },
            "Permission denied (publickey)",
        ),
        (
            "it is told for somebody else",
            |world, pass, _, _| {
                world.tell(pass);
                pass.user = "bob".to_owned();
            },
            "for somebody or something else",
        ),
        (
            "its attempt is not here",
            |world, pass, _, _| {
                pass.attempt = AttemptId::fresh();
                world.tell(pass);
            },
            "is not on this host",
        ),
        (
            "nothing of it is allowed any more",
            |world, pass, _, _| {
                let rights = std::mem::replace(&mut pass.rights, Profile::Observe.rights());
                world.tell(pass);
                pass.rights = rights.iter().filter(|right| !pass.rights.has(*right)).collect();
            },
            "nothing that the certificate allows",
        ),
    ];
    for (what, change, words) in table {
        let (pass, certificate) = certify(change);
        let said = world.holder(&pass, &certificate).ssh(&["echo", "in"]).await;
        assert_eq!((said.code, said.out.as_str()), (Some(255), ""), "{what}: {said:?}");
        assert!(said.err.contains(words), "{what}: {said:?}");
    }
    let said = world.person("ada", Profile::Workspace).ssh(&["echo", "in"]).await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "in\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_a_plain_key_and_a_password_open_nothing() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let other = format!("attempt-{}", AttemptId::fresh());
    for (words, expected) in [
        (&["-l", "root", "sculpt", "id"][..], "names no attempt"),
        (&["-l", &other, "sculpt", "id"], "is for"),
        (&["-o", "PreferredAuthentications=password,keyboard-interactive", "sculpt", "id"], "Permission denied"),
    ] {
        let said = person.run("ssh", words).await;
        assert_eq!((said.code, said.out.as_str()), (Some(255), ""), "{said:?}");
        assert!(said.err.contains(expected), "{expected}: {said:?}");
    }
    std::fs::remove_file(person.directory.join("key-cert.pub")).unwrap();
    let said = person.ssh(&["id"]).await;
    assert!(said.code == Some(255) && said.err.contains("Permission denied (publickey)"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_that_is_told_late_opens() {
    let world = world().await;
    let pass = world.pass("ada", Profile::Workspace.rights());
    let certificate = pass.certify(key(9).public_key(), now(), &key(PEOPLE)).unwrap();
    let person = world.holder(&pass, &certificate);
    let mut child = person.command("ssh", &["-v", "sculpt", "echo", "in"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("ssh goes on").contains("Server accepts key") {}
    world.tell(&pass);
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    assert_eq!(finish(child).await.out, "in\n");
    rest.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_back_has_to_go_with_all_that_runs() {
    let world = world().await;
    let (ada, bob) = (world.person("ada", Profile::Workspace), world.person("bob", Profile::Workspace));
    let sleep =
        |name: &str| format!("echo $$ > {name}; trap '' HUP TERM; sleep 1000 & echo $! > {name}s; wait; sleep 1000");
    let [cut, stays] = [(&ada, "ada"), (&bob, "bob")]
        .map(|(person, name)| person.command("ssh", &["sculpt", &sleep(name)]).spawn().unwrap());
    let [pid_cut, pid_stays] = [world.attempt.number("ada").await, world.attempt.number("bob").await];
    let [left_cut, left_stays] = [world.attempt.number("adas").await, world.attempt.number("bobs").await];
    world.take_back(&ada);
    let said = finish(cut).await;
    assert_eq!(said.code, Some(255));
    assert!(said.err.contains("this pairing was taken back"), "{said:?}");
    let lives = |pid| sculpt_executor::tree::ProcessId::of(pid).is_some();
    eventually(|| (!lives(pid_cut) && !lives(left_cut)).then_some(())).await;
    assert!(lives(pid_stays));
    world.cancel.cancel();
    let said = finish(stays).await;
    assert!(said.err.contains("this executor ends"), "{said:?}");
    eventually(|| (!lives(pid_stays)).then_some(())).await;
    assert!(lives(left_stays), "who comes again finds what they left in the background");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_has_ended_takes_nobody_in() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    world.client.stop(std::time::Duration::ZERO).await.unwrap();
    ended(&world.client).await;
    let said = person.ssh(&["id"]).await;
    assert_eq!(said.code, Some(255));
    assert!(said.err.contains("has ended"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_let_go_and_who_is_in_stays() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let mut child = person.command("ssh", &["sculpt", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"in\n").await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "in");
    for begin in [&b""[..], b"SSH-2.0-idle\r\n"] {
        let mut idle = TcpStream::connect(world.address).await.unwrap();
        idle.write_all(begin).await.unwrap();
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut heard)).await.expect("it is closed");
        assert!(closed.is_err() || heard.starts_with(b"SSH-2.0-sculpt\r\n"));
    }
    input.write_all(b"still in\n").await.unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "still in");
    child.kill().await.unwrap();
}

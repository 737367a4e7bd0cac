//! Many people at one terminal, and many connections of one of them.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
};

use sculpt_executor::{report::Seat, shim::Mode};
use sculpt_pairing::Profile;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{terminal::Window, world::World};
use crate::attempt::{Attempt, PATIENCE};

const PEOPLE: usize = 50;

/// How many connections one person may have.
const OF_ONE: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn one_person_takes_no_places_of_others() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let [ada, bob] = ["ada", "bob"].map(|user| world.person(user, Profile::Workspace));
    let mut held = Vec::new();
    for _ in 0..OF_ONE {
        let mut child = ada.command("ssh", &["sculpt", "echo in; exec cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
        assert_eq!(line, "in\n");
        held.push(child);
    }
    let said = ada.ssh(&["echo in"]).await;
    assert!(said.code == Some(255) && said.err.contains(":12: you have 64 connections to this executor"), "{said:?}");
    assert_eq!(bob.ssh(&["echo in"]).await.out, "in\n");
    drop(held.pop().unwrap().stdin.take());
    // It goes, and there is a place again.
    while ada.ssh(&["echo in"]).await.out != "in\n" {}
    for child in &mut held {
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sit_at_one_terminal() {
    sit(|number| format!("person{number}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_sits_there_fifty_times() {
    sit(|_| "ada".to_owned()).await;
}

/// Fifty sit down, type and get up, by these names.
async fn sit(name: impl Fn(usize) -> String) {
    let agent = "stty -echo; echo ready; while read -r line; do echo \"got $line\"; done";
    let mut world = World::around(Attempt::new(Mode::Terminal { columns: 200, rows: 50 }, agent)).await;
    let profiles = [Profile::Attach, Profile::Observe, Profile::Workspace];
    let mut windows = Vec::new();
    for number in 0..PEOPLE {
        let profile = profiles[number % profiles.len()];
        let words: &[&str] = if profile == Profile::Workspace { &["sculpt-attach"] } else { &[] };
        windows.push(Window::open(&world.person(&name(number), profile), (80, 24), words));
    }
    for window in &windows {
        window.sees("ready").await;
    }
    for (number, window) in windows.iter_mut().enumerate() {
        // An observer's keys reach nobody.
        window.types(format!("from {number}\r").as_bytes());
        if number % profiles.len() != 1 {
            window.sees(&format!("got from {number}")).await;
        }
    }
    // One after the other: keys that come at once from all clients of a session tmux takes for a paste.
    for (number, mut window) in windows.into_iter().enumerate() {
        window.types(b"\x02d");
        assert_eq!(window.closes().await, Some(0), "number {number}");
    }
    let typists = (0..PEOPLE).filter(|number| number % profiles.len() != 1).count();
    let log = String::from_utf8(world.attempt.log(None)).unwrap();
    assert_eq!(log.matches("got from").count(), typists, "{log}");
    let mut expected = BTreeMap::new();
    for number in 0..PEOPLE {
        let line = format!("from {number}\r").len() as u64;
        *expected.entry(name(number)).or_default() += match profiles[number % profiles.len()] {
            Profile::Observe => 0,
            Profile::Attach => line,
            // With a shell all keys are tmux's, those to get up too.
            Profile::Workspace => line + 2,
        };
    }
    is_told(&mut world, &expected).await;
}

/// Waits until all have gone and so much is told of what each has typed. Of somebody who rests meanwhile it is told in more than
/// one piece.
async fn is_told(world: &mut World, expected: &BTreeMap<String, u64>) {
    let (mut names, mut typed) = (HashMap::new(), BTreeMap::new());
    while typed != *expected || !names.is_empty() {
        let report = tokio::time::timeout(PATIENCE, world.reports.recv()).await;
        let report = report.unwrap_or_else(|_| panic!("{typed:?}, not {expected:?}; {names:?} are there")).unwrap();
        match report.1 {
            Seat::Attached { seat, user, .. } => {
                typed.entry(user.clone()).or_default();
                names.insert(seat, user);
            }
            Seat::Typed { seat, bytes, .. } => *typed.entry(names[&seat].clone()).or_default() += bytes,
            Seat::Detached { seat, .. } => drop(names.remove(&seat)),
        }
    }
}

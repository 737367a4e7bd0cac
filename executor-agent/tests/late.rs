//! Shims that come late, or stand still when their attempt is given up.

use std::{fs, process::Command};

use rustix::process::Signal;
use sculpt_executor::{
    shim::{self, Mode},
    tree::{self, ProcessId},
};

use crate::attempt::{Attempt, PROGRAM, eventually};

async fn bury(attempt: &Attempt) -> shim::Remains {
    let (directory, id) = (attempt.directory(), attempt.id);
    tokio::task::spawn_blocking(move || shim::bury(&directory, id)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_shim_that_comes_after_its_attempt_was_given_up_runs_nothing() {
    let attempt = Attempt::new(Mode::Pipes, "touch ran");
    attempt.launch.write(&attempt.directory()).unwrap();
    assert!(!bury(&attempt).await.left_over);
    let late = Command::new(PROGRAM).args(["shim", "run"]).arg(attempt.directory()).output().unwrap();
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(!late.status.success() && said.contains("given up"), "{said}");
    assert!(!attempt.work().join("ran").exists());
}

#[tokio::test]
async fn a_shim_that_stands_still_goes_with_its_agent_when_its_attempt_is_given_up() {
    for cgroup in [false, true] {
        let script = "trap '' HUP TERM INT; echo $$ > agent; (trap '' HUP TERM INT; sleep 1000) & echo ready; wait";
        let mut attempt = Attempt::new(Mode::Pipes, script);
        if cgroup {
            attempt = attempt.in_cgroup();
        }
        let client = attempt.start().await;
        attempt.says(&client, "ready").await;
        let status = attempt.status().await;
        status.shim.signal(Signal::STOP);
        let remains = bury(&attempt).await;
        assert!(!remains.left_over && !status.shim.is_alive());
        assert_eq!(ProcessId::of(attempt.number("agent").await), None);
        assert!(tree::carriers(attempt.id).is_empty());
        assert_eq!((remains.spool.end, attempt.log(None)), (6, b"ready\n".to_vec()));
        assert_eq!(shim::exit_record(&attempt.directory()).unwrap(), None);
    }
}

#[tokio::test]
async fn a_shim_is_killed_whatever_it_does_and_no_other_process() {
    let mut attempt = Attempt::new(Mode::Pipes, "exec sleep 1000");
    attempt.start().await;
    let shim = attempt.status().await.shim;
    shim.signal(Signal::STOP);
    shim::kill(&attempt.directory()).unwrap();
    eventually(|| (!shim.is_alive()).then_some(())).await;
    // Its pid may be another process's by now.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let theirs = ProcessId::of(other.id()).unwrap();
    let lock = attempt.directory().join(shim::files::LOCK);
    fs::write(&lock, serde_json::to_vec(&theirs).unwrap()).unwrap();
    shim::kill(&attempt.directory()).unwrap();
    assert!(theirs.is_alive(), "nobody holds the lock");
    fs::write(&lock, "").unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    bury(&attempt).await;
}

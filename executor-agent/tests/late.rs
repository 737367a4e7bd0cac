//! Shims that come late, stand still, or are dead: what becomes of their attempts.

use std::{fs, process::Command};

use rustix::process::Signal;
use sculpt_executor::{
    shim::{self, Liveness, Mode},
    tree::{self, ProcessId},
};
use sculpt_proto::executor::v1::{Phase, ended::Outcome};

use crate::{
    attempt::{Attempt, PROGRAM, ended, eventually},
    controller::Memory,
    host::Host,
    life::wait_for,
};

async fn bury(attempt: &Attempt) -> shim::Remains {
    let (directory, id) = (attempt.directory(), attempt.id);
    tokio::task::spawn_blocking(move || shim::bury(&directory, id)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_killed_shim_is_buried_with_its_tree() {
    for cgroup in [false, true] {
        let mut attempt = Attempt::new(
            Mode::Pipes,
            "trap '' PIPE HUP TERM; setsid sleep 1000 & echo $! > child; seq 1 1000; echo $$ > main; wait",
        );
        if cgroup {
            attempt = attempt.in_cgroup();
        }
        let client = attempt.start().await;
        let pids = [attempt.number("child").await, attempt.number("main").await];
        attempt.says(&client, "\n1000\n").await;
        attempt.status().await.shim.signal(Signal::KILL);
        eventually(|| client_gone(&attempt)).await;
        assert!(matches!(shim::probe(&attempt.directory()).await, Liveness::Absent(None)));
        let remains = bury(&attempt).await;
        assert!(!remains.left_over);
        assert_eq!((remains.spool.end, remains.spool.torn_bytes), (attempt.log(None).len() as u64, 0));
        assert!(pids.iter().all(|pid| ProcessId::of(*pid).is_none()));
    }
}

#[tokio::test]
async fn what_hides_from_the_sweep_is_buried_too() {
    // Neither its environment nor an ancestor leads to it once the shim is dead, and there is no cgroup.
    let script = "trap '' PIPE HUP TERM; env -u SCULPT_ATTEMPT setsid sh -c 'echo $$ > leader; sleep 1000 & echo $! > member; wait' & \
                  env -u SCULPT_ATTEMPT sleep 1000 & echo $! > plain; wait";
    let mut attempt = Attempt::new(Mode::Pipes, script);
    attempt.start().await;
    let leader = attempt.number("leader").await;
    let pids = [leader, attempt.number("member").await, attempt.number("plain").await];
    let kin = attempt.directory().join(shim::files::KIN);
    eventually(|| fs::read_to_string(&kin).ok()?.contains(&format!("\"id\":{leader},")).then_some(())).await;
    attempt.status().await.shim.signal(Signal::KILL);
    eventually(|| client_gone(&attempt)).await;
    assert!(pids.iter().all(|pid| ProcessId::of(*pid).is_some()), "they outlive the shim");
    let remains = bury(&attempt).await;
    assert!(!remains.left_over);
    assert!(pids.iter().all(|pid| ProcessId::of(*pid).is_none()), "{pids:?}");
}

fn client_gone(attempt: &Attempt) -> Option<()> {
    let lock = fs::read(attempt.directory().join(shim::files::LOCK)).unwrap();
    let shim: ProcessId = serde_json::from_slice(&lock).unwrap();
    (!shim.is_alive()).then_some(())
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
        assert!(tree::carriers(tree::Mark::Agent, attempt.id).is_empty());
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
    shim::signal(&attempt.directory(), Signal::KILL).unwrap();
    eventually(|| (!shim.is_alive()).then_some(())).await;
    // Its pid may be another process's by now.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let theirs = ProcessId::of(other.id()).unwrap();
    let lock = attempt.directory().join(shim::files::LOCK);
    fs::write(&lock, serde_json::to_vec(&theirs).unwrap()).unwrap();
    shim::signal(&attempt.directory(), Signal::KILL).unwrap();
    assert!(theirs.is_alive(), "nobody holds the lock");
    fs::write(&lock, "").unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    bury(&attempt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_dies_before_its_shim_has_come_begins_anew() {
    let mut host = Host::new().await;
    let armed = host.root.path().join("failpoints");
    fs::create_dir(&armed).unwrap();
    fs::write(armed.join("shim.before_start"), "").unwrap();
    host.environment.push((sculpt_failpoints::VARIABLE, armed.clone().into()));
    host.start().await;
    let spec = host.shell("echo ran");
    host.controller.offer(&spec);
    wait_for("its death", || armed.join("shim.before_start.hit").exists()).await;
    host.kill();
    // As if it had died a moment later, and the shim before it had begun.
    let mut launch = Attempt::new(Mode::Pipes, "echo wrong").launch.clone();
    launch.boot_id = Some(sculpt_executor::host::boot_id().unwrap());
    launch.write(&host.data().join("attempts").join(&spec.attempt_id)).unwrap();
    host.start().await;
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&spec.attempt_id), b"ran\n");
    host.stop();
}

/// The shim of an attempt that an executor runs.
async fn shim_of(host: &Host, id: &str) -> ProcessId {
    match shim::probe(&host.data().join("attempts").join(id)).await {
        Liveness::Present(status) => status.shim,
        other => panic!("no shim: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_attempt_whose_shim_stands_still() {
    let mut host = Host::new().await;
    host.start().await;
    let script = "trap 'echo asked' INT; trap '' TERM; echo begin; while :; do sleep 0.02; done";
    let specs = [(); 3].map(|()| host.shell(script));
    let mut shims = Vec::new();
    for spec in &specs {
        let id = &spec.attempt_id;
        host.controller.offer(spec);
        host.controller.wait("the start", |memory| (memory.log(id) == b"begin\n").then_some(())).await;
        shims.push(shim_of(&host, id).await);
    }
    // One hears of the stop and stands still then, the others do before; the last is not to be woken, where that can be.
    host.controller.want(&specs[0].attempt_id, Phase::Stop);
    let asked = |memory: &Memory, spec: usize| memory.log(&specs[spec].attempt_id).ends_with(b"asked\n").then_some(());
    host.controller.wait("the interrupt", |memory| asked(memory, 0)).await;
    shims.iter().for_each(|shim| shim.signal(Signal::STOP));
    let frozen = freeze_shim(&host, &specs[2].attempt_id);
    specs.iter().skip(1).for_each(|spec| host.controller.want(&spec.attempt_id, Phase::Stop));
    for (at, (spec, shim)) in specs.iter().zip(shims).enumerate() {
        let ended = host.controller.wait_ended(&spec.attempt_id).await;
        assert_eq!(ended.outcome(), Outcome::Cancelled);
        assert!(tree::carriers(tree::Mark::Agent, spec.attempt_id.parse().unwrap()).is_empty());
        wait_for("the shim's end", || !shim.is_alive()).await;
        assert_eq!(host.controller.memory().log(&spec.attempt_id).len() as u64, ended.log_length);
        let recorded = host.data().join("attempts").join(&spec.attempt_id);
        let recorded = shim::exit_record(&recorded).is_ok_and(|record| record.is_some());
        assert_eq!(recorded, at < 2 || !frozen, "a shim that can be woken does all its work");
        assert_eq!(asked(&host.controller.memory(), at).is_some(), recorded);
    }
    host.stop();
}

/// Freezes the shim of an attempt; false where there is no cgroup.
fn freeze_shim(host: &Host, id: &str) -> bool {
    let launch = shim::Launch::read(&host.data().join("attempts").join(id)).unwrap();
    let freeze = launch.cgroup.unified.map(|own| own.join("shim/cgroup.freeze"));
    freeze.is_some_and(|freeze| fs::write(freeze, "1").is_ok())
}

#[tokio::test]
async fn an_agent_outlives_a_volume_that_is_not_there_for_a_while() {
    let mut attempt = Attempt::new(Mode::Pipes, "mkfifo gate; echo waits; read line < gate; echo $line; exit 7");
    let sockets = tempfile::tempdir().unwrap();
    attempt.launch.control_socket = sockets.path().join("control");
    attempt.launch.view_socket = sockets.path().join("view");
    let client = attempt.start().await;
    attempt.says(&client, "waits").await;
    let (volume, away) = (attempt.path().to_owned(), attempt.path().with_extension("away"));
    fs::rename(&volume, &away).unwrap();
    // As long as it takes to find out that a directory was removed.
    let mut removed = Attempt::new(Mode::Pipes, "echo waits; exec sleep 600");
    let client_of_removed = removed.start().await;
    removed.says(&client_of_removed, "waits").await;
    fs::remove_dir_all(removed.directory()).unwrap();
    wait_for("the end of an agent whose directory was removed", || {
        tree::carriers(tree::Mark::Agent, removed.id).is_empty()
    })
    .await;
    assert_eq!(attempt.status().await.phase, shim::Phase::Running);
    fs::rename(&away, &volume).unwrap();
    fs::write(attempt.work().join("gate"), "goes on\n").unwrap();
    assert_eq!(ended(&client).await.outcome, shim::Outcome::Code(7));
    assert_eq!(attempt.log(None), b"waits\ngoes on\n");
}

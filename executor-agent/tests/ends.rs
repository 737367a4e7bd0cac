//! How attempts end: as asked, by their limits, and with what watches them.

use std::{fs, io::Write as _, time::Duration};

use sculpt_proto::{
    executor::v1::{Phase, ended::Outcome},
    v1::OnLost,
};

use crate::{
    attempt::eventually,
    controller::Memory,
    git::project,
    host::Host,
    life::{STEPS, cause, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_whole_tree_and_publishes() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let script = "trap '' TERM INT; echo x > x && git add x && git commit -qm x; echo ready; sleep 600";
    let spec = host.on_base(host.shell(script), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the commit", |memory| (memory.log(&id) == b"ready\n").then_some(())).await;
    host.controller.want(&id, Phase::Stop);
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Cancelled);
    assert!(!ended.head.is_empty());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_publishes_nothing() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let script = "echo x > x && git add x && git commit -qm x; echo ready; exec sleep 600";
    let spec = host.on_base(host.shell(script), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the commit", |memory| (memory.log(&id) == b"ready\n").then_some(())).await;
    host.controller.want(&id, Phase::Fence);
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Fenced);
    assert!(ended.head.is_empty() && host.controller.memory().published.is_empty());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_it_with_its_cause() {
    let mut host = Host::new().await;
    host.start().await;
    let mut spec = host.shell("exec sleep 600");
    spec.task.as_mut().unwrap().timeout = Some(sculpt_proto::to_duration(Duration::from_secs(1)));
    host.controller.offer(&spec);
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    assert_eq!(cause(&ended), ("timeout".into(), "it ran longer than its limit of 1s".into()));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_its_agent_while_the_executor_is_dead_and_no_other() {
    let mut host = Host::new().await;
    host.start().await;
    let mut spec = host.shell("echo begin; exec sleep 600");
    let task = spec.task.as_mut().unwrap();
    task.set_on_lost(OnLost::Retry);
    task.lost_after = Some(sculpt_proto::to_duration(Duration::from_secs(1)));
    let other = host.shell("echo begin; exec sleep 600");
    let mut pids = Vec::new();
    for id in [&spec.attempt_id, &other.attempt_id] {
        host.controller.offer(if *id == spec.attempt_id { &spec } else { &other });
        let running = |memory: &Memory| memory.pid(id).filter(|_| memory.log(id) == b"begin\n");
        pids.push(host.controller.wait("the start", running).await);
    }
    host.kill();
    let attempt = host.data().join("attempts").join(&spec.attempt_id);
    // No lease is shorter than 30 s, and this is the time that it takes.
    let end = eventually(|| sculpt_executor::shim::exit_record(&attempt).unwrap()).await;
    assert_eq!(end.ended_by, sculpt_executor::shim::EndedBy::Lease);
    assert!(sculpt_executor::tree::ProcessId::of(pids[0]).is_none());
    assert!(sculpt_executor::tree::ProcessId::of(pids[1]).is_some(), "by default nothing is stopped");
    host.start().await;
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    assert_eq!(cause(&ended).0, "executor_lost");
    host.controller.want(&other.attempt_id, Phase::Stop);
    assert_eq!(host.controller.wait_ended(&other.attempt_id).await.outcome(), Outcome::Cancelled);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shim_ends_its_agent_and_is_told() {
    let mut host = Host::new().await;
    host.start().await;
    let spec = host.shell("echo begin; exec sleep 600");
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid =
        host.controller.wait("the start", |memory| memory.pid(&id).filter(|_| memory.log(&id) == b"begin\n")).await;
    kill_shim(&host, &id).await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(cause(&ended).0, "internal");
    assert!(sculpt_executor::tree::ProcessId::of(pid).is_none());
    assert_eq!(host.controller.memory().log(&id), b"begin\n");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_recording_is_named_and_never_ends_before_what_the_controller_holds() {
    let mut host = Host::new().await;
    host.start().await;
    let spec = host.shell("for n in 1 2 3 4 5 6 7 8; do echo line $n; sleep 0.02; done; exec sleep 600");
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let whole: String = (1..=8).map(|n| format!("line {n}\n")).collect();
    host.controller.wait("the log", |memory| (memory.log(&id) == whole.as_bytes()).then_some(())).await;
    host.kill();
    kill_shim(&host, &id).await;
    let segment = host.data().join("attempts").join(&id).join("spool/00000000000000000000.spool");
    let mut bytes = fs::read(&segment).unwrap();
    // In the header of the second frame: those after it are sound.
    bytes[24 + 32 + 7 + 9] ^= 1;
    fs::write(&segment, bytes).unwrap();
    host.start().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.log_length, whole.len() as u64);
    let notes = host.controller.memory().notes(&id);
    let upto = format!("complete up to byte {}", whole.len());
    assert!(notes.iter().any(|note| note.contains(&upto) && note.contains(".spool.damaged")), "{notes:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_blocks_the_agent_and_the_end_is_told_all_the_same() {
    let mut host = Host::new().await;
    fs::create_dir(host.data()).unwrap();
    let Some(_disk) = crate::disk::Disk::mount(&host.data(), 8 << 20) else { return };
    host.start().await;
    let go = host.root.path().join("go");
    let script = format!(
        "trap '' INT TERM; until test -e {}; do sleep 0.02; done; head -c 50000000 /dev/zero; sleep 600",
        go.display()
    );
    let spec = host.shell(&script);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the start", |memory| memory.pid(&id)).await;
    let attempt = host.data().join("attempts").join(&id);
    // More than there will be room for in the journal, and not said yet: its line does not end.
    let mut said = fs::OpenOptions::new().create(true).append(true).open(attempt.join("milestones")).unwrap();
    said.write_all(&vec![b'x'; (2 << 20) - 1]).unwrap();
    fs::write(go, "").unwrap();
    host.controller.wait("the log", |memory| (memory.log(&id).len() > 1 << 20).then_some(())).await;
    let mut blocked = None;
    while blocked.is_none() {
        if let sculpt_executor::shim::Liveness::Present(status) = sculpt_executor::shim::probe(&attempt).await {
            blocked = status.blocked;
        }
    }
    assert!(blocked.unwrap().contains("the log cannot be written"));
    let _filled = fs::write(host.data().join("filler"), vec![0; 8 << 20]);
    assert!(fs::write(host.data().join("more"), [0; 4096]).is_err(), "the disk is full");
    said.write_all(b"\n").unwrap();
    host.controller.want(&id, Phase::Stop);
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Cancelled);
    let record = sculpt_executor::shim::exit_record(&attempt).unwrap().unwrap();
    assert_eq!(record.log_length, ended.log_length);
    assert_eq!(host.controller.memory().log(&id).len() as u64, ended.log_length);
    assert_eq!(host.controller.memory().steps(&id), STEPS);
    let log = fs::read_to_string(host.root.path().join("log")).unwrap();
    assert!(log.contains("milestones that were said last were not written down"), "{log}");
    host.stop();
}

/// Ends an attempt's shim as nothing but a crash does, and waits until it is gone.
pub(crate) async fn kill_shim(host: &Host, id: &str) {
    let shim = match sculpt_executor::shim::probe(&host.data().join("attempts").join(id)).await {
        sculpt_executor::shim::Liveness::Present(status) => status.shim,
        other => panic!("no shim: {other:?}"),
    };
    shim.signal(rustix::process::Signal::KILL);
    wait_for("the shim's end", || !shim.is_alive()).await;
}

//! What stands on an executor's disk and is damaged, or removed under a living agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use sculpt_executor::{
    shim::{Liveness, files, probe},
    tree::ProcessId,
};
use sculpt_proto::executor::v1::{AttemptSpec, ObservedAttempt, Phase, ended::Outcome};

use crate::{controller::Memory, host::Host, life::wait_for};

fn directory(host: &Host, spec: &AttemptSpec) -> PathBuf {
    host.data().join("attempts").join(&spec.attempt_id)
}

/// Offers `spec` and waits until its agent has printed `begin`; returns its process.
async fn begun(host: &Host, spec: &AttemptSpec) -> ProcessId {
    host.controller.offer(spec);
    let id = &spec.attempt_id;
    let pid = host.controller.wait("the start", |memory| memory.pid(id).filter(|_| memory.log(id) == b"begin\n")).await;
    ProcessId::of(pid).unwrap()
}

fn seen<'a>(memory: &'a Memory, spec: &AttemptSpec) -> Option<&'a ObservedAttempt> {
    memory.observed.iter().find(|seen| seen.attempt_id == spec.attempt_id)
}

/// Waits until it is said that `spec` cannot be read, and why.
async fn told_unreadable(host: &Host, spec: &AttemptSpec) -> ObservedAttempt {
    let named = |memory: &Memory| seen(memory, spec).filter(|seen| !seen.unreadable.is_empty()).cloned();
    host.controller.wait("word that it is unreadable", named).await
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What is done to a file.
type Harm = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_its_agent_lives_can_be_stopped_and_is_named() {
    let damages: [(&str, Harm); 4] = [
        ("spec", |path| flip(path, 3)),
        ("journal", |path| flip(path, 12)),
        (files::LAUNCH, |path| fs::write(path, "{").unwrap()),
        ("account.json", |path| fs::write(path, "{").unwrap()),
    ];
    let mut host = Host::new().await;
    host.start().await;
    let mut specs = Vec::new();
    for _ in &damages {
        let spec = host.shell("echo begin; trap 'echo end; exit 0' INT; while :; do sleep 0.02; done");
        let agent = begun(&host, &spec).await;
        specs.push((spec, agent));
    }
    let sound = host.shell("echo begin; exec sleep 600");
    let other = begun(&host, &sound).await;
    host.kill();
    for ((spec, _), (name, damage)) in specs.iter().zip(damages) {
        damage(&directory(&host, spec).join(name));
    }
    host.start().await;
    for ((spec, agent), (name, _)) in specs.iter().zip(damages) {
        let told = host.controller.wait("the report", |memory| seen(memory, spec).cloned()).await;
        assert!(agent.is_alive() && !told.ended && told.unreadable.is_empty(), "{name}: {told:?}");
        let notes = host.controller.memory().hellos.last().unwrap().notes.clone();
        assert!(notes.iter().any(|note| note.contains(&spec.attempt_id)), "{name}: {notes:?}");
        host.controller.want(&spec.attempt_id, Phase::Stop);
        let told = told_unreadable(&host, spec).await;
        assert!(told.ended && told.log_length == 10, "{name}: {told:?}");
        assert!(told.unreadable.contains("/quarantine/") && told.unreadable.contains(name), "{}", told.unreadable);
        let whole = |memory: &Memory| (memory.log(&spec.attempt_id) == b"begin\nend\n").then_some(());
        host.controller.wait("the rest of the log", whole).await;
        assert!(!agent.is_alive() && !directory(&host, spec).exists());
        assert!(host.data().join("quarantine").join(format!("{}-1", spec.attempt_id)).join("spool").exists());
    }
    assert!(other.is_alive(), "a neighbour is not touched");
    host.kill();
    host.start().await;
    for (spec, _) in &specs {
        told_unreadable(&host, spec).await;
        host.controller.release(&spec.attempt_id);
    }
    let released = |memory: &Memory| memory.notes(&sound.attempt_id).is_empty().then_some(());
    host.controller.wait("the neighbour", released).await;
    host.controller.want(&sound.attempt_id, Phase::Stop);
    assert_eq!(host.controller.wait_ended(&sound.attempt_id).await.outcome(), Outcome::Cancelled);
    host.kill();
    host.start().await;
    host.controller.wait("a set without them", |memory| (memory.observed.len() == 1).then_some(())).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_whose_lock_was_removed_is_known_by_itself() {
    let removals: [(&[&str], bool); 3] =
        [(&[files::LOCK], false), (&[files::LOCK, files::LAUNCH], false), (&[files::LOCK], true)];
    let mut host = Host::new().await;
    host.start().await;
    let mut begin = Vec::new();
    for _ in &removals {
        let spec = host.shell("echo begin; trap 'echo end; exit 0' INT; while :; do sleep 0.02; done");
        let agent = begun(&host, &spec).await;
        let Liveness::Present(status) = probe(&directory(&host, &spec)).await else { panic!("no shim") };
        begin.push((spec, agent, status.shim));
    }
    host.kill();
    for ((spec, ..), (removed, replaced)) in begin.iter().zip(removals) {
        for name in removed {
            fs::remove_file(directory(&host, spec).join(name)).unwrap();
        }
        if replaced {
            fs::write(directory(&host, spec).join(files::LOCK), "").unwrap();
        }
    }
    host.start().await;
    for ((spec, agent, shim), (removed, _)) in begin.iter().zip(removals) {
        let told = host.controller.wait("the report", |memory| seen(memory, spec).cloned()).await;
        assert!(agent.is_alive() && shim.is_alive() && !told.ended, "{removed:?}: {told:?}");
        host.controller.want(&spec.attempt_id, Phase::Stop);
        if removed.contains(&files::LAUNCH) {
            assert!(told_unreadable(&host, spec).await.unreadable.contains(files::LAUNCH));
        } else {
            assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Cancelled);
        }
        let whole = |memory: &Memory| (memory.log(&spec.attempt_id) == b"begin\nend\n").then_some(());
        host.controller.wait("the rest of the log", whole).await;
        host.controller.release(&spec.attempt_id);
        wait_for("the shim to go with its attempt", || !shim.is_alive()).await;
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_for_now_is_looked_at_again_and_goes_on() {
    let mut host = Host::new().await;
    if sculpt_executor::host::is_root() {
        // Else nothing is closed to it.
        host.via.extend(["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    host.start().await;
    let gate = host.root.path().join("gate");
    let spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.02; done; echo end", gate.display()));
    let agent = begun(&host, &spec).await;
    host.kill();
    let dir = directory(&host, &spec);
    let close = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    close(0o000);
    host.start().await;
    let told = host.controller.wait("the report", |memory| seen(memory, &spec).cloned()).await;
    assert!(agent.is_alive() && !told.ended && told.unreadable.is_empty(), "{told:?}");
    let notes = host.controller.memory().hellos.last().unwrap().notes.clone();
    assert!(notes.iter().any(|note| note.contains(&spec.attempt_id) && note.contains("denied")), "{notes:?}");
    close(0o700);
    fs::write(&gate, "").unwrap();
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&spec.attempt_id), b"begin\nend\n");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_exit_record_ends_an_attempt_all_the_same() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.02; done", gate.display()));
    let agent = begun(&host, &spec).await;
    host.kill();
    fs::write(&gate, "").unwrap();
    let record = directory(&host, &spec).join(files::EXIT);
    wait_for("the exit record", || record.exists()).await;
    flip(&record, 1);
    host.start().await;
    let told = told_unreadable(&host, &spec).await;
    assert!(told.unreadable.contains(files::EXIT) && !agent.is_alive(), "{}", told.unreadable);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_damaged_closes_where_it_can_be_read_no_more() {
    for already_ended in [false, true] {
        let mut host = Host::new().await;
        host.start().await;
        let gate = host.root.path().join("gate");
        let wait = format!("until [ -e '{}' ]; do sleep 0.02; done", gate.display());
        let spec = host.shell(&format!("echo begin; {wait}; for n in 2 3 4 5; do sleep 0.2; echo line $n; done"));
        let agent = begun(&host, &spec).await;
        let (id, dir) = (&spec.attempt_id, directory(&host, &spec));
        host.controller.go_away().await;
        if !already_ended {
            host.kill();
        }
        fs::write(&gate, "").unwrap();
        wait_for("the agent's end", || !agent.is_alive() && dir.join(files::EXIT).exists()).await;
        if already_ended {
            let journal = || fs::read_to_string(dir.join("journal")).unwrap();
            wait_for("the last report", || journal().contains(r#""step":"ended""#)).await;
            host.kill();
        }
        // In the third frame: those before and after it are sound.
        let frame = |bytes: usize| 32 + bytes;
        flip(&dir.join("spool/00000000000000000000.spool"), 24 + frame(6) + frame(7) + 32 + 1);
        host.controller.come_back().await;
        host.start().await;
        let note = |memory: &Memory| memory.notes(id).into_iter().find(|note| note.contains("complete up to byte 13"));
        let note = host.controller.wait("the note", note).await;
        assert!(note.contains("00000000000000000000.spool is damaged at byte"), "{note}");
        let ended = host.controller.wait("the end", |memory| memory.ended(id)).await;
        assert_eq!(ended.outcome(), Outcome::Completed);
        assert_eq!(ended.log_length, if already_ended { 34 } else { 13 });
        let log = |memory: &Memory| (memory.log(id) == b"begin\nline 2\n").then_some(());
        host.controller.wait("what can be read", log).await;
        if already_ended {
            let told = told_unreadable(&host, &spec).await;
            assert_eq!((told.unreadable, told.log_length, told.ended), (note, 13, true));
        }
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_removes_its_own_attempt_is_ended_and_told() {
    let mut host = Host::new().await;
    host.start().await;
    for what in ["", "/spool"] {
        let gate = host.root.path().join(format!("gate{}", what.len()));
        let spec = host.shell("");
        let remove = format!("{}{what}", directory(&host, &spec).display());
        let script = format!(
            "echo begin; until [ -e '{0}' ]; do sleep 0.02; done; rm -rf '{remove}'; {1}",
            gate.display(),
            if what.is_empty() { "exec sleep 600" } else { "echo end" }
        );
        let spec = AttemptSpec { attempt_id: spec.attempt_id.clone(), ..host.shell(&script) };
        let agent = begun(&host, &spec).await;
        fs::write(&gate, "").unwrap();
        let ended = host.controller.wait("the end", |memory| memory.ended(&spec.attempt_id)).await;
        assert!(!agent.is_alive());
        let log = host.controller.memory().log(&spec.attempt_id).to_vec();
        assert!(b"begin\nend\n".starts_with(&log) && ended.log_length == log.len() as u64, "{ended:?}");
        if what.is_empty() {
            let failure = ended.failure.unwrap();
            assert_eq!(failure.cause, "internal");
            assert!(failure.message.contains("directory on the executor was removed"), "{}", failure.message);
        } else {
            assert_eq!(ended.outcome(), Outcome::Completed);
        }
        host.controller.release(&spec.attempt_id);
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_not_there_is_not_taken_for_the_end_of_its_attempts() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let spec = host.shell(&format!("mkfifo '{0}'; echo begin; read line < '{0}'; echo $line", gate.display()));
    let agent = begun(&host, &spec).await;
    let Liveness::Present(status) = probe(&directory(&host, &spec)).await else { panic!("no shim") };
    // A shim that does not answer has to be looked for.
    status.shim.signal(Signal::STOP);
    let (attempts, away) = (host.data().join("attempts"), host.root.path().join("away"));
    fs::rename(&attempts, &away).unwrap();
    host.controller.want(&spec.attempt_id, Phase::Hold);
    wait_for("some looks", || host.log().matches("the directory of the attempts cannot be looked at").count() > 4)
        .await;
    fs::rename(&away, &attempts).unwrap();
    status.shim.signal(Signal::CONT);
    host.controller.want(&spec.attempt_id, Phase::Run);
    assert!(agent.is_alive());
    tokio::task::spawn_blocking(move || fs::write(gate, "goes on\n")).await.unwrap().unwrap();
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&spec.attempt_id), b"begin\ngoes on\n");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_the_shim_is_told_from_the_end_of_the_host() {
    let mut host = Host::new().await;
    host.start().await;
    let spec = host.shell("echo begin; exec sleep 600");
    let agent = begun(&host, &spec).await;
    let Liveness::Present(status) = probe(&directory(&host, &spec)).await else { panic!("no shim") };
    status.shim.signal(Signal::TERM);
    let failure = host.controller.wait_ended(&spec.attempt_id).await.failure.unwrap();
    assert!(failure.message.contains("somebody ended the process that watches the agent"), "{}", failure.message);
    assert!(!agent.is_alive());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_socket_is_removed_is_there_again_and_the_same() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let mut spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.02; done", gate.display()));
    spec.task.as_mut().unwrap().tty = true;
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the start", |memory| (memory.log(&id) == b"begin\r\n").then_some(())).await;
    let socket = PathBuf::from(host.controller.memory().tmux_socket(&id));
    let server = || {
        let mut tmux = std::process::Command::new("tmux");
        let asked = tmux.arg("-S").arg(&socket).args(["display-message", "-p", "#{pid}"]).output().unwrap();
        String::from_utf8(asked.stdout).unwrap().trim().parse::<u32>().ok().and_then(ProcessId::of)
    };
    let mut first = None;
    wait_for("the view", || {
        first = server();
        first.is_some()
    })
    .await;
    fs::remove_file(&socket).unwrap();
    wait_for("the socket", || server().is_some()).await;
    assert_eq!(server(), first, "who was attached stays attached");
    first.unwrap().signal(Signal::KILL);
    wait_for("another server", || server().is_some_and(|now| Some(now) != first)).await;
    fs::write(&gate, "").unwrap();
    host.controller.wait_ended(&id).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_for_a_while_is_whole_in_the_end() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let wait = format!("until [ -e '{}' ]; do sleep 0.02; done", gate.display());
    let specs = [(); 2].map(|()| host.shell(&format!("echo begin; {wait}; seq 2 20000")));
    for spec in &specs {
        begun(&host, spec).await;
    }
    host.controller.go_away().await;
    fs::write(&gate, "").unwrap();
    let ended = |spec: &AttemptSpec| {
        let journal = directory(&host, spec).join("journal");
        move || fs::read_to_string(&journal).unwrap().contains(r#""step":"ended""#)
    };
    for spec in &specs {
        wait_for("the last report", ended(spec)).await;
    }
    // One was moved, as what stands on a volume that is not there; of the other a segment cannot be read.
    let [moved, unread] = specs.each_ref().map(|spec| directory(&host, spec));
    let away = host.root.path().join("away");
    let segment = unread.join("spool/00000000000000000000.spool");
    fs::rename(&moved, &away).unwrap();
    fs::rename(&segment, host.root.path().join("segment")).unwrap();
    fs::create_dir(&segment).unwrap();
    host.controller.come_back().await;
    let told = |memory: &Memory| {
        let told =
            |spec: &AttemptSpec| memory.notes(&spec.attempt_id).iter().any(|note| note.contains("is tried again"));
        specs.iter().all(told).then_some(())
    };
    host.controller.wait("word that they cannot be read", told).await;
    fs::rename(&away, &moved).unwrap();
    fs::remove_dir(&segment).unwrap();
    fs::rename(host.root.path().join("segment"), &segment).unwrap();
    let expected: Vec<u8> =
        b"begin\n".iter().copied().chain((2..=20_000).flat_map(|n| format!("{n}\n").into_bytes())).collect();
    for spec in &specs {
        let whole = |memory: &Memory| (memory.log(&spec.attempt_id) == expected).then_some(());
        host.controller.wait("the whole log", whole).await;
    }
    host.stop();
}

//! Attempts from offer to end, with real shims, agents and git.

use std::{fs, time::Duration};

use sculpt_proto::{
    executor::v1::{Phase, ended::Outcome},
    v1::{OnLost, task_spec::Work},
};

use crate::{
    controller::Memory,
    git::{git, project},
    host::Host,
};

const STEPS: [&str; 5] = ["accepted", "preparing", "running", "finalizing", "ended"];

pub(crate) fn cause(ended: &sculpt_proto::executor::v1::Ended) -> (String, String) {
    let failure = ended.failure.clone().unwrap();
    (failure.cause, failure.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_every_byte_of_it_arrives() {
    let mut host = Host::with("keep_workspaces = '0s'", &[]).await;
    host.start().await;
    let spec = host.shell("seq 1 50000; printf 'no newline'");
    host.controller.offer(&spec);
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    let expected: String = (1..=50_000).map(|number| format!("{number}\n")).chain(["no newline".into()]).collect();
    assert_eq!(ended.log_length, expected.len() as u64);
    assert!(host.controller.memory().log(&spec.attempt_id) == expected.as_bytes());
    assert_eq!(host.controller.memory().steps(&spec.attempt_id), STEPS);
    host.controller.release(&spec.attempt_id);
    let workspace = host.workspace(&spec.attempt_id);
    wait_for("the workspace to be removed", || !workspace.exists()).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_published_whatever_the_exit_code_is() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"sub/a.txt", "one\n")]);
    host.start().await;
    let script = "echo two > a.txt && git commit -qam two && pwd && git log -1 --format='%an <%ae>' && exit 3";
    let mut spec = host.on_base(host.shell(script), &base);
    spec.task.as_mut().unwrap().subdirectory = b"sub".to_vec();
    host.controller.offer(&spec);
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
    let workspace = host.workspace(&spec.attempt_id);
    assert_eq!(log, format!("{}/sub\nAnn Example <ann@example.org>\n", workspace.display()));
    assert_eq!(cause(&ended), ("agent_exit".into(), "\"sh\" exited with code 3".into()));
    assert_eq!(ended.exit.unwrap().code, Some(3));
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:sub/a.txt", ended.head)]), "two");
    let header = host.controller.memory().published[&spec.attempt_id].clone();
    assert_eq!(header.from_branch, "sculpt/17-title");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_changes_are_committed_when_the_spec_says_so() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    for wish in [true, false] {
        let mut spec = host.on_base(host.shell("echo two > 'b c.txt'"), &base);
        spec.commit_changes = wish;
        host.controller.offer(&spec);
        let ended = host.controller.wait_ended(&spec.attempt_id).await;
        assert_eq!(ended.outcome(), Outcome::Completed);
        assert_eq!(!ended.head.is_empty(), wish);
        if wish {
            let repository = host.repositories().join("project.git");
            assert_eq!(git(&repository, &["show", &format!("{}:b c.txt", ended.head)]), "two");
        }
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_up_fails_with_its_cause() {
    let mut host = Host::with("[agents.robot]\ncommand = ['robot', '{prompt}']", &[]).await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let mut absent = host.spec(Work::Prompt("fix it".into()));
    absent.agent = "robto".into();
    let nameless = host.spec(Work::Prompt("fix it".into()));
    let mut long = host.spec(Work::Prompt("x".repeat(200 << 10)));
    long.agent = "robot".into();
    let mut long_on_a_terminal = host.spec(Work::Prompt("x".repeat(101 << 10)));
    long_on_a_terminal.agent = "robot".into();
    long_on_a_terminal.task.as_mut().unwrap().tty = true;
    let long_argument = host.shell(&"x".repeat(200 << 10));
    let mut missing = host.spec(Work::Prompt("fix it".into()));
    missing.agent = "robot".into();
    let unknown_base = host.on_base(host.shell("true"), &"1".repeat(base.len()));
    for (spec, expected, words) in [
        (absent, "setup", "no agent \"robto\"; it has: robot"),
        (nameless, "setup", "no default_agent; it has: robot"),
        (long, "setup", "give the agent prompt = \"stdin\" or prompt = \"file\""),
        (long_on_a_terminal, "setup", "give the agent prompt = \"stdin\" or prompt = \"file\""),
        (long_argument, "setup", "put what it says into a file"),
        (missing, "setup", "the agent could not be started: cannot run \"robot\""),
        (unknown_base, "workspace", "not our ref"),
    ] {
        host.controller.offer(&spec);
        let ended = host.controller.wait_ended(&spec.attempt_id).await;
        let (cause, message) = cause(&ended);
        assert_eq!(cause, expected, "{message}");
        assert!(message.contains(words), "{message}");
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_reaches_its_agent_whole_and_the_environment_is_clean() {
    let config = r#"
        default_agent = "stdin"
        agents.stdin.command = ["sh", "-c", "env; cat"]
        agents.stdin.prompt = "stdin"
        agents.file.command = ["cat", "{prompt_file}"]
        agents.file.prompt = "file"
        agents.argument.command = ["printf", "%s", "{prompt}"]
    "#;
    let mut host = Host::with(config, &[]).await;
    host.start().await;
    for (agent, length) in [("", 1 << 20), ("file", 1 << 20), ("argument", 90_000)] {
        let prompt = format!("'; {{prompt_file}} $HOME \n{}", "x".repeat(length));
        let mut spec = host.spec(Work::Prompt(prompt.clone()));
        spec.agent = agent.into();
        spec.task.as_mut().unwrap().env.insert("MINE".into(), "yes".into());
        host.controller.offer(&spec);
        host.controller.wait_ended(&spec.attempt_id).await;
        let log = String::from_utf8(host.controller.memory().log(&spec.attempt_id).to_vec()).unwrap();
        assert!(log.ends_with(&prompt), "{agent}");
        if agent.is_empty() {
            let has = |line: &str| log.lines().any(|it| it == line);
            assert!(has("MINE=yes") && has("SCULPT_TASK=17") && has(&format!("SCULPT_ATTEMPT={}", spec.attempt_id)));
            assert!(!log.contains("DATABASE_URL=") && !log.contains("SCULPT_EXECUTOR"), "{log:.2000}");
        }
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_executor_touches_no_agent() {
    let mut host = Host::new().await;
    let gate = host.root.path().join("gate");
    host.start().await;
    let spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.05; done; echo end", gate.display()));
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid = host.controller.wait("the start", |memory| memory.pid(&id)).await;
    for kill in [true, false, true] {
        if kill {
            host.kill()
        } else {
            host.stop()
        }
        host.start().await;
        let seen = host.controller.wait("the report", |memory| memory.observed.first().cloned()).await;
        assert_eq!((seen.attempt_id.as_str(), seen.ended), (id.as_str(), false));
        assert!(sculpt_executor::tree::ProcessId::of(pid).is_some(), "the agent lives");
    }
    host.kill();
    fs::write(&gate, "").unwrap();
    wait_for("the agent's end", || sculpt_executor::tree::ProcessId::of(pid).is_none()).await;
    host.start().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&id), b"begin\nend\n");
    assert_eq!(host.controller.memory().steps(&id), STEPS);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_away_gets_everything_once() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let gate = host.root.path().join("gate");
    let script = format!(
        "echo 1; until [ -e '{}' ]; do sleep 0.05; done; seq 2 20000; echo x > x && git add x && git commit -qm x",
        gate.display()
    );
    let spec = host.on_base(host.shell(&script), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid = host.controller.wait("the start", |memory| memory.pid(&id).filter(|_| memory.log(&id) == b"1\n")).await;
    host.controller.go_away().await;
    fs::write(&gate, "").unwrap();
    wait_for("the agent's end", || sculpt_executor::tree::ProcessId::of(pid).is_none()).await;
    host.controller.memory().refuse_publications = 2;
    host.controller.come_back().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert!(!ended.head.is_empty());
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(host.controller.memory().log(&id) == expected.as_bytes());
    host.stop();
}

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
    let end = async {
        loop {
            match sculpt_executor::shim::exit_record(&attempt).unwrap() {
                Some(record) => return record,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(60), end).await.unwrap();
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
async fn a_terminal_attempt_has_its_view() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let mut spec =
        host.shell(&format!("stty size; echo $TERM; until [ -e '{}' ]; do sleep 0.05; done", gate.display()));
    spec.task.as_mut().unwrap().tty = true;
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the log", |memory| (memory.log(&id) == b"50 200\r\nxterm-256color\r\n").then_some(())).await;
    let socket = host.data().join("run").join(&id).join("view/tmux");
    wait_for("the view", || socket.exists()).await;
    fs::write(&gate, "").unwrap();
    host.controller.wait_ended(&id).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_200_characters_has_its_sockets_elsewhere() {
    let mut host = Host::new().await;
    host.deep = "d".repeat(200);
    host.start().await;
    let gate = host.root.path().join("gate");
    let mut spec = host.shell(&format!("echo begin; until [ -e '{}' ]; do sleep 0.05; done", gate.display()));
    spec.task.as_mut().unwrap().tty = true;
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the log", |memory| (memory.log(&id) == b"begin\r\n").then_some(())).await;
    let socket = host.controller.memory().tmux_socket(&id);
    assert!(socket.len() <= 107 && socket.starts_with(host.root.path().to_str().unwrap()), "{socket}");
    wait_for("the view", || fs::exists(&socket).unwrap()).await;
    fs::write(&gate, "").unwrap();
    host.controller.wait_ended(&id).await;
    host.controller.release(&id);
    wait_for("the sockets to be removed", || !fs::exists(&socket).unwrap()).await;
    host.stop();
    assert!(!host.root.path().join("sculpt").exists(), "nothing is left");
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
async fn a_reboot_interrupts_an_attempt_and_its_log_is_whole() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let spec =
        host.on_base(host.shell("echo x > x && git add x && git commit -qm x; echo begin; exec sleep 600"), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the log", |memory| (memory.log(&id) == b"begin\n").then_some(())).await;
    host.kill();
    kill_shim(&host, &id).await;
    // As if all that is on disk were from an earlier boot.
    let journal = host.data().join("attempts").join(&id).join("journal");
    let boot = sculpt_executor::host::boot_id().unwrap();
    let earlier: String = fs::read_to_string(&journal).unwrap().lines().fold(String::new(), |all, line| {
        let json = line.split_once(' ').unwrap().1.replace(&boot, "00000000-0000-4000-8000-000000000000");
        format!("{all}{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
    });
    fs::write(&journal, earlier).unwrap();
    host.start().await;
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(
        cause(&ended),
        ("interrupted".into(), "the host was rebooted while the agent ran; retry the task".into())
    );
    assert_eq!((ended.log_length, host.controller.memory().log(&id)), (6, b"begin\n".as_slice()));
    assert!(!ended.head.is_empty(), "what was committed is published");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_blocks_the_agent_and_the_end_is_told_all_the_same() {
    let mut host = Host::new().await;
    fs::create_dir(host.data()).unwrap();
    let Some(_disk) = crate::disk::Disk::mount(&host.data(), 8 << 20) else { return };
    host.start().await;
    let spec = host.shell("trap '' INT TERM; head -c 50000000 /dev/zero; sleep 600");
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the log", |memory| (memory.log(&id).len() > 1 << 20).then_some(())).await;
    let attempt = host.data().join("attempts").join(&id);
    let mut blocked = None;
    while blocked.is_none() {
        if let sculpt_executor::shim::Liveness::Present(status) = sculpt_executor::shim::probe(&attempt).await {
            blocked = status.blocked;
        }
    }
    assert!(blocked.unwrap().contains("the log cannot be written"));
    let _filled = fs::write(host.data().join("filler"), vec![0; 8 << 20]);
    assert!(fs::write(host.data().join("more"), [0; 4096]).is_err(), "the disk is full");
    host.controller.want(&id, Phase::Stop);
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Cancelled);
    let record = sculpt_executor::shim::exit_record(&attempt).unwrap().unwrap();
    assert_eq!(record.log_length, ended.log_length);
    assert_eq!(host.controller.memory().log(&id).len() as u64, ended.log_length);
    assert_eq!(host.controller.memory().steps(&id), STEPS);
    host.stop();
}

/// Ends an attempt's shim as nothing but a crash does, and waits until it is gone.
async fn kill_shim(host: &Host, id: &str) {
    let shim = match sculpt_executor::shim::probe(&host.data().join("attempts").join(id)).await {
        sculpt_executor::shim::Liveness::Present(status) => status.shim,
        other => panic!("no shim: {other:?}"),
    };
    shim.signal(rustix::process::Signal::KILL);
    wait_for("the shim's end", || !shim.is_alive()).await;
}

/// Awaits something that no signal tells of.
pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "waited in vain for {what}");
}

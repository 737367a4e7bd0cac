//! Attempts from offer to end, with real shims, agents and git.

use std::{fs, process::Command, time::Duration};

use sculpt_proto::{executor::v1::ended::Outcome, v1::task_spec::Work};

use crate::{
    git::{git, project},
    host::Host,
};

pub(crate) const STEPS: [&str; 5] = ["accepted", "preparing", "running", "finalizing", "ended"];

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
async fn the_log_tells_which_size_its_bytes_were_written_in() {
    let mut host = Host::new().await;
    host.start().await;
    let gate = host.root.path().join("gate");
    let script = "trap 'stty size' WINCH; stty size; until [ -e GATE ]; do sleep 0.05; done; printf end";
    let mut spec = host.shell(&script.replace("GATE", gate.to_str().unwrap()));
    spec.task.as_mut().unwrap().tty = true;
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let grown =
        async |log: &[u8]| host.controller.wait("the log", |memory| (memory.log(&id) == log).then_some(())).await;
    grown(b"50 200\r\n").await;
    let socket = host.data().join("run").join(&id).join("view/tmux");
    wait_for("the view", || socket.exists()).await;
    let tmux = |words: &[&str]| Command::new("tmux").arg("-S").arg(&socket).args(words).status().unwrap().success();
    assert!(tmux(&["resize-window", "-t", "main", "-x", "90", "-y", "30"]));
    grown(b"50 200\r\n30 90\r\n").await;
    fs::write(&gate, "").unwrap();
    host.controller.wait_ended(&id).await;
    grown(b"50 200\r\n30 90\r\nend").await;
    let mut at = 0;
    let mut sizes = Vec::new();
    for frame in &host.controller.memory().frames[&id] {
        sizes.extend(frame.size.map(|size| (at, size.columns, size.rows)));
        at += frame.length;
    }
    assert_eq!(sizes, [(0, 200, 50), (8, 90, 30)]);
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

/// Awaits something that no signal tells of.
pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "waited in vain for {what}");
}

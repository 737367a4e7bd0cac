//! Sitting beside an agent, as far as it is decided on the person's machine: with OpenSSH's own reading of what it is told.

pub(crate) mod desk;
mod ends;
mod recap;
mod settings;
mod way;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use sculpt_pairing::Right;
use sculpt_proto::v1::{Attempt, PairingProfile, PairingSession, Task, TaskSpec, TaskState, Waiting};
use tonic::Status;

use self::desk::ATTEMPT;
use crate::{
    controller::Controller,
    sandbox::{Ran, Sandbox, fed, run},
};

/// Task 17, whose agent is there.
fn running() -> Task {
    let attempt = Attempt { uuid: ATTEMPT.into(), number: 1, state: "running".into(), ..Attempt::default() };
    Task {
        uuid: "0198c0de-0000-7000-8000-000000000017".into(),
        number: 17,
        state: TaskState::Running.into(),
        spec: Some(TaskSpec { tty: true, ..TaskSpec::default() }),
        attempts: vec![attempt],
        live: true,
        ..Task::default()
    }
}

async fn sculpt(sandbox: &Sandbox, args: &[&str]) -> Ran {
    run(sandbox.sculpt(&sandbox.path("home"), args)).await
}

/// Puts a script of a shell's own words in the place of a program; the directory that holds it.
fn tool(sandbox: &Sandbox, name: &str, script: &str) -> PathBuf {
    let tools = sandbox.path("tools");
    fs::create_dir_all(&tools).unwrap();
    let tool = tools.join(name);
    fs::write(&tool, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).unwrap();
    tools
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_sit_down_learns_why() {
    let (sandbox, controller) = Controller::known(running()).await;
    let set = |state: TaskState, attempt: &str, tty: bool| {
        let mut task = running();
        task.state = state.into();
        task.live = attempt == "running";
        task.attempts[0].state = attempt.to_owned();
        task.spec = Some(TaskSpec { tty, ..TaskSpec::default() });
        if state == TaskState::Queued {
            task.attempts.clear();
            task.waiting = Some(Waiting { text: "all slots are taken".into(), ..Waiting::default() });
        }
        controller.script.task.send_replace(task);
    };
    set(TaskState::Running, "running", false);
    for verb in ["pair", "attach", "connect"] {
        sculpt(&sandbox, &[verb, "17"]).await.refuses(7, &["--no-tty", "sculpt logs 17"]);
    }
    set(TaskState::Completed, "ended", true);
    sculpt(&sandbox, &["pair", "17"]).await.refuses(7, &["completed", "sculpt logs 17"]);
    sculpt(&sandbox, &["ssh", "17"]).await.refuses(7, &["completed", "sculpt logs 17"]);
    set(TaskState::Queued, "", true);
    sculpt(&sandbox, &["pair", "17", "--print"]).await.refuses(7, &["all slots are taken"]);
    sculpt(&sandbox, &["cp", "17:a", "b"]).await.refuses(7, &["all slots are taken"]);
    set(TaskState::Running, "running", true);
    sculpt(&sandbox, &["pair", "17"]).await.refuses(64, &["not a terminal"]);
    sculpt(&sandbox, &["pair", "99"]).await.refuses(6, &["task 99"]);
    assert_eq!(controller.script.desk.opened.lock().unwrap().len(), 0, "nothing was asked for in vain");
    *controller.script.desk.refusal.lock().unwrap() = Some(Status::permission_denied("You may not."));
    sculpt(&sandbox, &["pair", "17", "--print"]).await.refuses(77, &["You may not"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_is_told_all_that_it_needs() {
    let (sandbox, controller) = Controller::known(running()).await;
    let printed = sculpt(&sandbox, &["pair", "17", "--read-only", "--print", "-o", "json"]).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let details: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(details["session"], "sculpt-attach --read-only");
    assert_eq!(details["user"], format!("attempt-{ATTEMPT}"));
    assert_eq!(details["route"], "tunnel");
    assert!(details["fingerprints"][0].as_str().unwrap().starts_with("SHA256:"), "{details}");
    assert!(details["expires_at"].is_string());
    let command = details["command"].as_array().unwrap();
    assert!(command[0] == "ssh" && command.last() == Some(&details["session"]), "{details}");
    let opened = controller.script.desk.opened.lock().unwrap()[0].clone();
    assert_eq!((opened.task, opened.profile), (running().uuid, PairingProfile::Observe.into()));

    let key = Path::new(details["identity_file"].as_str().unwrap());
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(key.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let mut shows = sandbox.command("ssh-keygen", key.parent().unwrap());
    shows.args(["-L", "-f", details["certificate_file"].as_str().unwrap()]);
    let certificate = run(shows).await;
    assert!(certificate.stdout.contains(&format!("attempt-{ATTEMPT}")), "{}{}", certificate.stdout, certificate.stderr);

    sculpt(&sandbox, &["pair", "17", "--print", "--via", "direct"]).await.refuses(7, &["no port of its own"]);
    let text = sculpt(&sandbox, &["pair", "17", "--print"]).await;
    assert!(text.stdout.contains("/workspace.conf "), "{}", text.stdout);
    // Who names a way does not turn plain ssh to it.
    let tunnelled = sculpt(&sandbox, &["pair", "17", "--print", "--via", "tunnel"]).await;
    assert!(tunnelled.stdout.contains("/workspace-tunnel.conf "), "{}", tunnelled.stdout);
    assert!(text.stdout.starts_with("ssh -F /") && text.stdout.contains("SHA256:"), "{}", text.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let (sandbox, controller) = Controller::known(running()).await;
    let through = async |input: Vec<u8>| {
        let command = sandbox.sculpt(&sandbox.path("home"), &["tunnel", "17"]);
        tokio::task::spawn_blocking(move || fed(command, &input)).await.unwrap()
    };
    let many = "some words ".repeat(100_000);
    let done = through(many.clone().into_bytes()).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout == many.to_uppercase() + "BYE", "{} bytes came back", done.stdout.len());

    *controller.script.desk.cut.lock().unwrap() = Some(Status::unavailable("The executor is away."));
    let cut = through(b"x".to_vec()).await;
    assert_eq!((cut.code, cut.stdout.as_str()), (69, "X"));
    assert_eq!(
        cut.stderr.lines().collect::<Vec<_>>(),
        ["sculpt: cannot reach the executor of task 17: The executor is away"]
    );
}

/// Before ssh is run, and with the role to ask for.
#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_a_right_learns_it_at_once() {
    let mut task = running();
    task.project = "web".into();
    let (sandbox, controller) = Controller::known(task).await;
    let deny = |rights: &[Right]| *controller.script.desk.denied.lock().unwrap() = rights.to_vec();
    deny(&[Right::Shell, Right::Drive]);
    for (args, words) in [
        (&["ssh", "17", "--", "id"][..], "role shell in project web"),
        (&["cp", "17:a", "b"], "role shell in project web"),
        (&["pair", "17", "--print"], "sculpt pair --read-only"),
    ] {
        sculpt_alone(&sandbox, args).await.refuses(77, &[words, "sculpt whoami"]);
    }
    let opened = controller.script.desk.opened.lock().unwrap().len();
    assert_eq!(opened, 1, "who tries again at once opens nothing more");
    // Another task's pairing is asked for by itself.
    let mut other = running();
    (other.uuid, other.number) = ("0198c0de-0000-7000-8000-000000000018".into(), 18);
    controller.script.task.send_replace(other);
    deny(&[Right::Forward]);
    sculpt_alone(&sandbox, &["ssh", "18"]).await.refuses(1, &["openssh-client"]);
    sculpt_alone(&sandbox, &["port-forward", "18", "0:3000"]).await.refuses(77, &["role forwarder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_type_sits_down_all_the_same() {
    let (sandbox, controller) = Controller::known(running()).await;
    let details = async || {
        let printed = sculpt(&sandbox, &["pair", "17", "--print", "-o", "json"]).await;
        let details: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
        details["rights"].clone()
    };
    assert_eq!(details().await, serde_json::json!(["observe", "drive", "shell", "forward"]));
    // Whose role is another one since has another token as well.
    fs::remove_dir_all(sandbox.path("home/.local/state")).unwrap();
    *controller.script.desk.denied.lock().unwrap() = vec![Right::Shell, Right::Forward];
    assert_eq!(details().await, serde_json::json!(["observe", "drive"]));
    sculpt(&sandbox, &["ssh", "17"]).await.refuses(77, &["work in its workspace"]);
}

/// What fails as soon as it is let in is not tried for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_stands_is_given_up() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let count = sandbox.path("count");
    let tools = tool(
        &sandbox,
        "ssh",
        &format!("echo x >> {}\necho sculpt-is-in >&2\necho no disk >&2\nexit 255\n", count.display()),
    );
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["port-forward", "17", "0:3000"]);
    command.env("PATH", &tools);
    let done = run(command).await;
    assert_eq!(done.code, 69, "{}", done.stderr);
    assert!(done.stderr.contains("no disk") && done.stderr.contains("sculpt show 17"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 4);
}

/// A controller that has looked is not asked again for seconds.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_away_is_told_of_at_once() {
    let (sandbox, controller) = Controller::known(running()).await;
    let mut away = Status::unavailable("Executor build7 of task 17 has not been heard of for a while.");
    away.metadata_mut().insert("sculpt-reason", "unreachable".parse().unwrap());
    *controller.script.desk.refusal.lock().unwrap() = Some(away);
    sculpt(&sandbox, &["ssh", "17"]).await.refuses(69, &["Executor build7", "sculpt doctor"]);
    assert_eq!(controller.script.desk.asked.load(Ordering::SeqCst), 1);
}

/// What was taken back is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_is_kept_until_it_opens_nothing() {
    let (sandbox, controller) = Controller::known(running()).await;
    let opened = || controller.script.desk.opened.lock().unwrap().len();
    for _ in 0..2 {
        assert_eq!(sculpt(&sandbox, &["tunnel", "17"]).await.code, 0);
    }
    assert_eq!(opened(), 1);
    *controller.script.desk.closed.lock().unwrap() = Some(Status::failed_precondition("It was taken back."));
    sculpt(&sandbox, &["tunnel", "17"]).await.refuses(7, &["taken back"]);
    *controller.script.desk.closed.lock().unwrap() = None;
    assert_eq!((sculpt(&sandbox, &["tunnel", "17"]).await.code, opened()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_does_the_rest_and_its_exit_code_is_ours() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let home = sandbox.path("home");
    sculpt_alone(&sandbox, &["ssh", "17"]).await.refuses(1, &["ssh cannot be run", "openssh-client"]);
    sculpt_alone(&sandbox, &["cp", "17:a", "b"]).await.refuses(1, &["scp cannot be run", "openssh-client"]);

    // The programs that are meant to be run say what they were given.
    for name in ["ssh", "scp"] {
        tool(&sandbox, name, &format!("shift 2\nprintf '%s|' {name} \"$SHELL\" \"$@\"\nexit 42\n"));
    }
    let tools = sandbox.path("tools");
    fs::write(home.join("-"), "").unwrap();
    for (args, given) in [
        (&["ssh", "17"][..], "ssh|/bin/sh|-o|LogLevel=ERROR|-T|--|sculpt.17|"),
        (&["ssh", "17", "-t", "--", "ls", "-l", "a b"], "ssh|/bin/sh|-o|LogLevel=ERROR|-t|--|sculpt.17|ls -l 'a b'|"),
        (&["cp", "17:-x", "x:y"], "scp|/bin/sh|-s|-r|--|sculpt.17:-x|./x:y|"),
        (&["cp", "-", "17:"], "scp|/bin/sh|-s|-r|--|./-|sculpt.17:.|"),
    ] {
        let mut command = sandbox.sculpt(&home, args);
        command.env("PATH", &tools).env("SHELL", "/usr/sbin/nologin");
        let done = run(command).await;
        assert_eq!((done.code, done.stdout.as_str()), (42, given), "{}", done.stderr);
    }
    sculpt(&sandbox, &["cp", "a", "b"]).await.refuses(64, &["neither side"]);
    sculpt(&sandbox, &["cp", "17:../evil", "b"]).await.refuses(64, &["outside of its workspace", "sculpt ssh 17"]);
    sculpt(&sandbox, &["cp", "nothing", "17:"]).await.refuses(64, &["nothing: No such file"]);
    for args in
        [&["ssh", "17"][..], &["cp", "17:a", "b"], &["config-ssh"], &["port-forward", "17", "80"], &["pair", "17"]]
    {
        sculpt(&sandbox, &[args, &["-o", "json"]].concat()).await.refuses(2, &["-o json"]);
    }
}

async fn sculpt_alone(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let mut command = sandbox.sculpt(&sandbox.path("home"), args);
    command.env("PATH", sandbox.path("nowhere"));
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_first() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let words = [format!("port {port}"), "0:3000".to_owned()];
    sculpt(&sandbox, &["port-forward", "17", &format!("{port}:3000")]).await.refuses(7, &[&words[0], &words[1]]);
    sculpt(&sandbox, &["port-forward", "17", "0"]).await.refuses(2, &["8080:3000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_who_sits_there() {
    let mut task = running();
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let session = |user: &str, role: &str, typed_at| PairingSession {
        user: user.into(),
        role: role.into(),
        since: at(1_700_000_000),
        typed_at,
        ..PairingSession::default()
    };
    task.attempts[0].attached =
        vec![session("ada", "driver", at(1_700_000_001)), session("ben\u{1b}", "observer", None)];
    let (sandbox, _controller) = Controller::known(task).await;
    let shown = sculpt(&sandbox, &["show", "17"]).await.stdout;
    assert!(
        shown.contains("ada (driver) for ") && shown.contains(", typed ") && shown.contains("ben  (observer)"),
        "{shown}"
    );
    let json = sculpt(&sandbox, &["show", "17", "-o", "json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "user": "ada", "role": "driver", "since": "2023-11-14T22:13:20.000000Z", "typed_at": "2023-11-14T22:13:21.000000Z"
    });
    assert_eq!((&json["attached"][0], &json["attached"][1]["typed_at"]), (&expected, &serde_json::Value::Null));
}

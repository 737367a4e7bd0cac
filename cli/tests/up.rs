//! `sculpt up` with parts of our own making: what it does with their starts, deaths and ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use sculpt_proto::v1::Task;

use crate::{
    authority::{Authority, bundle},
    controller::Controller,
    executors::JOIN_SECRET,
    sandbox::{Sandbox, ran, stray_token},
};

/// A folder with the real `sculpt` and scripts in place of the parts.
fn installation(sandbox: &Sandbox, controller: &str, executor: &str) -> PathBuf {
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    copy(Path::new(env!("CARGO_BIN_EXE_sculpt")), &bin.join("sculpt"));
    for (name, script) in [("controller", controller), ("executor", executor)] {
        let source = sandbox.path(name);
        fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();
        copy(&source, &bin.join(format!("sculpt-{name}")));
    }
    bin
}

/// By another process: a file that this one wrote may still be open in a child that another test is just forking, and
/// is then too busy to be run.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Says that it is ready on the addresses it was given, and lives as long as its lifeline.
const CONTROLLER: &str = r#"echo "controller starts: database=${DATABASE_URL:-none}" >&2
mkdir -p "$3/tokens"; (umask 077; echo "$USER_TOKEN" > "$3/tokens/user")
echo "{\"ready\":true,\"user_url\":\"${USER_URL:-https://$5}\",\"executor_url\":\"https://$7\",\"cluster_id\":\"c\",\"postgres\":\"15.8 (built-in)\"}"
cat > /dev/null"#;
/// Writes down with what it was asked to join, and lives as long as its lifeline.
const JOINING: &str = r#"if [ "$1" = join ]; then echo "$@" > "$6.joined"; cat >> "$6.joined"; exit; fi
echo '{"ready":true,"executor_id":"e","name":"worker"}'; cat > /dev/null"#;
const EXECUTOR: &str =
    r#"echo $$ >> "$3.pids"; echo '{"ready":true,"executor_id":"e","name":"worker"}'; cat > /dev/null"#;

/// A data directory whose executor has joined before.
fn joined(sandbox: &Sandbox, name: &str) -> PathBuf {
    let data = sandbox.path(name);
    let identity = data.join("executor/identity");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&identity).unwrap();
    fs::write(identity.join("certificate.pem"), "").unwrap();
    data
}

/// A running `sculpt up`, ended with the test.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn up(sandbox: &Sandbox, bin: &Path, data: &Path) -> Command {
    let mut command = sandbox.command(bin.join("sculpt"), &sandbox.path("home"));
    command.arg("up").arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0"]);
    command.env("DATABASE_URL", "postgres://elsewhere").env("USER_TOKEN", stray_token());
    command
}

fn started(mut command: Command) -> (Up, String) {
    let mut up = Up(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (up, line)
}

fn end(mut up: Up) -> i32 {
    kill_process(Pid::from_child(&up.0), Signal::INT).unwrap();
    up.0.wait().unwrap().code().unwrap()
}

#[test]
fn it_is_ready_writes_the_context_and_ends() {
    let sandbox = Sandbox::new();
    let bin = installation(&sandbox, CONTROLLER, EXECUTOR);
    let data = joined(&sandbox, &"d".repeat(200));
    let (first, line) = started(up(&sandbox, &bin, &data));
    assert!(line.starts_with("ready https://127.0.0.1:"), "{line}");
    let url = line.split(' ').nth(1).unwrap().to_owned();
    let config = fs::read_to_string(sandbox.path("home/.config/sculpt/config.toml")).unwrap();
    assert!(config.contains(&url) && config.contains("tokens/user"), "{config}");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let log = fs::read_to_string(data.join("logs/controller.log")).unwrap();
    assert_eq!(log, "controller starts: database=none\n");

    let pid = first.0.id().to_string();
    ran(up(&sandbox, &bin, &data)).refuses(7, &[&pid, "--data-dir"]);
    assert_eq!(end(first), 0);

    // The same address again, because git remotes remember it.
    let (second, again) = started(up(&sandbox, &bin, &data));
    assert_eq!(again, line);
    assert_eq!(end(second), 0);
}

#[test]
fn a_second_installation_takes_nothing_from_one_that_runs() {
    let sandbox = Sandbox::new();
    let bin = installation(&sandbox, CONTROLLER, EXECUTOR);
    let config = || fs::read_to_string(sandbox.path("home/.config/sculpt/config.toml")).unwrap();
    let (first, _) = started(up(&sandbox, &bin, &joined(&sandbox, "one")));
    let (mut second, line) = started(up(&sandbox, &bin, &joined(&sandbox, "two")));
    let url = line.split(' ').nth(1).unwrap();
    assert!(config().contains("current = \"local\"") && config().contains("[contexts.two]"), "{}", config());
    assert!(config().contains(url), "{}", config());
    let mut stderr = BufReader::new(second.0.stderr.take().unwrap()).lines();
    let mut says = |word: &str| assert!(stderr.by_ref().map(Result::unwrap).any(|line| line.contains(word)), "{word}");
    says("talks to the context local");
    says("export SCULPT_CONTEXT=two; sculpt run");
    assert_eq!(end(second), 0);
    assert_eq!(end(first), 0);

    // Nobody runs: the one that starts now is the one that is meant, and named when it has ended.
    let (third, _) = started(up(&sandbox, &bin, &joined(&sandbox, "two")));
    assert!(config().contains("current = \"two\""), "{}", config());
    assert_eq!(end(third), 0);
    let home = sandbox.path("home");
    let data = sandbox.path("two");
    ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &[&format!("sculpt up --data-dir {}", data.display())]);
    let mut elsewhere = sandbox.sculpt(&home, &["ls"]);
    elsewhere.env("SCULPT_URL", "https://127.0.0.1:1");
    ran(elsewhere).refuses(69, &["unset SCULPT_URL"]);
}

#[test]
fn a_part_that_cannot_start_shows_the_end_of_its_log() {
    let sandbox = Sandbox::new();
    let bin = installation(&sandbox, "echo 'Postgres is missing: apt install postgresql' >&2; exit 1", EXECUTOR);
    ran(up(&sandbox, &bin, &sandbox.path("data")))
        .refuses(1, &["start the controller", "apt install postgresql", "controller.log"]);
    // Only what this start has said.
    let again = ran(up(&sandbox, &bin, &sandbox.path("data"))).stderr;
    assert_eq!(again.matches("apt install postgresql").count(), 1, "{again}");
    fs::remove_file(bin.join("sculpt-controller")).unwrap();
    ran(up(&sandbox, &bin, &sandbox.path("data"))).refuses(1, &["put sculpt-controller beside `sculpt`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_executor_joins_once_and_anew_when_it_knows_the_authority_no_more() {
    let sandbox = Sandbox::new();
    let bin = installation(&sandbox, CONTROLLER, JOINING);
    let controller = Controller::start(&sandbox.path("store.git"), Task::default()).await;
    let data = sandbox.path("data");
    let joins = async || {
        let mut command = up(&sandbox, &bin, &data);
        command.env("USER_TOKEN", &controller.script.token).env("USER_URL", controller.url());
        let exit = tokio::task::spawn_blocking(|| {
            let (running, line) = started(command);
            assert!(line.starts_with("ready https://127.0.0.1:"), "{line}");
            end(running)
        });
        assert_eq!(exit.await.unwrap(), 0);
        let said = data.join("executor.joined");
        let joined = fs::read_to_string(&said).ok();
        if joined.is_some() {
            fs::remove_file(said).unwrap();
        }
        joined
    };
    // The token comes from standard input: arguments can be read by everybody.
    let joined = joins().await.expect("it joins");
    let (args, token) = joined.split_once('\n').unwrap();
    assert!(
        args.starts_with("join https://") && args.contains("--token-file - ") && !args.contains("--again"),
        "{args}"
    );
    assert_eq!(token, JOIN_SECRET);
    let request = controller.script.book.pages().join_tokens[0].clone();
    assert_eq!((request.uses, request.ttl.is_some()), (1, true));

    let identity = data.join("executor/identity");
    fs::create_dir_all(&identity).unwrap();
    fs::write(identity.join("certificate.pem"), "").unwrap();
    fs::write(identity.join("trust.pem"), bundle(&[&controller.authority])).unwrap();
    assert_eq!(joins().await, None);
    fs::write(identity.join("trust.pem"), bundle(&[&Authority::fresh()])).unwrap();
    assert!(joins().await.is_some_and(|joined| joined.contains("--again")));
}

#[test]
fn a_part_that_dies_is_started_again() {
    let sandbox = Sandbox::new();
    let bin = installation(&sandbox, CONTROLLER, EXECUTOR);
    let data = joined(&sandbox, "data");
    let (mut running, _) = started(up(&sandbox, &bin, &data));
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let mut says = |word: &str| {
        let found = stderr.by_ref().map(Result::unwrap).any(|line| line.contains(word));
        assert!(found, "{word:?} was not said");
    };
    let pids = || fs::read_to_string(data.join("executor.pids")).unwrap();
    let pid: i32 = pids().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    says("keep the executor running");
    says("the executor is back");
    assert_eq!(end(running), 0);
}

//! Several executors on one host, and one that nothing else looks after.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{Child, Command},
};

use rustix::process::{Pid, Signal, kill_process};
use sculpt_executor::tree::ProcessId;
use sculpt_proto::executor::v1::ended::Outcome;

use crate::{host::Host, life::wait_for};

const NOBODY: u32 = 65_534;

/// Executors of one account, with its one directory for sockets; an ordinary account where there can be another.
async fn of_one_account(count: usize) -> (tempfile::TempDir, Vec<Host>) {
    let shared = tempfile::Builder::new().prefix("sculpt-x").tempdir().unwrap();
    let root = sculpt_executor::host::is_root();
    let mut hosts = Vec::new();
    for _ in 0..count {
        let mut host = Host::new().await;
        for variable in ["XDG_RUNTIME_DIR", "HOME"] {
            host.environment.push((variable, shared.path().into()));
        }
        if root {
            host.via.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
            chown(host.root.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        hosts.push(host);
    }
    if root {
        chown(shared.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    (shared, hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_executors_of_one_account_keep_apart() {
    let (_shared, mut hosts) = of_one_account(10).await;
    let mut specs = Vec::new();
    for (number, host) in hosts.iter_mut().enumerate() {
        host.start().await;
        let gate = host.root.path().join("gate");
        let script = format!("echo {number}; until [ -e '{}' ]; do sleep 0.05; done; id -u", gate.display());
        let mut spec = host.shell(&script);
        spec.task.as_mut().unwrap().tty = true;
        host.controller.offer(&spec);
        specs.push(spec);
    }
    for (host, spec) in hosts.iter().zip(&specs) {
        host.controller.wait("the agent", |memory| memory.pid(&spec.attempt_id)).await;
    }
    // One that comes and goes disturbs no other.
    hosts[0].kill();
    hosts[0].start().await;
    hosts[1].stop();
    hosts[1].start().await;
    let uid = if sculpt_executor::host::is_root() { NOBODY } else { rustix::process::getuid().as_raw() };
    for (number, (host, spec)) in hosts.iter().zip(&specs).enumerate() {
        fs::write(host.root.path().join("gate"), "").unwrap();
        assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Completed);
        let memory = host.controller.memory();
        let log = String::from_utf8_lossy(memory.log(&spec.attempt_id)).into_owned();
        assert_eq!(log, format!("{number}\r\n{uid}\r\n"));
        assert_eq!(memory.reports.len(), 1, "its own attempt alone");
        assert_eq!(memory.hellos.len(), if number < 2 { 2 } else { 1 });
    }
    for host in &mut hosts {
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_the_foreground_needs_no_service_manager() {
    let mut host = Host::new().await;
    let absent = ["XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "INVOCATION_ID", "DBUS_SESSION_BUS_ADDRESS"];
    host.via.push("env");
    host.via.extend(absent.iter().flat_map(|variable| ["-u", *variable]));
    host.start().await;
    let spec = host.shell("echo begin; exec sleep 600");
    host.controller.offer(&spec);
    let pid = host.controller.wait("the agent", |memory| memory.pid(&spec.attempt_id)).await;
    // As a supervisor ends it: by a signal, and with a look at the exit code.
    host.stop();
    assert!(ProcessId::of(pid).is_some(), "the agent lives");
    host.start().await;
    host.controller.want(&spec.attempt_id, sculpt_proto::executor::v1::Phase::Stop);
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Cancelled);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_of_a_container_leaves_no_zombies_and_ends_when_it_is_told() {
    if !sculpt_executor::host::is_root() {
        return;
    }
    let mut host = Host::new().await;
    host.join();
    host.via.extend(["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]);
    host.start().await;
    let first = first_of(host.executor.as_ref().unwrap());
    let mut spec = host.shell("echo x");
    spec.task.as_mut().unwrap().tty = true;
    host.controller.offer(&spec);
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Completed);
    host.controller.release(&spec.attempt_id);
    // The executor alone is left: shim and tmux have ended, and nobody else waits for what they leave.
    wait_for("all others to be gone", || children(first).len() == 1).await;
    let executor = children(first)[0];
    let first_name = first.to_string();
    let orphan = ["--target", &first_name, "--pid", "--mount", "sh", "-c", "sleep 4242 > /dev/null 2>&1 &"];
    assert!(Command::new("nsenter").args(orphan).status().unwrap().success());
    let adopted = || children(first).into_iter().find(|pid| *pid != executor);
    wait_for("it to have an orphan", || adopted().is_some()).await;
    let orphan = i32::try_from(adopted().unwrap()).unwrap();
    kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL).unwrap();
    wait_for("nothing to be left of it", || adopted().is_none()).await;
    kill_process(Pid::from_raw(i32::try_from(first).unwrap()).unwrap(), Signal::TERM).unwrap();
    let status = host.executor.take().unwrap().wait().unwrap();
    assert!(status.success(), "{status}: {}", host.log());
    assert!(!Path::new(&format!("/proc/{executor}")).exists());
    assert!(host.log().contains("the executor ends; agents go on"), "it was told, and not cut off");
}

/// The only child of this process.
fn first_of(child: &Child) -> u32 {
    let children = children(child.id());
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// Living or not.
fn children(of: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

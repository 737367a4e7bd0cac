//! What is around a separated attempt: a network that is closed, and programs that an agent's environment does not rule.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sculpt_proto::executor::v1::{AttemptSpec, Confinement, confinement::Network, ended::Outcome};

use crate::{
    git::{git, project},
    go_on::{again, run, take},
    host::{Account, Host},
    life::wait_for,
};

/// An account cannot pass through the stores, and does not have to.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_network_works_on_a_repository_and_so_does_the_one_after_it() {
    let Some(mut host) = Host::separated("").await else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    if !host.controller.memory().hellos.last().unwrap().closes_network {
        return;
    }
    let closed = Confinement { network: Network::None.into(), ..Confinement::default() };
    let script =
        "id -un; git log --format=%s; cat a.txt; echo two > a.txt && git commit -qam two && ls /sys/class/net; exit 1";
    let mut first = host.on_base(host.shell(script), &base);
    first.confinement = Some(closed);
    let (_, log) = run(&host, &first).await;
    let (name, rest) = log.split_once('\n').unwrap();
    let before = Account(name.to_owned());
    assert_eq!(rest.lines().take(2).collect::<Vec<_>>(), ["base", "one"], "{log}");
    let holder = take(&host, &first, &before).await;

    let script = "id -un; git log --format=%s; git status --porcelain; git cat-file -p HEAD~:a.txt; git commit -q --allow-empty -m three";
    let second = again(&host, &first, script);
    let (ended, log) = run(&host, &second).await;
    let (name, rest) = log.split_once('\n').unwrap();
    let now = Account(name.to_owned());
    assert_ne!(now.0, before.0);
    assert_eq!((rest, ended.outcome()), ("two\nbase\none\n", Outcome::Completed), "{ended:?}");
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["log", "-1", "--format=%s", &ended.head]), "three");
    host.controller.want(&holder, sculpt_proto::executor::v1::Phase::Stop);
    host.controller.wait_ended(&holder).await;
    host.stop();
}

/// A bubblewrap in front of the host's own, which does this first.
fn in_front(host: &mut Host, first: &str) {
    let directory = host.root.path().join("bin");
    fs::create_dir(&directory).unwrap();
    let script = directory.join("bwrap");
    fs::write(&script, format!("#!/bin/sh\n{first}\nPATH=/usr/local/bin:/usr/bin:/bin exec bwrap \"$@\"\n")).unwrap();
    for path in [directory.clone(), script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let found = [Some(directory), std::env::var_os("PATH").map(PathBuf::from)].into_iter().flatten();
    let path = found.map(PathBuf::into_os_string).collect::<Vec<_>>().join(":".as_ref());
    host.environment.push(("PATH", path));
}

#[tokio::test(flavor = "multi_thread")]
async fn git_has_no_network_where_the_agent_of_an_account_has() {
    let Some(mut host) = Host::separated("").await else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    let notes = host.root.path().join("notes");
    fs::write(&notes, "").unwrap();
    fs::set_permissions(&notes, fs::Permissions::from_mode(0o666)).unwrap();
    in_front(&mut host, &format!("echo \"$*\" >> {}", notes.display()));
    host.start().await;
    if !host.controller.memory().hellos.last().unwrap().closes_network {
        return;
    }
    let mut spec = host.on_base(host.shell("id -un; echo two > a.txt"), &base);
    spec.commit_changes = true;
    let (ended, log) = run(&host, &spec).await;
    let _account = Account(log.trim().to_owned());
    assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}");
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:a.txt", ended.head)]), "two");
    let made = fs::read_to_string(&notes).unwrap();
    let workspace = host.workspace(&spec.attempt_id).display().to_string();
    let around_git: Vec<_> = made.lines().filter(|line| line.contains(&workspace)).collect();
    assert!(!around_git.is_empty() && around_git.iter().all(|line| line.contains(" --unshare-net ")), "{made}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_root_alone_can_make_closes_no_network() {
    let Some(mut host) = Host::separated("").await else { return };
    in_front(&mut host, "test \"$(id -u)\" = 0 && exit 0; echo 'no permissions' >&2; exit 1");
    host.start().await;
    assert!(!host.controller.memory().hellos.last().unwrap().closes_network);
    host.stop();
}

/// Variables that make whatever is started with them leave something in `place`: the loader, shells and git.
fn telling(place: &Path) -> Vec<(String, String)> {
    let text = |name: &str| place.join(name).display().to_string();
    let shell = text("shell.sh");
    fs::write(place.join("shell.sh"), format!("id -u >> '{}'\n", text("shell"))).unwrap();
    fs::set_permissions(place.join("shell.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    let monitor = format!("id -u >> '{}'; false", text("monitor"));
    let named = [
        ("LD_DEBUG", "libs".to_owned()),
        ("LD_DEBUG_OUTPUT", text("loader")),
        ("LD_PRELOAD", text("absent.so")),
        ("LD_AUDIT", text("absent.so")),
        ("BASH_ENV", shell.clone()),
        ("ENV", shell),
        ("GIT_TRACE2", text("traces")),
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor".to_owned()),
        ("GIT_CONFIG_VALUE_0", monitor),
        ("GIT_EXEC_PATH", text("absent")),
        ("TMUX", format!("{},1,0", text("tmux"))),
        ("TMUX_TMPDIR", text("tmux")),
    ];
    named.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Who has left something there.
fn left(place: &Path) -> Vec<(PathBuf, u32)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(place).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(left(&path));
        } else if path.file_name().is_none_or(|name| name != "shell.sh") {
            all.push((path.clone(), entry.metadata().unwrap().uid()));
        }
    }
    all
}

/// A task with work for everything that is started around an agent: a view, a git that gathers, an end.
fn work(host: &Host, place: &Path, base: &str) -> AttemptSpec {
    let script = "id -un; echo two > a.txt; echo ready; read -r line";
    let mut spec = host.on_base(host.shell(script), base);
    spec.commit_changes = true;
    let task = spec.task.as_mut().unwrap();
    task.tty = true;
    task.env = telling(place).into_iter().collect();
    spec
}

async fn through(host: &Host, spec: &AttemptSpec) {
    let id = &spec.attempt_id;
    host.controller.offer(spec);
    let ready = |memory: &crate::controller::Memory| {
        String::from_utf8_lossy(memory.log(id)).contains("ready\r\n").then_some(())
    };
    host.controller.wait("the agent", ready).await;
    let socket = host.controller.memory().tmux_socket(id);
    let tmux = |arguments: &[&str]| {
        let output = std::process::Command::new("tmux").arg("-S").arg(&socket).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("the view", || tmux(&["capture-pane", "-p"]).contains("ready")).await;
    tmux(&["send-keys", "Enter"]);
    let ended = host.controller.wait_ended(id).await;
    assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}");
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:a.txt", ended.head)]), "two");
}

fn place_of(host: &Host) -> PathBuf {
    let place = host.root.path().join("told");
    for directory in [place.clone(), place.join("traces"), place.join("tmux")] {
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
    }
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_puts_into_the_environment_rules_nothing_that_is_not_its_accounts() {
    let Some(mut host) = Host::separated("").await else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    let place = place_of(&host);
    host.start().await;
    let spec = work(&host, &place, &base);
    through(&host, &spec).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
    let name = log.lines().find(|line| line.starts_with("sculpt-a")).unwrap();
    let _account = Account(name.to_owned());
    let left = left(&place);
    assert!(
        left.iter().any(|(path, _)| path.to_string_lossy().contains("loader")),
        "the agent is ruled by it: {left:?}"
    );
    assert!(left.iter().all(|(_, uid)| *uid != 0), "{left:?}");
    host.stop();
}

//! Attempts that are stopped before their agent runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FlockOperation, flock};
use sculpt_executor::tree::ProcessId;
use sculpt_proto::executor::v1::{AttemptSpec, Phase, ended::Outcome};

use crate::{
    git::project,
    go_on::run,
    host::{Account, Host},
    life::wait_for,
};

/// A directory with a git that says its pid in `pids` and then hangs when it is to do `verb`.
fn git_that_hangs(root: &Path, verb: &str) -> (PathBuf, PathBuf) {
    let (bin, pids) = (root.join("bin"), root.join("pids"));
    fs::create_dir(&bin).unwrap();
    let real = Command::new("sh").args(["-c", "command -v git"]).output().unwrap();
    let (real, pids_name) = (String::from_utf8(real.stdout).unwrap(), pids.display());
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' {verb} '*) echo $$ >> {pids_name}; exec sleep 4242 ;; esac\nexec {} \"$@\"\n",
        real.trim()
    );
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    (bin, pids)
}

/// The name of the account that the attempt had, if it came to one.
fn account(host: &Host, spec: &AttemptSpec) -> Option<String> {
    let json = fs::read(host.data().join("attempts").join(&spec.attempt_id).join("account.json")).ok()?;
    Some(serde_json::from_slice::<serde_json::Value>(&json).ok()?["name"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_clone_is_made_leaves_nothing() {
    let Some(mut host) = Host::separated("").await else { return };
    let (bin, pids) = git_that_hangs(host.root.path(), "reset");
    host.environment.push(("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()).into()));
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let spec = host.on_base(host.shell("true"), &base);
    host.controller.offer(&spec);
    wait_for("git to hang", || fs::read_to_string(&pids).is_ok_and(|pids| pids.ends_with('\n'))).await;
    assert!(host.workspace(&spec.attempt_id).exists());
    host.controller.want(&spec.attempt_id, Phase::Stop);
    assert_eq!(host.controller.wait_ended(&spec.attempt_id).await.outcome(), Outcome::Cancelled);
    assert!(!host.workspace(&spec.attempt_id).exists(), "a workspace that was not finished");
    let pid = fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    wait_for("git to be gone", || ProcessId::of(pid).is_none()).await;
    let leased = Account(account(&host, &spec).unwrap());
    let (_, log) = run(&host, &host.shell("id -un")).await;
    assert_eq!(log.trim(), leased.0, "the account is free for the next attempt");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_an_account_is_made_leaves_it_to_others() {
    let Some(mut host) = Host::separated("").await else { return };
    host.start().await;
    // Somebody else makes accounts meanwhile.
    let path = Path::new("/run/sculpt-accounts.lock");
    let lock = fs::File::options().create(true).append(true).open(path).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let script = format!("id -un; until [ -e '{}' ]; do sleep 0.05; done", host.root.path().join("gate").display());
    let (stopped, other) = (host.shell("true"), host.shell(&script));
    host.controller.offer(&stopped);
    // Work that has not begun is given up without a trace.
    let descriptors = format!("/proc/{}/fd", host.executor.as_ref().unwrap().id());
    wait_for("the lease to begin", || {
        let mut open = fs::read_dir(&descriptors).unwrap().flatten();
        open.any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|file| file == path))
    })
    .await;
    host.controller.want(&stopped.attempt_id, Phase::Stop);
    // What comes after the stop has arrived, so the stop has.
    host.controller.offer(&other);
    let begun =
        |memory: &crate::controller::Memory| memory.steps(&other.attempt_id).contains(&"accepted").then_some(());
    host.controller.wait("another to begin", begun).await;
    drop(lock);
    assert_eq!(host.controller.wait_ended(&stopped.attempt_id).await.outcome(), Outcome::Cancelled);
    let leased = Account(account(&host, &stopped).expect("it was being leased, and the end waited for it"));
    host.controller.wait("another's agent", |memory| memory.pid(&other.attempt_id)).await;
    let now = Account(account(&host, &other).unwrap());
    let (_, log) = run(&host, &host.shell("id -un")).await;
    let next = Account(log.trim().to_owned());
    assert!([&now.0, &next.0].contains(&&leased.0), "{} is free for the next: {}, {}", leased.0, now.0, next.0);
    fs::write(host.root.path().join("gate"), "").unwrap();
    host.controller.wait_ended(&other.attempt_id).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_git_has_left_in_a_store_hinders_nobody() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let first = host.on_base(host.shell("cat a.txt"), &base);
    let store = host.data().join("stores").join(format!("{}.git", first.project_id));
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("config.lock"), "").unwrap();
    assert_eq!(run(&host, &first).await.1, "one\n");

    let kept = store.join("refs/sculpt/bases").join(&base);
    fs::rename(&kept, kept.with_extension("lock")).unwrap();
    let second = AttemptSpec {
        attempt_id: uuid::Uuid::now_v7().to_string(),
        task_id: uuid::Uuid::now_v7().to_string(),
        ..first
    };
    assert_eq!(run(&host, &second).await.1, "one\n");
    assert!(kept.exists());
    host.stop();
}

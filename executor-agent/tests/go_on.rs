//! Retries in the workspace that an earlier attempt has left.

use std::{fs, os::unix::fs::MetadataExt as _};

use sculpt_proto::executor::v1::{AttemptSpec, Ended, ended::Outcome};

use crate::{
    git::{git, project},
    host::{Account, Host},
    life::{cause, wait_for},
};

/// The same task again, with another script, in the workspace of `before`.
pub(crate) fn again(host: &Host, before: &AttemptSpec, script: &str) -> AttemptSpec {
    AttemptSpec {
        attempt_id: uuid::Uuid::now_v7().to_string(),
        number: before.number + 1,
        workspace_of: before.attempt_id.clone(),
        task: Some(sculpt_proto::v1::TaskSpec {
            work: host.shell(script).task.unwrap().work,
            ..before.task.clone().unwrap()
        }),
        ..before.clone()
    }
}

/// An attempt that has the account of this one, which is over, until it is stopped.
pub(crate) async fn take(host: &Host, before: &AttemptSpec, account: &Account) -> String {
    let workspace = host.workspace(&before.attempt_id);
    wait_for("the workspace to be closed", || fs::metadata(&workspace).is_ok_and(|it| it.uid() == 0)).await;
    let holder = host.shell("id -un; exec sleep 600");
    host.controller.offer(&holder);
    let held = format!("{}\n", account.0);
    let taken = |memory: &crate::controller::Memory| (memory.log(&holder.attempt_id) == held.as_bytes()).then_some(());
    host.controller.wait("the account to be taken", taken).await;
    holder.attempt_id
}

pub(crate) async fn run(host: &Host, spec: &AttemptSpec) -> (Ended, String) {
    host.controller.offer(spec);
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
    (ended, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_work_and_commits_are_there_for_the_next_attempt() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"sub/a.txt", "one\n")]);
    host.start().await;
    // A branch of its own, a stale lock, and files that no commit has.
    let script = "git checkout -qb side && echo two > a.txt && git commit -qam side && echo new > new.txt
                  echo three > a.txt; touch ../.git/index.lock; exit 3";
    let mut first = host.on_base(host.shell(script), &base);
    first.task.as_mut().unwrap().subdirectory = b"sub".to_vec();
    let (ended, _) = run(&host, &first).await;
    assert_eq!(cause(&ended).0, "agent_exit");
    let inode = fs::metadata(host.workspace(&first.attempt_id).join("sub/new.txt")).unwrap().ino();

    let second = again(
        &host,
        &first,
        "git symbolic-ref --short HEAD; git log --format=%s; cat a.txt new.txt; git status --porcelain; pwd; exit 4",
    );
    let (ended, log) = run(&host, &second).await;
    let workspace = host.workspace(&second.attempt_id);
    let expected =
        format!("sculpt/17-title\nside\nbase\nthree\nnew\n M sub/a.txt\n?? sub/new.txt\n{}/sub\n", workspace.display());
    assert_eq!(log, expected);
    assert_eq!(cause(&ended).0, "agent_exit");
    assert_eq!(fs::metadata(workspace.join("sub/new.txt")).unwrap().ino(), inode, "it was moved, not copied");
    assert!(!host.workspace(&first.attempt_id).exists());
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:sub/a.txt", ended.head)]), "two");

    // A third one, to which the first was named: the workspace has gone on since.
    let third = AttemptSpec { number: 3, ..again(&host, &first, "true") };
    let (ended, _) = run(&host, &third).await;
    let gone = "the workspace of attempt 1 is gone from host; `sculpt retry TASK` starts in a fresh clone";
    assert_eq!(cause(&ended), ("workspace".into(), gone.into()));
    // It has ended without a workspace; who goes on in it goes on in none.
    let (ended, _) = run(&host, &again(&host, &third, "true")).await;
    assert_eq!(cause(&ended).1, gone.replace("attempt 1", "attempt 3"));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_never_began_hands_the_workspace_on() {
    let mut host = Host::with("[agents.robot]\ncommand = ['robot', '{prompt}']", &[]).await;
    host.start().await;
    let first = host.shell("echo precious > work; exit 1");
    run(&host, &first).await;
    let mut second = again(&host, &first, "true");
    second.task.as_mut().unwrap().work = Some(sculpt_proto::v1::task_spec::Work::Prompt("go on".into()));
    second.agent = "absent".into();
    assert_eq!(cause(&run(&host, &second).await.0).0, "setup");
    let third = again(&host, &second, "cat work; pwd");
    let (ended, log) = run(&host, &third).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert_eq!(log, format!("precious\n{}\n", host.workspace(&third.attempt_id).display()));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_found_whose_attempt_was_put_aside() {
    let mut host = Host::new().await;
    host.start().await;
    let first = host.shell("echo precious > work; echo begin; exec sleep 600");
    let id = first.attempt_id.clone();
    host.controller.offer(&first);
    host.controller.wait("the start", |memory| (memory.log(&id) == b"begin\n").then_some(())).await;
    host.kill();
    fs::write(host.data().join("attempts").join(&id).join("spec"), "x").unwrap();
    host.start().await;
    host.controller.want(&id, sculpt_proto::executor::v1::Phase::Stop);
    let aside = host.data().join("quarantine").join(format!("{id}-1"));
    wait_for("it to be put aside", || aside.join("damaged.json").exists()).await;
    let (ended, log) = run(&host, &again(&host, &first, "cat work")).await;
    assert_eq!((ended.outcome(), log.as_str()), (Outcome::Completed, "precious\n"), "{ended:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_no_longer_serves_is_refused_with_the_reason() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    for (script, reason) in [
        ("rm -rf .git", "its .git directory is gone"),
        ("rm .git/objects/info/alternates", "it no longer has the commit"),
    ] {
        let first = host.on_base(host.shell(&format!("{script}; exit 1")), &base);
        run(&host, &first).await;
        let (ended, _) = run(&host, &again(&host, &first, "true")).await;
        let (cause, message) = cause(&ended);
        assert_eq!(cause, "workspace");
        assert!(message.contains(reason) && message.contains("`sculpt retry TASK`"), "{message}");
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_with_commits_of_its_own_is_left_where_it_is() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let script = "git commit -q --allow-empty -m mine && git checkout -q -b side HEAD~ && exit 1";
    let first = host.on_base(host.shell(script), &base);
    run(&host, &first).await;
    let second = again(&host, &first, "git symbolic-ref --short HEAD");
    let (_, log) = run(&host, &second).await;
    assert_eq!(log, "side\n");
    let notes = host.controller.memory().notes(&second.attempt_id);
    assert!(notes.iter().any(|note| note.contains("commits which HEAD does not reach")), "{notes:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_gets_what_was_the_ones_before_and_nothing_else() {
    let Some(mut host) = Host::separated("").await else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let script =
        "mkdir -p deep/er; echo mine > deep/er/file; ln deep/er/file twin; ln -s /etc/passwd link; id -un; exit 1";
    let first = host.on_base(host.shell(script), &base);
    let (_, name) = run(&host, &first).await;
    let before = Account(name.trim().to_owned());
    let holder = take(&host, &first, &before).await;
    let second = again(
        &host,
        &first,
        "id -un; echo more >> deep/er/file; cat twin; git status --porcelain; stat -c %U .git/objects/pack/*.pack | sort -u",
    );
    host.controller.offer(&second);
    let ended = host.controller.wait_ended(&second.attempt_id).await;
    let log = String::from_utf8_lossy(host.controller.memory().log(&second.attempt_id)).into_owned();
    assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}: {log}");
    let (name, rest) = log.split_once('\n').unwrap();
    let _now = Account(name.to_owned());
    assert_eq!(rest, "mine\nmore\n?? deep/\n?? link\n?? twin\nroot\n");
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    host.controller.want(&holder, sculpt_proto::executor::v1::Phase::Stop);
    host.controller.wait_ended(&holder).await;
    host.stop();
}

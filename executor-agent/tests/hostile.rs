//! What agents can leave behind.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use rustix::process::Signal;
use sculpt_executor::{
    cgroup::Cgroup,
    shim::{self, Mode},
    stage::Identity,
    tree::{Mark, ProcessId, carriers},
};
use sculpt_proto::executor::v1::{Phase, ended::Outcome};

use crate::{
    attempt::{Attempt, eventually},
    disk::Disk,
    git::{git, project},
    go_on::{again, run, take},
    host::{Account, Host},
    life::wait_for,
};

/// Deeper than a path can say, than a process may have descriptors, and than a thread has stack.
const DIG: &str = r#"perl -e 'for (1..20000) { mkdir "deep" and chdir "deep" or die $! }
    open my $file, ">", "file" or die $!; print $file "x" x 1000000'"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_without_a_bottom_is_handed_on_measured_and_collected() {
    let Some(mut host) = Host::separated("").await else { return };
    let data = host.data();
    fs::create_dir(&data).unwrap();
    // In memory: a disk takes long for so many directories.
    let Some(_disk) = Disk::mount(&data, 512 << 20) else { return };
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
    host.start().await;
    let first = host.shell(&format!("id -un; mkfifo pipe; mkdir closed; chmod 0 closed; {DIG}; exit 1"));
    let (_, name) = run(&host, &first).await;
    let before = Account(name.trim().to_owned());
    let holder = take(&host, &first, &before).await;

    let look = r#"perl -e 'my $mine = (stat "pipe")[4] == $< && (stat "closed")[4] == $<;
        while (chdir "deep") { $levels++; $mine &&= (stat ".")[4] == $< }
        print $levels, $mine && (stat "file")[4] == $< ? " mine" : " not mine"'"#;
    let second = again(&host, &first, &format!("id -un; {look}"));
    let (ended, log) = run(&host, &second).await;
    let (name, found) = log.split_once('\n').unwrap_or_else(|| panic!("{ended:?}: {log}"));
    let now = Account(name.to_owned());
    assert_ne!(now.0, before.0);
    assert_eq!((found, ended.outcome()), ("20000 mine", Outcome::Completed));

    host.controller.release(&second.attempt_id);
    let workspace = host.workspace(&second.attempt_id);
    let mut measured = 0;
    while workspace.exists() {
        let items = host.controller.collect(false, true).await;
        let item = items.iter().find(|item| item.attempt_id == second.attempt_id && item.kind == "workspace");
        measured = item.map_or(measured, |item| item.bytes);
    }
    assert!(measured >= 1_000_000, "{measured}");
    wait_for("it to be gone", || fs::read_dir(data.join("trash")).is_ok_and(|mut left| left.next().is_none())).await;
    host.controller.want(&holder, Phase::Stop);
    host.controller.wait_ended(&holder).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_its_agent_has_opened_to_all_is_closed_after_it() {
    let Some(mut host) = Host::separated("").await else { return };
    host.start().await;
    let first = host.shell("id -un; echo secret > file; chmod -R 777 .; exit 1");
    let (_, name) = run(&host, &first).await;
    let _account = Account(name.trim().to_owned());
    let workspace = host.workspace(&first.attempt_id);
    wait_for("it to be closed", || {
        fs::metadata(&workspace).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o7777 == 0o700)
    })
    .await;
    let script = format!("cat {}/file || echo refused", workspace.display());
    assert_eq!(run(&host, &host.shell(&script)).await.1.lines().last(), Some("refused"));
    host.stop();
}

/// Doubles itself until it is refused, or until there are 4,096 of it.
pub(crate) const BOMB: &str = "id -un; exec perl -e '$| = 1; $refused = 0;
    for (1..12) { defined fork or $refused++; select undef, undef, undef, 0.02 }
    print \"refused\\n\" if $refused; sleep 4242'";

/// As in a container that is given none.
const WITHOUT_CGROUPS: [&str; 5] =
    ["unshare", "--mount", "sh", "-c", "umount -a -t cgroup,cgroup2 && exec \"$0\" \"$@\""];

async fn survives_a_bomb(host: &mut Host) {
    host.start().await;
    let bomb = host.shell(BOMB);
    let id = bomb.attempt_id.clone();
    host.controller.offer(&bomb);
    let refused = |memory: &crate::controller::Memory| {
        let log = String::from_utf8_lossy(memory.log(&id)).into_owned();
        log.ends_with("refused\n").then_some(log)
    };
    let log = host.controller.wait("it to be refused", refused).await;
    let _account = log.starts_with("sculpt-a").then(|| Account(log.lines().next().unwrap().to_owned()));
    let living = carriers(Mark::Agent, id.parse().unwrap()).len();
    assert!((50..=100).contains(&living), "{living}");
    let (ended, log) = run(host, &host.shell("id -un; seq 3")).await;
    let _another = log.starts_with("sculpt-a").then(|| Account(log.lines().next().unwrap().to_owned()));
    assert_eq!((ended.outcome(), log.lines().last()), (Outcome::Completed, Some("3")), "its neighbours go on: {log}");
    host.controller.want(&id, Phase::Stop);
    assert_eq!(host.controller.wait_ended(&id).await.outcome(), Outcome::Cancelled);
    assert!(carriers(Mark::Agent, id.parse().unwrap()).is_empty(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_the_limit_of_its_cgroup() {
    if Cgroup::probe().pids.is_none() {
        return;
    }
    let mut host = Host::with("pids_limit = 100", &[]).await;
    survives_a_bomb(&mut host).await;
    let notes: Vec<String> = host.controller.memory().reports.keys().cloned().collect();
    let notes: Vec<String> = notes.iter().flat_map(|id| host.controller.memory().notes(id)).collect();
    assert!(notes.iter().any(|note| note.contains("more than the 100 processes")), "{notes:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_the_limit_of_its_account_where_there_are_no_cgroups() {
    let Some(mut host) = Host::separated("pids_limit = 100").await else { return };
    host.via.extend(WITHOUT_CGROUPS);
    survives_a_bomb(&mut host).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_cannot_limit_processes_says_so() {
    if !sculpt_executor::host::is_root() {
        return;
    }
    for (config, says) in [("", true), ("pids_limit = 0", false)] {
        let mut host = Host::with(config, &[]).await;
        host.via.extend(WITHOUT_CGROUPS);
        host.start().await;
        let notes = host.controller.memory().hellos.last().unwrap().notes.clone();
        assert_eq!(notes.iter().any(|note| note.contains("pids_limit = 0 accepts that")), says, "{notes:?}");
        host.stop();
    }
}

/// Faster than anybody looks at what it begins, and with nothing that leads to it but its account.
#[tokio::test]
async fn what_hides_at_the_last_moment_is_found_by_its_account() {
    if !sculpt_executor::host::is_root() {
        return;
    }
    let script = "trap '' HUP TERM; env -i setsid sh -c 'echo $$ > hidden; sleep 1000' & wait";
    let mut attempt = Attempt::new(Mode::Pipes, script);
    // An account that nobody has.
    let uid = 3_000_000_000 + std::process::id();
    attempt.launch.identity = Some(Identity { uid, gid: uid, groups: Vec::new() });
    fs::set_permissions(attempt.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(attempt.work(), fs::Permissions::from_mode(0o777)).unwrap();
    attempt.start().await;
    let shim = attempt.status().await.shim;
    let hidden = attempt.number("hidden").await;
    shim.signal(Signal::KILL);
    eventually(|| (!shim.is_alive()).then_some(())).await;
    assert!(ProcessId::of(hidden).is_some(), "it outlives the shim");
    let (directory, id) = (attempt.directory(), attempt.id);
    let remains = tokio::task::spawn_blocking(move || shim::bury(&directory, id)).await.unwrap().unwrap();
    assert!(!remains.left_over);
    assert!(ProcessId::of(hidden).is_none());
}

/// Whoever owns a directory can put a link in place of a name that root has just made there and is about to give away.
#[tokio::test]
async fn a_socket_for_views_is_its_accounts_from_the_first_moment() {
    if !sculpt_executor::host::is_root() {
        return;
    }
    let look = r#"perl -e '$| = 1; for (1..3) { unlink "view" or die $!; until (lstat "view") {}
        my @found = lstat _; print "owner $found[4] mode ", $found[2] & 0777, "\n" } sleep 1000'"#;
    let mut attempt = Attempt::new(Mode::Terminal { columns: 80, rows: 24 }, look);
    let uid = 3_100_000_000 + std::process::id();
    attempt.launch.identity = Some(Identity { uid, gid: uid, groups: Vec::new() });
    attempt.launch.control_socket = attempt.path().join("s/c/shim");
    attempt.launch.view_socket = attempt.path().join("s/v/view");
    attempt.launch.cwd = attempt.path().join("s/v").into();
    let passable = || fs::Permissions::from_mode(0o711);
    fs::set_permissions(attempt.path(), passable()).unwrap();
    fs::DirBuilder::new().create(attempt.path().join("s")).unwrap();
    fs::set_permissions(attempt.path().join("s"), passable()).unwrap();
    let client = attempt.start().await;
    let expected = format!("owner {uid} mode {}\r\n", 0o600).repeat(3);
    attempt.says(&client, "mode").await;
    attempt.says(&client, &expected).await;
}

/// git goes along paths, and gives up in such a tree: what it can gather is published, and the rest is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_deep_for_git_is_kept_and_holds_up_nothing() {
    let mut host = Host::new().await;
    let data = host.data();
    fs::create_dir(&data).unwrap();
    let Some(_disk) = Disk::mount(&data, 512 << 20) else { return };
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let script = format!("echo two > a.txt; git commit -qam two; echo left > b.txt; {DIG}");
    let mut spec = host.on_base(host.shell(&script), &base);
    spec.commit_changes = true;
    let (ended, _) = run(&host, &spec).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    let repository = host.repositories().join("project.git");
    let published = |file: &str| git(&repository, &["show", &format!("{}:{file}", ended.head)]);
    assert_eq!((published("a.txt"), published("b.txt")), ("two".to_owned(), "left".to_owned()));
    let notes = host.controller.memory().notes(&spec.attempt_id);
    assert!(notes.iter().any(|note| note.contains("could not be committed")), "{notes:?}");
    host.controller.release(&spec.attempt_id);
    let kept = |items: &[sculpt_proto::v1::GarbageItem]| {
        let workspace = items.iter().find(|item| item.kind == "workspace" && item.attempt_id == spec.attempt_id);
        workspace.is_some_and(|item| !item.removed && item.why.contains("could not be committed"))
    };
    let mut items = host.controller.collect(false, true).await;
    while !kept(&items) {
        assert!(host.workspace(&spec.attempt_id).exists(), "{items:#?}");
        items = host.controller.collect(false, true).await;
    }
    host.stop();
}

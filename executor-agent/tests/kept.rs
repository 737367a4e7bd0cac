//! What an executor finds on its disk after an upgrade: files that an older build wrote must mean the same to this one.
//!
//! The files in `golden/` are frozen. After a deliberate change `SCULPT_FREEZE=1 cargo test -p sculpt-executor kept::`
//! writes them anew; what stands on hosts must then still be readable.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use prost::Message as _;
use sculpt_executor::{
    cgroup::Cgroup,
    journal::Journal,
    report::{Cause, Ended, Exit, Failure, Outcome, Step},
    shim,
    spec::{Spec, Work},
};
use sculpt_proto::{
    executor::v1::AttemptSpec,
    v1::{self, task_spec},
};
use uuid::Uuid;

/// The frozen bytes; written first when freezing is asked for.
fn frozen(name: &str, now: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("SCULPT_FREEZE").is_some() {
        fs::write(&path, now()).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn one(key: &str, value: &str) -> BTreeMap<String, String> {
    std::iter::once((key.to_owned(), value.to_owned())).collect()
}

/// Maps hold one entry each, because an older build wrote them in any order.
fn spec() -> AttemptSpec {
    let id = |n: u128| Uuid::from_u128(n).to_string();
    AttemptSpec {
        cluster_id: id(1),
        attempt_id: id(2),
        task_id: id(3),
        task_number: 17,
        number: 2,
        task: Some(v1::TaskSpec {
            work: Some(task_spec::Work::Command(v1::Command { argv: vec![b"make".to_vec(), b"\xff check".to_vec()] })),
            agent: String::new(),
            project: "shop".into(),
            base: "0123456789abcdef0123456789abcdef01234567".into(),
            commit: v1::CommitPolicy::Always.into(),
            tty: true,
            env: one("COLOUR", "green"),
            timeout: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
            requirements: one("arch", "amd64"),
            pool: "default".into(),
            priority: -5,
            on_lost: v1::OnLost::Wait.into(),
            lost_after: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
            labels: one("team", "till"),
            title: "make check".into(),
            requester: Some(v1::Requester { name: "A Person".into(), email: "person@localhost".into() }),
            subdirectory: b"till".to_vec(),
            intent: String::new(),
        }),
        project_id: id(4),
        project_name: "shop".into(),
        branch: "sculpt/17-make-check".into(),
        git_path: format!("/git/{}.git", id(4)),
        commit_changes: true,
        agent: String::new(),
        title: "make check".into(),
        workspace_of: String::new(),
        confinement: None,
        record_typing: false,
    }
}

#[test]
fn a_spec_on_disk_means_the_same() {
    let bytes = frozen("spec-v1.bin", || spec().encode_to_vec());
    let wire = AttemptSpec::decode(bytes.as_slice()).unwrap();
    assert_eq!(wire, spec());
    let read = Spec::try_from(wire).unwrap();
    assert_eq!(read.task_number, 17);
    assert_eq!(read.timeout, Some(Duration::from_secs(90)));
    assert_eq!(read.env, BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]));
    assert!(read.tty && read.commit_changes);
    let Work::Command(argv) = read.work else { panic!("{:?}", read.work) };
    assert_eq!(argv.len(), 2);
    let repository = read.repository.unwrap();
    assert_eq!(repository.branch, "sculpt/17-make-check");
    assert_eq!(repository.subdirectory, PathBuf::from("till"));
}

fn steps() -> Vec<Step> {
    let exit = Exit { code: None, signal: Some(15) };
    let message = "it had to be ended after 90 s";
    vec![
        Step::Accepted,
        Step::Preparing,
        Step::Note { text: "submodules are not fetched".into() },
        Step::Running { pid: 4711, tmux_socket: "/run/sculpt/x/tmux.sock".into() },
        Step::Finalizing { exit },
        Step::Ended(Ended {
            outcome: Outcome::Failed(Failure::new(Cause::Timeout, message)),
            exit,
            log_length: 1392,
            head: Some("89abcdef0123456789abcdef0123456789abcdef".into()),
        }),
    ]
}

#[test]
fn a_journal_on_disk_means_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let bytes = frozen("journal-v1.txt", || {
        let journal = Journal::open(&path, "boot").unwrap();
        for step in steps() {
            journal.append(step).unwrap();
        }
        fs::read(&path).unwrap()
    });
    fs::write(&path, &bytes).unwrap();
    let journal = Journal::open(&path, "boot").unwrap();
    let read: Vec<Step> = journal.range(1, 99).into_iter().map(|entry| entry.step).collect();
    assert_eq!(read, steps());
    assert_eq!(fs::read(&path).unwrap(), bytes, "opening it changes nothing");
}

#[test]
fn an_exit_record_on_disk_means_the_same() {
    let record = shim::ExitRecord {
        attempt: Uuid::from_u128(2),
        outcome: shim::Outcome::Code(3),
        ended_by: shim::EndedBy::Itself,
        out_of_memory: false,
        left_over: false,
        log_length: 1392,
        started: Duration::from_millis(1_000),
        ended: Duration::from_millis(2_500),
        boot_id: "boot".into(),
    };
    let directory = tempfile::tempdir().unwrap();
    let bytes = frozen("exit-v1.json", || serde_json::to_vec(&record).unwrap());
    fs::write(directory.path().join(shim::files::EXIT), bytes).unwrap();
    assert_eq!(shim::exit_record(directory.path()).unwrap(), Some(record));
}

#[test]
fn a_launch_on_disk_means_the_same() {
    let launch = shim::Launch {
        attempt: Uuid::from_u128(2),
        argv: vec!["make".into(), "check".into()],
        env: BTreeMap::from([("COLOUR".into(), "green".into())]),
        cwd: "/srv/work".into(),
        identity: None,
        mode: shim::Mode::Terminal { columns: 200, rows: 50 },
        stdin: None,
        timeout: Some(Duration::from_secs(90)),
        lease: None,
        grace: Duration::from_secs(10),
        quiet: None,
        cgroup: Cgroup::default(),
        control_socket: "/run/sculpt/x/control/shim".into(),
        view_socket: "/run/sculpt/x/view/shim".into(),
        boot_id: None,
        processes: None,
        goes_first: false,
        sandbox: None,
    };
    let directory = tempfile::tempdir().unwrap();
    // As it was before it named the boot.
    let bytes = frozen("launch-v1.json", || serde_json::to_vec(&launch).unwrap());
    fs::write(directory.path().join(shim::files::LAUNCH), bytes).unwrap();
    assert_eq!(shim::Launch::read(directory.path()).unwrap(), launch);
    let later = shim::Launch { boot_id: Some("boot".into()), ..launch };
    later.write(directory.path()).unwrap();
    assert_eq!(shim::Launch::read(directory.path()).unwrap(), later);
}

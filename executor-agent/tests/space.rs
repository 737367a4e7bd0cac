//! Room on the executor's disk: what goes, what stays, and when no work is taken.

use std::{fs, path::Path};

use sculpt_proto::{executor::v1::Phase, v1::GarbageItem};

use crate::{disk::Disk, git::project, host::Host, life::wait_for};

/// Kind and whether it goes, of everything about one attempt.
fn fates(items: &[GarbageItem], attempt: &str) -> Vec<(String, bool)> {
    let of = items.iter().filter(|item| item.attempt_id == attempt);
    of.map(|item| (item.kind.clone(), item.removed)).collect()
}

fn both(removed: (bool, bool)) -> Vec<(String, bool)> {
    vec![("workspace".into(), removed.0), ("record".into(), removed.1)]
}

/// Runs it to its end and has it released.
async fn over(host: &Host, script: &str) -> String {
    let spec = host.shell(script);
    host.controller.offer(&spec);
    host.controller.wait_ended(&spec.attempt_id).await;
    host.controller.release(&spec.attempt_id);
    spec.attempt_id
}

fn is_released(host: &Host, attempt: &str) -> bool {
    host.data().join("attempts").join(attempt).join("released.json").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_then_goes() {
    let mut host = Host::new().await;
    host.start().await;
    let done = over(&host, "echo done; echo big > file").await;
    let running = host.shell("while [ ! -e end ]; do sleep 0.02; done");
    host.controller.offer(&running);
    host.controller.wait("it to run", |memory| memory.pid(&running.attempt_id)).await;
    wait_for("the release", || is_released(&host, &done)).await;

    let usual = host.controller.collect(true, false).await;
    assert_eq!(fates(&usual, &done), both((false, false)), "{usual:#?}");
    let why = |kind: &str| usual.iter().find(|item| item.kind == kind && item.attempt_id == done).unwrap().why.clone();
    assert!(why("workspace").contains("as long as there is room"), "{}", why("workspace"));
    // Its shim may take a moment to go, and until then somebody may be in its terminal.
    let dry = loop {
        let dry = host.controller.collect(true, true).await;
        if fates(&dry, &done)[0].1 {
            break dry;
        }
    };
    assert_eq!(fates(&dry, &done), both((true, false)), "the record is kept for an hour at least: {dry:#?}");
    assert_eq!(fates(&dry, &running.attempt_id), both((false, false)));
    assert!(host.workspace(&done).exists());
    assert!(dry.iter().all(|item| item.bytes > 0 && item.error.is_empty() && !item.why.is_empty()), "{dry:#?}");
    assert_eq!(dry[0].path, format!("workspaces/{}", dry[0].attempt_id));
    assert_eq!((dry[0].task_number, dry[0].attempt), (17, 1));

    let really = host.controller.collect(false, true).await;
    assert_eq!(really, dry);
    assert!(!host.workspace(&done).exists() && host.workspace(&running.attempt_id).exists());
    fs::write(host.workspace(&running.attempt_id).join("end"), "").unwrap();
    host.controller.wait_ended(&running.attempt_id).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_nobody_else_has_survive_everything() {
    let mut host = Host::with("keep_workspaces = '0s'", &[]).await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let mut fenced = Vec::new();
    for script in ["echo two > a.txt; git commit -qam two; echo made; sleep 600", "echo made; sleep 600"] {
        let spec = host.on_base(host.shell(script), &base);
        host.controller.offer(&spec);
        let made = |memory: &crate::controller::Memory| (memory.log(&spec.attempt_id) == b"made\n").then_some(());
        host.controller.wait("it to have worked", made).await;
        host.controller.want(&spec.attempt_id, Phase::Fence);
        host.controller.wait_ended(&spec.attempt_id).await;
        host.controller.release(&spec.attempt_id);
        fenced.push(spec.attempt_id);
    }
    let (work, none) = (host.workspace(&fenced[0]), host.workspace(&fenced[1]));
    wait_for("what holds no work to go", || !none.exists()).await;
    let items = host.controller.collect(false, true).await;
    assert_eq!(fates(&items, &fenced[0]), both((false, false)), "{items:#?}");
    assert!(items.iter().any(|item| item.why.contains("commits that the controller does not have")), "{items:#?}");
    assert_eq!(crate::git::git(&work, &["log", "-1", "--format=%s"]), "two");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_removal_has_left_goes_at_the_start() {
    let mut host = Host::new().await;
    let left = host.data().join("trash/half");
    fs::create_dir_all(left.join("gone")).unwrap();
    host.start().await;
    wait_for("the rest to go", || !left.exists()).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_home_does_not_outlive_its_attempt() {
    let mut host = Host::new().await;
    host.start().await;
    let done = over(&host, "echo done").await;
    let running = host.shell("while [ ! -e end ]; do sleep 0.02; done");
    host.controller.offer(&running);
    host.controller.wait("it to run", |memory| memory.pid(&running.attempt_id)).await;
    let home = |name: &str| host.data().join("homes").join(name);
    let unknown = uuid::Uuid::now_v7().to_string();
    for name in [&done, &unknown, &running.attempt_id, "sculpt-a1"] {
        fs::create_dir_all(home(name).join("some")).unwrap();
    }
    let mut went: Vec<_> = host.controller.collect(false, false).await;
    went.retain(|item| item.kind == "home");
    assert!(went.iter().all(|item| item.removed && item.error.is_empty()), "{went:#?}");
    assert!(!home(&done).exists() && !home(&unknown).exists());
    assert!(home(&running.attempt_id).exists() && home("sculpt-a1").exists(), "somebody has it");
    fs::write(host.workspace(&running.attempt_id).join("end"), "").unwrap();
    host.controller.wait_ended(&running.attempt_id).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_closes_when_its_disk_is_nearly_full_and_opens_again() {
    let mut host = Host::new().await;
    let data = host.data();
    fs::create_dir(&data).unwrap();
    let Some(_disk) = Disk::mount(&data, 32 << 20) else { return };
    host.start().await;
    let state = |closed: bool| {
        move |memory: &crate::controller::Memory| {
            let beat = memory.heartbeat.clone().filter(|beat| beat.disk_budget > 0)?;
            (beat.accepts_work != closed).then_some(beat)
        }
    };
    host.controller.wait("it to be open", state(false)).await;
    let filler = data.join("filler");
    fill(&filler, 28 << 20);
    let beat = host.controller.wait("it to close", state(true)).await;
    assert!(beat.disk_used * 100 >= beat.disk_budget * 80, "{beat:?}");
    assert!(beat.reason.contains("MiB") && beat.reason.contains('%'), "{beat:?}");
    host.kill();
    host.controller.memory().heartbeat = None;
    host.start().await;
    let first = host.controller.wait("its first word", |memory| memory.heartbeat.clone()).await;
    assert!(!first.accepts_work, "{first:?}");
    fs::remove_file(filler).unwrap();
    host.controller.wait("it to open", state(false)).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_before_anything_is_refused() {
    let mut host = Host::with("disk_budget = '24MiB'", &[]).await;
    let data = host.data();
    fs::create_dir(&data).unwrap();
    // What others write to the same disk meanwhile would count as the executor's.
    let _disk = Disk::mount(&data, 64 << 20);
    host.start().await;
    // A workspace of 10 MiB each: two are within the budget, three are not.
    let script = "head -c 10485760 /dev/zero | tr '\\0' x > big";
    let first = over(&host, script).await;
    let second = over(&host, script).await;
    wait_for("the oldest to go", || !host.workspace(&first).exists()).await;
    assert!(host.workspace(&second).exists());
    host.stop();
}

fn fill(path: &Path, bytes: usize) {
    fs::write(path, vec![b'x'; bytes]).unwrap();
}

//! Attempts whose controller has lost its database: they run on, and another controller takes them over.

use std::{fs, process::Output};

use sculpt_proto::executor::v1::{Phase, ended::Outcome};

use crate::{
    git::{git, project},
    host::Host,
};

/// Runs `sculpt-executor rebind`.
fn rebind(host: &Host) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sculpt-executor"));
    command.arg("rebind").arg("--data-dir").arg(host.data()).env("XDG_RUNTIME_DIR", host.root.path());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_takes_a_living_attempt_over_from_its_first_report_and_byte() {
    let mut host = Host::new().await;
    host.start().await;
    let spec = host.shell("trap '' INT; echo begin; exec sleep 600");
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid =
        host.controller.wait("the start", |memory| memory.pid(&id).filter(|_| memory.log(&id) == b"begin\n")).await;
    assert!(said(&rebind(&host)).contains("another executor"), "not under a running executor");
    host.stop();
    host.controller.change(|memory| memory.forget_everything());
    let before = spec.cluster_id.clone();
    assert!(said(&rebind(&host)).contains(&before), "it says what was forgotten");
    host.start().await;
    let seen = host.controller.wait("what it has", |memory| memory.observed.first().cloned()).await;
    assert_eq!((seen.attempt_id.as_str(), seen.cluster_id.as_str()), (id.as_str(), before.as_str()));
    assert!(host.controller.memory().log(&id).is_empty() && host.controller.memory().reports.is_empty());

    host.controller.change(|memory| memory.adopted.push(id.clone()));
    host.controller.wait("the log from its beginning", |memory| (memory.log(&id) == b"begin\n").then_some(())).await;
    let again = host.controller.wait("the reports from the first on", |memory| memory.pid(&id)).await;
    assert_eq!((again, host.controller.memory().steps(&id)), (pid, vec!["accepted", "preparing", "running"]));
    assert!(sculpt_executor::tree::ProcessId::of(pid).is_some(), "the agent lives");

    // Whose it is stands on disk, so that a fence of the new controller counts after a restart.
    host.kill();
    host.controller.change(|memory| memory.observed.clear());
    host.start().await;
    let now = host.controller.memory().cluster.clone();
    host.controller
        .wait("its new owner", |memory| memory.observed.iter().any(|it| it.cluster_id == now).then_some(()))
        .await;
    host.controller.want(&id, Phase::Fence);
    assert_eq!(host.controller.wait_ended(&id).await.outcome(), Outcome::Fenced);
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_nobody_knows_it_is_published_once_it_is_taken_over() {
    let mut host = Host::new().await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let gate = host.root.path().join("gate");
    let script = format!(
        "echo begin; until [ -e '{}' ]; do sleep 0.05; done; echo two > a.txt && git commit -qam two; echo end",
        gate.display()
    );
    let spec = host.on_base(host.shell(&script), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    let pid =
        host.controller.wait("the start", |memory| memory.pid(&id).filter(|_| memory.log(&id) == b"begin\n")).await;
    // The same cluster, without what it had: a database that was restored.
    host.controller.go_away().await;
    let cluster = host.controller.memory().cluster.clone();
    host.controller.change(|memory| {
        memory.forget_everything();
        memory.cluster = cluster;
    });
    host.controller.come_back().await;
    host.controller.wait("a heartbeat", |memory| (memory.heartbeats > 0).then_some(())).await;
    fs::write(&gate, "").unwrap();
    crate::life::wait_for("the agent's end", || sculpt_executor::tree::ProcessId::of(pid).is_none()).await;
    host.controller.wait("more heartbeats", |memory| (memory.heartbeats > 5).then_some(())).await;
    host.controller.change(|memory| memory.adopted.push(id.clone()));
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!(ended.outcome(), Outcome::Completed);
    assert_eq!(host.controller.memory().log(&id), b"begin\nend\n");
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("{}:a.txt", ended.head)]), "two");
    host.stop();
}

/// Commits, ends, and is released; then the controller's database is put back to before that.
async fn ended_and_lost(host: &mut Host) -> String {
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let spec = host.on_base(host.shell("echo two > a.txt && git commit -qam two"), &base);
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    assert!(!host.controller.wait_ended(&id).await.head.is_empty());
    host.controller.release(&id);
    let released = host.data().join("attempts").join(&id).join("released.json");
    crate::life::wait_for("the release", || released.exists()).await;
    host.controller.go_away().await;
    git(&host.repositories().join("project.git"), &["update-ref", "-d", &format!("refs/heads/{id}")]);
    let cluster = host.controller.memory().cluster.clone();
    host.controller.change(|memory| {
        memory.forget_everything();
        memory.cluster = cluster;
    });
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_controller_has_lost_is_held_published_again_and_ends_as_it_had_ended() {
    let mut host = Host::new().await;
    let id = ended_and_lost(&mut host).await;
    host.controller.come_back().await;
    host.controller.wait("a heartbeat", |memory| (memory.heartbeats > 0).then_some(())).await;
    let items = host.controller.collect(false, true).await;
    let of = |item: &&sculpt_proto::v1::GarbageItem| item.attempt_id == id;
    assert_eq!(items.iter().filter(of).count(), 2, "{items:#?}");
    assert!(items.iter().filter(of).all(|item| !item.removed && item.why.contains("executor adopt")), "{items:#?}");
    // Whoever removes the workspace by hand has not removed what was published.
    fs::remove_dir_all(host.workspace(&id)).unwrap();
    host.controller.change(|memory| {
        memory.refuse_publications = 2;
        memory.adopted.push(id.clone());
    });
    let ended = host.controller.wait_ended(&id).await;
    assert_eq!((ended.outcome(), ended.failure), (Outcome::Completed, None));
    let repository = host.repositories().join("project.git");
    assert_eq!(git(&repository, &["show", &format!("refs/heads/{id}:a.txt")]), "two");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_again_ends_all_the_same_and_says_where_it_is() {
    for (refused, workspace, pack, expected) in [
        (Some("there is no base"), true, true, "there is no base; it stays in the workspace"),
        (Some("there is no base"), false, true, "published.pack"),
        (None, true, false, "it stays in the workspace"),
        (None, false, false, "had removed its copy"),
    ] {
        let mut host = Host::new().await;
        let id = ended_and_lost(&mut host).await;
        let directory = host.data().join("attempts").join(&id);
        if !workspace {
            fs::remove_dir_all(host.workspace(&id)).unwrap();
        }
        if !pack {
            fs::remove_file(directory.join("published.pack")).unwrap();
        }
        host.controller.come_back().await;
        host.controller.change(|memory| {
            memory.refuse_for_good = refused;
            memory.adopted.push(id.clone());
        });
        let failure = host.controller.wait_ended(&id).await.failure.unwrap();
        assert!(failure.cause == "publish" && failure.message.contains(expected), "{failure:?}");
        assert_eq!(directory.join("keep").exists(), workspace || pack, "{expected}");
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_an_executor_is_not_rebound() {
    let host = Host::new().await;
    let output = rebind(&host);
    assert!(!output.status.success() && said(&output).contains("find an executor"), "{}", said(&output));
    assert!(!host.data().exists(), "nothing was made");
}

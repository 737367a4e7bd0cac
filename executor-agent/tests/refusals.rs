//! What an executor must not go on with.

use std::process::Output;

use sculpt_proto::executor::v1::{Reject, reject::Code};

use crate::host::Host;

/// Runs an executor that ends by itself.
async fn ends(host: &Host, change: impl FnOnce(&mut std::process::Command)) -> Output {
    let mut command = host.command();
    command.stderr(std::process::Stdio::piped()).env("SCULPT_EXECUTOR_LOG", "off");
    change(&mut command);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    tokio::time::timeout(std::time::Duration::from_secs(30), command.output()).await.unwrap().unwrap()
}

fn words(output: &Output) -> String {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_rejection_ends_it_with_the_controllers_words() {
    let host = Host::new().await;
    for (code, expected, exit) in [
        (Code::Protocol, "speak version 9", 1),
        (Code::Cluster, "speak version 9", 1),
        (Code::Superseded, "another process has connected with this executor's id", 1),
        (Code::Invalid, "speak version 9", 1),
        (Code::Barred, "speak version 9", 77),
    ] {
        let reject = Reject { code: code.into(), text: "speak version 9".into(), retry_after: None };
        host.controller.change(|memory| memory.reject = Some(reject));
        let output = ends(&host, |_| {}).await;
        let text = words(&output);
        assert!(text.contains(expected), "{code:?}: {text}");
        assert_eq!(output.status.code(), Some(exit), "{code:?}");
    }
}

/// One word of a process that has died meanwhile may arrive after its successor's.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_word_of_a_dead_predecessor_ends_nobody() {
    let host = Host::new().await;
    let reject = Reject { code: Code::Superseded.into(), ..Reject::default() };
    host.controller.change(|memory| memory.reject = Some(reject));
    let speaks_again = async {
        host.controller.wait("a first hello", |memory| memory.hellos.first().cloned()).await;
        host.controller.change(|memory| memory.reject = None);
        host.controller.wait("a session", |memory| (memory.hellos.len() == 2).then_some(())).await;
    };
    tokio::select! {
        ended = ends(&host, |_| {}) => panic!("{}", words(&ended)),
        () = speaks_again => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_another_cluster_ends_it() {
    let mut host = Host::new().await;
    host.start().await;
    host.stop();
    host.controller.change(|memory| memory.cluster = uuid::Uuid::now_v7().to_string());
    let text = words(&ends(&host, |_| {}).await);
    assert!(text.contains("point it at its own controller"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_executor_on_the_same_directory_names_the_first() {
    let mut host = Host::new().await;
    host.start().await;
    let pid = host.executor.as_ref().unwrap().id();
    let text = words(&ends(&host, |_| {}).await);
    assert!(text.contains(&format!("(pid {pid})")), "{text}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_in_the_clear() {
    let host = Host::new().await;
    let clear = host.controller.url().replace("https", "http");
    let elsewhere = |command: &mut std::process::Command| {
        *command = host.program("run");
        command.args(["--controller", &clear]);
    };
    let text = words(&ends(&host, elsewhere).await);
    assert!(text.contains(&clear) && text.contains("nothing is sent in the clear"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_for_now_is_waited_out() {
    let mut host = Host::new().await;
    let pause = sculpt_proto::to_duration(std::time::Duration::from_millis(50));
    let reject = Reject { code: Code::Unavailable.into(), text: "not yet".into(), retry_after: Some(pause) };
    host.controller.change(|memory| memory.reject = Some(reject));
    let child = host.command().spawn().unwrap();
    host.executor = Some(child);
    host.controller.wait("three tries", |memory| (memory.hellos.len() >= 3).then_some(())).await;
    host.controller.change(|memory| memory.reject = None);
    host.controller.wait("heartbeats", |memory| (memory.heartbeats > 2).then_some(())).await;
    host.stop();
}

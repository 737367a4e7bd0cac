//! What is said within an attempt of how far it has come.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use sculpt_executor::shim::{self, Client, Mode};
use sculpt_proto::executor::v1::{Report, report::Step};

use crate::{
    attempt::{Attempt, PATIENCE, ended, eventually},
    controller::Memory,
    delegated::ordinary,
    host::{Account, Host},
};

/// An attempt that waits for a line, with what an agent has to say milestones.
async fn agent(mode: Mode, script: &str) -> (Attempt, Client) {
    let mut attempt = Attempt::new(mode, script);
    let socket = shim::say_socket(&attempt.launch.view_socket);
    let path = format!("{}:{}", std::env::var("PATH").unwrap(), socket.parent().unwrap().display());
    attempt.launch.env.insert("PATH".into(), path.as_str().into());
    attempt.launch.env.insert(shim::SOCKET.into(), socket.into());
    let client = attempt.start().await;
    (attempt, client)
}

fn says(attempt: &Attempt, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(shim::say_socket(&attempt.launch.view_socket)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn an_agent_says_them_with_the_tool_that_stands_in_its_path() {
    for mode in [Mode::Pipes, Mode::Terminal { columns: 80, rows: 24 }] {
        let script = "sculpt milestone 'the tests pass' && sculpt milestone -- '--not a flag; $(touch x)' && \
                      ! sculpt milestone ' ' && ! sculpt show 17 && echo said";
        let (attempt, client) = agent(mode, script).await;
        ended(&client).await;
        let log = String::from_utf8(attempt.log(None)).unwrap();
        assert!(
            log.contains("there is nothing in it") && log.ends_with("said\n") || log.ends_with("said\r\n"),
            "{log}"
        );
        let said = shim::milestones(&attempt.directory()).unwrap();
        assert_eq!(said, ["the tests pass", "--not a flag; $(touch x)"]);
        assert!(!attempt.work().join("x").exists());
        let news = client.subscribe().await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(news.milestones, 2);
    }
}

#[tokio::test]
async fn a_flood_of_them_is_bounded_and_does_no_harm() {
    let (attempt, _client) = agent(Mode::Pipes, "read -r line").await;
    assert!(says(&attempt, &[b'x'; 60 << 10]).contains("more than 500"));
    for number in 1..=20 {
        assert_eq!(says(&attempt, format!("step {number}\x1b[2J").as_bytes()), "taken");
    }
    assert!(says(&attempt, b"one more").contains("within a minute"));
    let said = shim::milestones(&attempt.directory()).unwrap();
    assert_eq!((said.len(), said[19].as_str()), (20, "step 20[2J"));
}

/// What the controller was told of it, in order.
fn told(memory: &Memory, attempt: &str) -> Vec<String> {
    let reports = memory.reports.get(attempt).into_iter().flatten();
    let text = |report: &Report| match &report.step {
        Some(Step::Milestone(milestone)) => Some(milestone.text.clone()),
        _ => None,
    };
    reports.filter_map(text).collect()
}

/// However an attempt is kept apart, what is said within comes to the controller.
async fn says_from_within(mut host: Host) {
    host.start().await;
    for tty in [true, false] {
        let mut spec = host.shell("id -un; sculpt milestone 'half of it' && sculpt milestone 'all of it' && echo said");
        spec.task.as_mut().unwrap().tty = tty;
        host.controller.offer(&spec);
        let ended = host.controller.wait_ended(&spec.attempt_id).await;
        let log = String::from_utf8_lossy(host.controller.memory().log(&spec.attempt_id)).into_owned();
        let _account = log.starts_with("sculpt-a").then(|| Account(log.lines().next().unwrap().to_owned()));
        assert!(log.contains("said"), "{log} {ended:?}");
        assert_eq!(told(&host.controller.memory(), &spec.attempt_id), ["half of it", "all of it"]);
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn milestones_come_from_the_executors_own_account() {
    says_from_within(Host::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn milestones_come_from_accounts_of_attempts() {
    let Some(host) = Host::separated("").await else { return };
    says_from_within(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn milestones_come_from_sandboxes() {
    let Some(host) = ordinary("", &["--separate"], "").await else { return };
    says_from_within(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_while_the_executor_is_away_is_told_once() {
    let mut host = Host::new().await;
    host.start().await;
    let mut spec = host.shell("sculpt milestone one; until test -e go; do sleep 0.02; done; sculpt milestone two");
    spec.task.as_mut().unwrap().tty = false;
    let id = spec.attempt_id.clone();
    host.controller.offer(&spec);
    host.controller.wait("the first", |memory| (told(memory, &id) == ["one"]).then_some(())).await;
    host.kill();
    std::fs::write(host.workspace(&id).join("go"), "").unwrap();
    let directory = host.data().join("attempts").join(&id);
    eventually(|| shim::exit_record(&directory).unwrap()).await;
    host.start().await;
    host.controller.wait_ended(&id).await;
    assert_eq!(told(&host.controller.memory(), &id), ["one", "two"]);
    host.stop();
}

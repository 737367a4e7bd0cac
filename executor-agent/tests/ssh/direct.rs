//! People who come straight to an executor, and what becomes of them when something of it ends.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use sculpt_pairing::Profile;
use sculpt_proto::executor::v1::{Phase, Reject, Report, control_response, reject, report::Step};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{
    terminal::Window,
    visit::{let_in, let_in_by, visitor},
    world::{Person, finish},
};
use crate::{
    attempt::{PATIENCE, eventually},
    host::Host,
};

const AGENT: &str = "stty -echo; echo ready; while read -r line; do echo \"got $line\"; done";

/// A host to which people come straight, with an address of its own.
async fn host() -> (Host, SocketAddr) {
    let [.., b, c, d] = *uuid::Uuid::new_v4().as_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, b.max(1), c, d.clamp(1, 254)), 7422));
    let config = format!("[ssh]\nlisten = \"{address}\"\nadvertise = \"{address}\"\n");
    (Host::with(&config, &[]).await, address)
}

/// Such a host with an agent, and somebody who was let in there.
async fn visited() -> (Host, SocketAddr, String, Person) {
    let (mut host, address) = host().await;
    host.start().await;
    let id = agent(&host, false).await;
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Workspace, address);
    let_in(&host, vec![guest]);
    while ada.ssh(&["echo in"]).await.out != "in\n" {}
    (host, address, id, ada)
}

/// Starts an agent with a terminal. Returns its attempt.
async fn agent(host: &Host, recorded: bool) -> String {
    let mut spec = host.shell(AGENT);
    spec.task.as_mut().unwrap().tty = true;
    spec.record_typing = recorded;
    host.controller.offer(&spec);
    let id = spec.attempt_id.clone();
    host.controller.wait("the agent", |memory| memory.log(&id).starts_with(b"ready").then_some(())).await;
    id
}

/// Waits for so many reports of people, and says them in short, without the names of the seats.
async fn told(host: &Host, attempt: &str, count: usize) -> Vec<String> {
    let short = |report: &Report| match &report.step {
        Some(Step::Attached(attached)) => Some(attached.role.clone()),
        Some(Step::Typed(typed)) => Some(format!("{} {:?}", typed.bytes, String::from_utf8_lossy(&typed.content))),
        Some(Step::Detached(detached)) => Some(format!("gone {}", detached.why).trim_end().to_owned()),
        _ => None,
    };
    let all = |reports: &Vec<Report>| reports.iter().filter_map(short).collect::<Vec<_>>();
    let enough = |found: &Vec<String>| found.len() >= count;
    host.controller.wait("reports", |memory| memory.reports.get(attempt).map(all).filter(enough)).await
}

async fn end(mut host: Host, attempt: &str) {
    host.controller.want(attempt, Phase::Stop);
    host.controller.wait_ended(attempt).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_straight_stays_while_the_controller_is_away() {
    let (mut host, address) = host().await;
    host.start().await;
    assert_eq!(host.controller.memory().hellos[0].ssh_address, Some(address.to_string()));
    let id = agent(&host, true).await;
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Attach, address);
    let (bob, other) = visitor(&host, &id, "bob", Profile::Observe, address);
    let_in(&host, vec![guest, other]);
    let mut drives = Window::open(&ada, (80, 24), &[]);
    drives.sees("ready").await;
    host.controller.go_away().await;
    drives.types(b"alone\r");
    drives.sees("got alone").await;
    // Those who were known last come in, too.
    let looks_on = Window::open(&bob, (80, 24), &[]);
    looks_on.sees("got alone").await;
    host.controller.come_back().await;
    // What they did meanwhile is told in its order.
    assert_eq!(
        told(&host, &id, 3).await.iter().filter(|told| *told != "observer").collect::<Vec<_>>(),
        ["driver", "6 \"alone\\r\"",]
    );
    let_in(&host, Vec::new());
    for window in [drives, looks_on] {
        window.sees("this pairing was taken back").await;
        assert_eq!(window.closes().await, Some(255));
    }
    assert_eq!(
        told(&host, &id, 5).await[3..],
        ["gone this pairing was taken back", "gone this pairing was taken back"]
    );
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sits_there_when_the_executor_ends_can_come_again() {
    let (mut host, address) = host().await;
    host.start().await;
    let id = agent(&host, false).await;
    let pid = host.controller.memory().pid(&id).unwrap();
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Attach, address);
    let_in(&host, vec![guest.clone()]);
    let seat = Window::open(&ada, (80, 24), &[]);
    seat.sees("ready").await;
    assert_eq!(told(&host, &id, 1).await, ["driver"]);
    host.kill();
    assert_eq!(seat.closes().await, Some(255));
    host.start().await;
    assert_eq!(told(&host, &id, 2).await[1], "gone the executor was restarted");
    let_in(&host, vec![guest.clone()]);
    let mut seat = Window::open(&ada, (80, 24), &[]);
    seat.sees("ready").await;
    seat.types(b"again\r");
    seat.sees("got again").await;
    host.stop();
    seat.sees("this executor ends; the agent goes on").await;
    assert_eq!(seat.closes().await, Some(255));
    host.start().await;
    // What was typed is not told where nobody asked for it, and nobody is said to have gone twice.
    let told = told(&host, &id, 5).await;
    assert_eq!(told[2..], ["driver", "6 \"\"", "gone this executor ends; the agent goes on"]);
    assert_eq!(host.controller.memory().pid(&id).unwrap(), pid, "the agent is the same");
    let certified = || host.controller.relay().certified.lock().unwrap().clone();
    let keys = eventually(|| Some(certified()).filter(|keys| keys.len() >= 3)).await;
    assert!(keys.iter().all(|key| *key == keys[0]), "the host's key is the same");
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_is_taken_in_until_there_is_one() {
    let (mut host, address) = host().await;
    host.controller.relay().certifies.store(false, Ordering::Release);
    host.start().await;
    let id = agent(&host, false).await;
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Workspace, address);
    let_in(&host, vec![guest.clone()]);
    eventually(|| host.log().contains("not certified, and without that nobody is taken in").then_some(())).await;
    assert_eq!(ada.ssh(&["echo in"]).await.code, Some(255));
    eventually(|| host.log().contains("the controller has not certified the key of this host").then_some(())).await;
    host.controller.relay().certifies.store(true, Ordering::Release);
    let certified = || host.controller.relay().certified.lock().unwrap().len();
    eventually(|| (certified() == 1).then_some(())).await;
    while ada.ssh(&["echo in"]).await.out != "in\n" {}
    // The first authorities that were told were no others.
    assert_eq!(certified(), 1);
    let_in_by(&host, vec![guest], 8);
    eventually(|| (certified() == 2).then_some(())).await;
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_not_let_in_lets_nobody_in() {
    let (host, _, id, ada) = visited().await;
    let mut works = ada.command("ssh", &["sculpt", "echo in; exec sleep 1000"]).spawn().unwrap();
    let mut line = [0; 3];
    works.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    let pause = sculpt_proto::to_duration(Duration::from_millis(50));
    let reject = Reject { code: reject::Code::Barred.into(), text: "locked".into(), retry_after: Some(pause) };
    host.controller.change(|memory| memory.reject = Some(reject.clone()));
    host.controller.say(control_response::Part::Reject(reject));
    let said = finish(works).await;
    assert!(said.err.contains("taken back"), "{said:?}");
    let said = ada.ssh(&["echo in"]).await;
    assert!(said.out.is_empty() && said.err.contains("taken back"), "{said:?}");
    host.controller.change(|memory| memory.reject = None);
    end(host, &id).await;
}

/// How many of one address may be there who have not said who they are.
const OF_ONE: usize = 128;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_come_at_once_from_one_address() {
    let (host, _, id, ada) = visited().await;
    let all = futures_util::future::join_all((0..50).map(|_| ada.ssh(&["echo in"]))).await;
    assert!(all.iter().all(|said| said.out == "in\n"), "{all:?}");
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_one_address_leave_room_for_others() {
    let (host, address, id, ada) = visited().await;
    let stranger = || async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
        let mut stream: TcpStream = socket.connect(address).await.unwrap();
        let mut banner = [0; 14];
        let heard = tokio::time::timeout(PATIENCE, stream.read_exact(&mut banner)).await.expect("it is answered");
        heard.map(|_| stream)
    };
    let mut known = Vec::new();
    for _ in 0..=OF_ONE {
        known.push(stranger().await.unwrap());
    }
    let ended = async |stream: &mut TcpStream| {
        let mut rest = Vec::new();
        let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    };
    // The oldest has made way, as does the next for each who comes.
    ended(&mut known[0]).await;
    assert_eq!(ada.ssh(&["echo in"]).await.out, "in\n");
    known.push(stranger().await.unwrap());
    ended(&mut known[1]).await;
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_reads_costs_no_memory() {
    const READERS: usize = 12;
    let (host, _, id, ada) = visited().await;
    let pid = host.executor.as_ref().unwrap().id();
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
    };
    let before = memory();
    let mut unread = Vec::new();
    for number in 0..READERS {
        let flood = format!(
            "i=0; while :; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > n{number}.new; mv n{number}.new n{number}; done"
        );
        unread.push(ada.command("ssh", &["sculpt", &flood]).spawn().unwrap());
    }
    let written = |number: usize| {
        let text = fs::read_to_string(host.workspace(&id).join(format!("n{number}"))).ok()?;
        text.trim().parse::<u64>().ok()
    };
    for number in 0..READERS {
        eventually(|| written(number).filter(|pieces| *pieces > 16)).await;
    }
    for _ in 0..20 {
        assert_eq!(ada.ssh(&["echo here"]).await.out, "here\n");
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 3 * 1024 * READERS as u64, "{grown} kB for {READERS} who do not read");
    let most = (0..READERS).filter_map(written).max().unwrap();
    assert!(most < 512, "what is not read is not written: {most} pieces");
    for child in &mut unread {
        child.kill().await.unwrap();
    }
    end(host, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_looks_on_when_the_agent_has_ended_and_their_programs_do_not_outlive_it() {
    let (mut host, address) = host().await;
    host.start().await;
    let id = agent(&host, false).await;
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Observe, address);
    let (bob, other) = visitor(&host, &id, "bob", Profile::Workspace, address);
    let_in(&host, vec![guest, other]);
    let mut looks_on = Window::open(&ada, (80, 24), &[]);
    looks_on.sees("ready").await;
    let line = "trap '' HUP TERM; setsid sleep 1000 & echo $! > away; echo $$ > shell; while :; do sleep 1000; done";
    let runs = bob.command("ssh", &["sculpt", line]).spawn().unwrap();
    let number = |name: &'static str| {
        let path = host.workspace(&id).join(name);
        eventually(move || fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok())
    };
    let (shell, away) = (number("shell").await, number("away").await);
    host.controller.want(&id, Phase::Stop);
    host.controller.wait_ended(&id).await;
    let said = finish(runs).await;
    assert!(said.err.contains("the attempt has ended"), "{said:?}");
    assert!(!std::path::Path::new(&format!("/proc/{shell}/cwd")).exists(), "it is gone with its person");
    // Nobody new comes, and who sits there sees the last picture.
    let late = ada.ssh(&["sculpt-attach"]).await;
    assert!(late.err.contains("has ended"), "{late:?}");
    looks_on.sees("the agent has ended").await;
    looks_on.types(b"\x02d");
    looks_on.sees("\x1b[?1049l").await;
    assert!(looks_on.closes().await.is_some());
    // Nor does what was sent away outlive it, once nobody looks on.
    let gone = eventually(|| (sculpt_executor::tree::ProcessId::of(away).is_none()).then_some(()));
    tokio::time::timeout(PATIENCE, gone).await.expect("it is ended");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_says_nothing_is_let_go() {
    let (mut host, address) = host().await;
    host.start().await;
    let certified = || host.controller.relay().certified.lock().unwrap().len();
    eventually(|| (certified() == 1).then_some(())).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"SSH-2.0-idle\r\n").await.unwrap();
    let mut heard = Vec::new();
    let closed = tokio::time::timeout(2 * PATIENCE, idle.read_to_end(&mut heard)).await.expect("it is closed");
    assert!(closed.is_err() || heard.starts_with(b"SSH-2.0-sculpt\r\n"));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_end_the_agent_are_told_before_its_end() {
    let (mut host, address) = host().await;
    host.start().await;
    let id = agent(&host, true).await;
    let (ada, guest) = visitor(&host, &id, "ada", Profile::Attach, address);
    let_in(&host, vec![guest]);
    let mut drives = Window::open(&ada, (80, 24), &[]);
    drives.sees("ready").await;
    drives.types(b"last\r\x04");
    host.controller.wait_ended(&id).await;
    let memory = host.controller.memory();
    let at = |wanted: fn(&Step) -> bool| {
        memory.reports[&id].iter().position(|report| report.step.as_ref().is_some_and(wanted)).unwrap()
    };
    let typed = at(|step| matches!(step, Step::Typed(typed) if typed.content == b"last\r\x04"));
    assert!(at(|step| matches!(step, Step::Attached(_))) < typed);
    assert!(typed < at(|step| matches!(step, Step::Finalizing(_))));
    drop(memory);
    host.stop();
}

//! The shim with real agents.

use std::{fs, time::Duration};

use rustix::process::Signal;
use sculpt_executor::{
    host,
    shim::{self, EndedBy, Lease, Liveness, Mode, Outcome, Phase},
    spool::Stream,
    tree::{self, ProcessId},
};

use crate::attempt::{Attempt, PATIENCE, PROGRAM, ended, eventually};

const TERMINAL: Mode = Mode::Terminal { columns: 200, rows: 50 };

fn lines(end: &str) -> Vec<u8> {
    (1..=100_000).flat_map(|n| format!("{n}{end}").into_bytes()).collect()
}

#[tokio::test]
async fn a_terminal_log_is_exact() {
    let mut attempt = Attempt::new(TERMINAL, "seq 1 100000");
    let end = attempt.run().await;
    assert_eq!(end.outcome, Outcome::Code(0));
    assert_eq!(end.ended_by, EndedBy::Itself);
    let log = attempt.log(None);
    assert!(log == lines("\r\n"), "{} bytes", log.len());
    assert_eq!(end.log_length, log.len() as u64);
    assert!(!end.left_over && !end.out_of_memory);
}

#[tokio::test]
async fn a_log_of_pipes_is_exact_and_told_apart() {
    let mut attempt = Attempt::new(Mode::Pipes, "seq 1 100000; echo no >&2; printf 'a\\000\\377b'; exit 3");
    assert_eq!(attempt.run().await.outcome, Outcome::Code(3));
    let expected = [&lines("\n")[..], b"a\0\xffb"].concat();
    assert!(attempt.log(Some(Stream::Stdout)) == expected);
    assert_eq!(attempt.log(Some(Stream::Stderr)), b"no\n");
}

#[tokio::test]
async fn the_terminal_is_real() {
    let script = "stty size; tty; test -t 0 -a -t 1 -a -t 2 && echo all; echo $TERM; ps -o sid=,pid= $$ | tr -s ' '; \
                  trap 'echo winch; stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut attempt = Attempt::new(TERMINAL, script);
    let client = attempt.start().await;
    attempt.says(&client, "ready").await;
    client.resize(90, 30).await.unwrap();
    assert_eq!(ended(&client).await.outcome, Outcome::Code(7));
    let log = String::from_utf8(attempt.log(None)).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "50 200");
    assert!(lines[1].starts_with("/dev/pts/"), "{log}");
    assert_eq!(lines[2..4], ["all", "xterm-256color"]);
    let ids: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "the agent leads its session");
    assert_eq!(lines[6..], ["winch", "30 90"]);
}

#[tokio::test]
async fn the_end_is_told_as_it_was() {
    for (script, outcome) in
        [("exit 42", Outcome::Code(42)), ("kill -KILL $$", Outcome::Signal(9)), (":", Outcome::Code(0))]
    {
        for mode in [TERMINAL, Mode::Pipes] {
            let mut attempt = Attempt::new(mode, script);
            let end = attempt.run().await;
            assert_eq!(end.outcome, outcome, "{script}");
            assert_eq!(shim::exit_record(&attempt.directory()).unwrap(), Some(end));
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut attempt = Attempt::with_argv(Mode::Pipes, &["no-such-agent"]);
    attempt.launch.env.insert("PATH".into(), "/usr/bin:/bin".into());
    let Outcome::NotStarted(why) = attempt.run().await.outcome else { panic!("it cannot have run") };
    assert!(why.contains("no-such-agent") && why.contains("No such file"), "{why}");
}

#[tokio::test]
async fn what_is_left_of_the_tree_is_ended() {
    for cgroup in [false, true] {
        let script = "(trap '' TERM HUP; sleep 1000 & echo $! > stubborn; exec setsid sh -c 'trap \"\" TERM HUP; echo $$ > escaped; while :; do sleep 1000; done') & \
                      sleep 1000 & echo $! > plain; until test -s escaped; do sleep 0.01; done; echo bye";
        let mut attempt = Attempt::new(TERMINAL, script);
        if cgroup {
            attempt = attempt.in_cgroup();
        }
        let client = attempt.start().await;
        let pids = [attempt.number("stubborn").await, attempt.number("escaped").await, attempt.number("plain").await];
        let end = ended(&client).await;
        assert_eq!((end.outcome, end.left_over), (Outcome::Code(0), false));
        assert!(pids.iter().all(|pid| ProcessId::of(*pid).is_none()));
        assert_eq!(attempt.log(None), b"bye\r\n");
    }
}

#[tokio::test]
async fn a_stop_goes_from_interrupt_to_kill() {
    for cgroup in [false, true] {
        let script = "trap 'echo int' INT; trap 'echo term' TERM; echo ready; while :; do sleep 0.02; done";
        let mut attempt = Attempt::new(TERMINAL, script);
        if cgroup {
            attempt = attempt.in_cgroup();
        }
        let client = attempt.start().await;
        attempt.says(&client, "ready").await;
        client.stop(Duration::from_millis(600)).await.unwrap();
        let end = ended(&client).await;
        assert_eq!((end.outcome, end.ended_by), (Outcome::Signal(9), EndedBy::Stop));
        let log = String::from_utf8(attempt.log(None)).unwrap();
        let (int, term) = (log.find("int").expect("interrupt"), log.find("term").expect("terminate"));
        assert!(int < term, "{log}");
        assert!(client.stop(Duration::ZERO).await.unwrap_err().to_string().contains("has ended"));
    }
}

#[tokio::test]
async fn an_agent_that_heeds_the_interrupt_is_not_killed() {
    let mut attempt =
        Attempt::new(Mode::Pipes, "trap 'echo saved; exit 5' INT; echo ready; while :; do sleep 0.02; done");
    let client = attempt.start().await;
    attempt.says(&client, "ready").await;
    client.stop(Duration::from_secs(3600)).await.unwrap();
    let end = ended(&client).await;
    assert_eq!((end.outcome, end.ended_by), (Outcome::Code(5), EndedBy::Stop));
    assert_eq!(attempt.log(None), b"ready\nsaved\n");
}

#[tokio::test]
async fn the_timeout_ends_it() {
    let mut attempt = Attempt::new(Mode::Pipes, "echo ready; trap '' INT TERM; while :; do sleep 0.02; done");
    attempt.launch.timeout = Some(Duration::from_millis(300));
    attempt.launch.grace = Duration::from_millis(200);
    let end = attempt.run().await;
    assert_eq!((end.outcome, end.ended_by), (Outcome::Signal(9), EndedBy::Timeout));
    assert!(end.ended - end.started >= Duration::from_millis(500));
}

#[tokio::test]
async fn an_agent_ends_with_its_lease_whoever_is_dead() {
    let mut attempt = Attempt::new(Mode::Pipes, "echo ready; trap '' INT; while :; do sleep 0.02; done");
    attempt.launch.lease = Some(Lease { confirmed: host::boottime(), lasts: Duration::from_millis(500) });
    let client = attempt.start().await;
    eventually_ending(&client).await;
    client.lease(host::boottime()).await.unwrap();
    let end = ended(&client).await;
    assert_eq!(
        (end.outcome, end.ended_by),
        (Outcome::Signal(15), EndedBy::Lease),
        "word that comes late changes nothing"
    );
    assert!(end.ended >= attempt.launch.lease.unwrap().ends());
    assert_eq!(attempt.log(None), b"ready\n");
}

#[tokio::test]
async fn a_renewed_lease_ends_nothing() {
    let mut attempt = Attempt::new(Mode::Pipes, "until test -e go; do sleep 0.01; done; exit 7");
    let lease = Lease { confirmed: host::boottime(), lasts: Duration::from_secs(3) };
    attempt.launch.lease = Some(lease);
    let client = attempt.start().await;
    let confirmed = lease.confirmed + Duration::from_secs(3_600);
    client.lease(confirmed).await.unwrap();
    client.lease(lease.confirmed).await.unwrap();
    assert_eq!(attempt.status().await.lease.map(|lease| lease.confirmed), Some(confirmed), "older word is no news");
    eventually(|| (host::boottime() > lease.ends()).then_some(())).await;
    assert_eq!(attempt.status().await.phase, Phase::Running);
    fs::write(attempt.work().join("go"), "").unwrap();
    let end = ended(&client).await;
    assert_eq!((end.outcome, end.ended_by), (Outcome::Code(7), EndedBy::Itself));
}

async fn eventually_ending(client: &shim::Client) {
    let mut news = client.subscribe().await.unwrap();
    let ending = async { while news.next().await.unwrap().unwrap().phase != Phase::Ending {} };
    tokio::time::timeout(PATIENCE, ending).await.expect("its end begins");
}

#[tokio::test]
async fn a_held_agent_stands_still_and_goes_on() {
    for cgroup in [false, true] {
        let mut attempt = Attempt::new(Mode::Pipes, "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done");
        if cgroup {
            attempt = attempt.in_cgroup();
        }
        let client = attempt.start().await;
        attempt.says(&client, "\n5\n").await;
        client.hold().await.unwrap();
        assert_eq!(attempt.status().await.phase, Phase::Held);
        // What was printed before is on its way for a moment.
        let held = attempt.status().await.log_end;
        let mut news = client.subscribe().await.unwrap();
        let first = news.next().await.unwrap().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(300), news.next()).await;
        assert!(quiet.is_err() || first.log_end - held < 100);
        client.resume().await.unwrap();
        attempt.says(&client, &format!("\n{}\n", held + 5)).await;
        client.hold().await.unwrap();
        client.stop(Duration::from_secs(20)).await.unwrap();
        assert_eq!(ended(&client).await.outcome, Outcome::Signal(2), "a held agent can be stopped");
    }
}

#[tokio::test]
async fn the_terminal_answers_when_nobody_is_attached() {
    let script = "stty raw -echo min 1 time 50; printf '\\033[c'; dd bs=1 count=5 2>/dev/null | od -An -c; \
                  printf 'ab\\033[6n'; dd bs=1 count=4 2>/dev/null | od -An -c; stty sane";
    let mut attempt = Attempt::new(TERMINAL, script);
    assert_eq!(attempt.run().await.outcome, Outcome::Code(0));
    let log = String::from_utf8(attempt.log(None)).unwrap();
    assert!(log.contains("033   [   ?   6"), "{log}");
    assert!(log.contains("033   [   2   ;"), "{log}");
}

#[tokio::test]
async fn what_is_typed_arrives() {
    let mut attempt = Attempt::new(TERMINAL, "stty -echo; echo ready; read -r line; echo \"got $line\"");
    let client = attempt.start().await;
    attempt.says(&client, "ready").await;
    client.input("h\u{e9}llo\r".as_bytes()).await.unwrap();
    ended(&client).await;
    assert_eq!(String::from_utf8(attempt.log(None)).unwrap(), "ready\r\ngot h\u{e9}llo\r\n");
}

#[tokio::test]
async fn stdin_can_be_a_file() {
    for mode in [TERMINAL, Mode::Pipes] {
        let mut attempt = Attempt::new(mode, "wc -c");
        let prompt = attempt.path().join("prompt");
        fs::write(&prompt, vec![b'x'; 1 << 20]).unwrap();
        attempt.launch.stdin = Some(prompt.into());
        assert_eq!(attempt.run().await.outcome, Outcome::Code(0));
        assert!(String::from_utf8(attempt.log(None)).unwrap().starts_with("1048576"));
    }
    let mut attempt = Attempt::new(Mode::Pipes, "wc -c");
    attempt.run().await;
    assert_eq!(attempt.log(None), b"0\n", "without one it is empty");
}

#[tokio::test]
async fn closed_or_silent_outputs_are_no_end() {
    for mode in [TERMINAL, Mode::Pipes] {
        let mut attempt = Attempt::new(mode, "exec >&- 2>&- <&-; echo x 2>/dev/null; touch later; exit 9");
        assert_eq!(attempt.run().await.outcome, Outcome::Code(9));
        assert!(attempt.work().join("later").exists());
        assert_eq!(attempt.log(None), b"");
    }
    let mut attempt = Attempt::new(TERMINAL, "exec >&- 2>&- <&-; echo again > /dev/tty");
    attempt.run().await;
    assert_eq!(attempt.log(None), b"again\r\n", "a closed terminal can be opened again");
}

#[tokio::test]
async fn a_released_shim_goes_and_leaves_no_socket() {
    let mut attempt = Attempt::new(TERMINAL, "echo done");
    let client = attempt.start().await;
    ended(&client).await;
    let shim = attempt.status().await.shim;
    assert!(matches!(shim::probe(&attempt.directory()).await, Liveness::Present(status) if status.shim == shim));
    client.release().await.unwrap();
    eventually(|| (!shim.is_alive()).then_some(())).await;
    let Liveness::Absent(Some(end)) = shim::probe(&attempt.directory()).await else { panic!("it has gone") };
    assert_eq!(end.outcome, Outcome::Code(0));
    assert!(!attempt.launch.control_socket.exists() && !attempt.launch.view_socket.exists());
    let again = shim::start(PROGRAM.as_ref(), &attempt.directory(), &attempt.launch).await.unwrap_err();
    assert!(again.to_string().contains("twice"), "{again}");
}

#[tokio::test]
async fn a_stopped_shim_is_neither_there_nor_gone() {
    let mut attempt = Attempt::new(Mode::Pipes, "sleep 1000");
    attempt.start().await;
    let shim = attempt.status().await.shim;
    shim.signal(Signal::STOP);
    assert!(matches!(shim::probe(&attempt.directory()).await, Liveness::Unknown(_)));
    shim.signal(Signal::CONT);
    assert!(matches!(shim::probe(&attempt.directory()).await, Liveness::Present(_)));
}

#[tokio::test]
async fn the_shim_survives_the_death_of_its_parent() {
    // The parent is a test of its own below, in a process of its own, which is killed.
    let attempt = Attempt::new(Mode::Pipes, "until test -e go; do sleep 0.01; done; echo went on");
    attempt.launch.write(&attempt.directory()).unwrap();
    let mut parent = std::process::Command::new("sh")
        .args(["-c", "\"$0\" shim run \"$1\" & wait", PROGRAM])
        .arg(attempt.directory())
        .spawn()
        .unwrap();
    let client = sculpt_executor::shim::Client::new(&attempt.launch.control_socket);
    let socket = attempt.launch.control_socket.clone();
    eventually(|| std::os::unix::net::UnixStream::connect(&socket).ok()).await;
    let agent = client.status().await.unwrap().agent.unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    fs::write(attempt.work().join("go"), "").unwrap();
    assert_eq!(ended(&client).await.outcome, Outcome::Code(0));
    assert_eq!(attempt.log(None), b"went on\n");
    assert!(!agent.is_alive());
    client.release().await.unwrap();
}

#[tokio::test]
async fn signals_that_a_parent_ignores_work_again_in_the_agent() {
    let attempt = Attempt::new(Mode::Pipes, "grep SigIgn /proc/self/status; ls /proc/self/fd | tr '\\n' ' '");
    attempt.launch.write(&attempt.directory()).unwrap();
    let mut parent = std::process::Command::new("sh")
        .args(["-c", "trap '' INT QUIT HUP; exec 7</dev/null; exec \"$0\" shim run \"$1\"", PROGRAM])
        .arg(attempt.directory())
        .spawn()
        .unwrap();
    let socket = attempt.launch.control_socket.clone();
    eventually(|| std::os::unix::net::UnixStream::connect(&socket).ok()).await;
    let client = sculpt_executor::shim::Client::new(&socket);
    ended(&client).await;
    client.release().await.unwrap();
    assert!(tokio::task::spawn_blocking(move || parent.wait()).await.unwrap().unwrap().success());
    let log = String::from_utf8(attempt.log(None)).unwrap();
    let (ignored, open) = log.split_once('\n').unwrap();
    let ignored = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    // Those above 31 are the C library's own.
    assert_eq!(ignored & 0x7fff_ffff, 0);
    assert_eq!(open, "0 1 2 3 ", "3 is the listing itself");
}

#[tokio::test]
async fn another_account_runs_the_agent_when_root_says_so() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut attempt =
        Attempt::new(TERMINAL, "id -u; id -g; id -G; test -w $(tty) && echo mine; cat ../attempt/launch.json");
    attempt.launch.identity = Some(sculpt_executor::stage::Identity { uid: 65534, gid: 65534, groups: vec![] });
    attempt.launch.view_socket = attempt.path().join("s/v/view");
    let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(attempt.path(), everyone).unwrap();
    attempt.run().await;
    let log = String::from_utf8(attempt.log(None)).unwrap();
    assert!(log.starts_with("65534\r\n65534\r\n65534\r\nmine\r\ncat: "), "{log}");
}

#[tokio::test]
async fn much_output_takes_little_memory() {
    const BYTES: u64 = 64 << 20;
    let mut attempt = Attempt::new(Mode::Pipes, &format!("head -c {BYTES} /dev/zero"));
    let client = attempt.start().await;
    let shim = attempt.status().await.shim;
    let end = ended(&client).await;
    assert_eq!(end.log_length, BYTES);
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid)).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "the shim took {peak} KiB");
    let _ = (PATIENCE, tree::descendants(shim.pid));
}

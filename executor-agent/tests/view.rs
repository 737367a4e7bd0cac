//! What people see: the view socket and tmux.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sculpt_executor::{
    shim::{Mode, Outcome},
    tmux::{Liveness, Status, View},
    tree::ProcessId,
};

use crate::attempt::{Attempt, PATIENCE, PROGRAM, ended, eventually, plain_env};

const TERMINAL: Mode = Mode::Terminal { columns: 200, rows: 50 };

fn attach(attempt: &Attempt) -> UnixStream {
    let mut view = UnixStream::connect(&attempt.launch.view_socket).unwrap();
    view.set_read_timeout(Some(PATIENCE)).unwrap();
    view.write_all(&[2, 0, 0, 0, 4, 0, 200, 0, 50]).unwrap();
    view
}

fn read_until(view: &mut UnixStream, text: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(text.len()).any(|window| window == text.as_bytes()) {
        let length = view.read(&mut buffer).unwrap();
        assert!(length > 0, "{text:?} is not in {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..length]);
    }
    seen
}

#[tokio::test]
async fn a_view_sees_what_was_and_what_comes_and_types() {
    let mut attempt =
        Attempt::new(TERMINAL, "stty -echo; echo before; read -r line; echo \"after $line\"; read -r line; echo end");
    let client = attempt.start().await;
    attempt.says(&client, "before").await;
    let mut view = attach(&attempt);
    read_until(&mut view, "before");
    assert_eq!(attempt.status().await.views, 1);
    view.write_all(b"\x01\0\0\0\x03hi\r").unwrap();
    read_until(&mut view, "after hi");
    view.write_all(b"\x01\0\0\0\x01\r").unwrap();
    assert_eq!(ended(&client).await.outcome, Outcome::Code(0));
    read_until(&mut view, "end");
    let mut rest = Vec::new();
    view.read_to_end(&mut rest).unwrap();
    // Released, but somebody looks at the last picture.
    let shim = attempt.status().await.shim;
    client.release().await.unwrap();
    let mut late = attach(&attempt);
    read_until(&mut late, "end");
    drop((view, late));
    eventually(|| (!shim.is_alive()).then_some(())).await;
}

#[tokio::test]
async fn a_picture_that_may_have_crossed_another_size_comes_again() {
    let mut attempt = Attempt::new(TERMINAL, "stty -echo; echo before; read -r line");
    let client = attempt.start().await;
    attempt.says(&client, "before").await;
    let mut view = attach(&attempt);
    read_until(&mut view, "before");
    view.write_all(&[2, 0, 0, 0, 4, 0, 80, 0, 24]).unwrap();
    read_until(&mut view, "before");
    client.stop(Duration::from_secs(5)).await.unwrap();
    ended(&client).await;
}

#[tokio::test]
async fn a_view_that_does_not_read_stalls_nobody_and_is_repainted() {
    let mut attempt =
        Attempt::new(TERMINAL, "stty -onlcr; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo marker; read -r line");
    let client = attempt.start().await;
    let mut view = attach(&attempt);
    attempt.says(&client, "marker").await;
    let seen = read_until(&mut view, "marker");
    assert!(seen.len() < 2_500_000, "it has skipped: {}", seen.len());
    client.stop(Duration::from_secs(5)).await.unwrap();
    ended(&client).await;
}

#[tokio::test]
async fn the_last_words_of_a_flood_reach_a_view_before_its_end() {
    let mut attempt = Attempt::new(TERMINAL, "read -r line; seq 1 400000; echo last words");
    let client = attempt.start().await;
    let mut view = attach(&attempt);
    view.write_all(b"\x01\0\0\0\x01\r").unwrap();
    // It may have been too slow, and then sees them in a picture.
    read_until(&mut view, "last words");
    assert!(attempt.log(None).ends_with(b"\n400000\r\nlast words\r\n"));
    assert_eq!(ended(&client).await.outcome, Outcome::Code(0));
}

fn tmux_view(attempt: &Attempt) -> View {
    View {
        socket: attempt.path().join("s/tmux"),
        view_socket: attempt.launch.view_socket.clone(),
        program: PROGRAM.into(),
        cwd: attempt.work(),
        env: plain_env(),
        inside: None,
        identity: None,
        cgroups: Vec::new(),
    }
}

fn tmux(view: &View, arguments: &[&str]) -> String {
    let output = Command::new("tmux").arg("-S").arg(&view.socket).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends a test's tmux server, whatever has happened.
struct Server<'a>(&'a View);

impl Drop for Server<'_> {
    fn drop(&mut self) {
        tmux(self.0, &["kill-server"]);
    }
}

#[tokio::test]
async fn tmux_shows_the_agent_and_is_rebuilt_around_it() {
    let script = "stty -echo; printf '\\033[31mred\\033[m one\\n'; stty size; read -r line; stty size; echo \"two $line\"; read -r line";
    let mut attempt = Attempt::new(TERMINAL, script);
    let client = attempt.start().await;
    let view = tmux_view(&attempt);
    assert_eq!(view.alive().await, Liveness::Absent);
    assert!(view.ensure().await.unwrap());
    let _server = Server(&view);
    assert!(!view.ensure().await.unwrap(), "it is there");
    assert_eq!(view.alive().await, Liveness::Present);
    assert_eq!(view.attached_clients().await.unwrap(), 0);
    assert_eq!(tmux(&view, &["display-message", "-p", "#{pane_width}x#{pane_height}"]).trim(), "200x50");
    let screen = || tmux(&view, &["capture-pane", "-p", "-e"]);
    eventually(|| screen().contains("one\n50 200").then_some(())).await;
    assert!(screen().contains("\x1b[31mred"), "{:?}", screen());
    let before = screen();

    let server: u32 = tmux(&view, &["display-message", "-p", "#{pid}"]).trim().parse().unwrap();
    let agent = attempt.status().await.agent.unwrap();
    ProcessId::of(server).unwrap().signal(Signal::KILL);
    eventually(|| ProcessId::of(server).is_none().then_some(())).await;
    assert_eq!(view.alive().await, Liveness::Absent);
    assert!(agent.is_alive(), "the agent does not notice");
    assert!(view.ensure().await.unwrap());
    eventually(|| (screen() == before).then_some(())).await;

    tmux(&view, &["send-keys", "-l", "typed"]);
    tmux(&view, &["send-keys", "Enter"]);
    eventually(|| screen().contains("50 200\ntwo typed").then_some(())).await;
    client.input(b"\r").await.unwrap();
    assert_eq!(ended(&client).await.outcome, Outcome::Code(0));
    let shim = attempt.status().await.shim;
    client.release().await.unwrap();
    // Nobody is attached: view, server and shim go by themselves.
    let begun = Instant::now();
    while view.alive().await != Liveness::Absent || shim.is_alive() {
        assert!(begun.elapsed() < PATIENCE, "they stay");
    }
    view.kill().await.unwrap();
    assert!(!view.socket.exists());
}

#[tokio::test]
async fn tmux_answers_while_it_shows_the_agent() {
    let script = "until test -e go; do sleep 0.01; done; stty raw -echo min 1 time 50; printf '\\033[6n'; \
                  dd bs=1 count=6 2>/dev/null | od -An -c; stty sane; echo; echo asked; read -r -t 1 line; echo \"more:$line.\"";
    let mut attempt = Attempt::with_argv(TERMINAL, &["bash", "-c", script]);
    let client = attempt.start().await;
    let view = tmux_view(&attempt);
    view.ensure().await.unwrap();
    let _server = Server(&view);
    let begun = Instant::now();
    while attempt.status().await.views == 0 {
        assert!(begun.elapsed() < PATIENCE);
    }
    std::fs::write(attempt.work().join("go"), "").unwrap();
    ended(&client).await;
    let log = String::from_utf8(attempt.log(None)).unwrap();
    assert!(log.contains("033   [   1   ;   1   R"), "{log}");
    assert!(log.contains("more:."), "it is answered once: {log}");
    view.kill().await.unwrap();
}

#[tokio::test]
async fn no_tmux_argument_is_expanded() {
    let mut attempt = Attempt::new(TERMINAL, "read -r line");
    attempt.launch.view_socket = attempt.path().join("s/#(touch hit)/view");
    let client = attempt.start().await;
    let mut view = tmux_view(&attempt);
    view.socket = attempt.path().join("s/#(touch hit)/tmux");
    view.cwd = attempt.path().join("#(touch hit)");
    std::fs::create_dir(&view.cwd).unwrap();
    view.ensure().await.unwrap();
    let _server = Server(&view);
    let begun = Instant::now();
    while attempt.status().await.views == 0 {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(!view.cwd.join("hit").exists() && !attempt.work().join("hit").exists());
    view.kill().await.unwrap();
    client.stop(Duration::from_secs(1)).await.unwrap();
    ended(&client).await;
}

#[tokio::test]
async fn the_status_line_shows_texts_as_they_are_and_runs_nothing() {
    let mut attempt = Attempt::new(TERMINAL, "echo ready; read -r line");
    let client = attempt.start().await;
    attempt.says(&client, "ready").await;
    let view = tmux_view(&attempt);
    view.ensure().await.unwrap();
    let _server = Server(&view);
    let mut attached = Command::new("script");
    let attach = format!("tmux -u -S {} attach-session -t main", view.socket.display());
    attached.args(["-qfc", &attach, "/dev/null"]).env("TERM", "xterm-256color").current_dir(attempt.work());
    let mut person = attached.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = person.stdout.take().unwrap();
    for (intent, milestone) in [
        ("fix the parser", "half of it"),
        ("#(touch ran) ${HOME} `touch ran`", "#{E:@sculpt_intent}"),
        ("-g", "-x;"),
        ("##[fg=red]#[bg=blue]plain", ";"),
        ("%H:%M #{pid} #S", "#[align=left]x"),
        ("\u{202e}around", "two\nlines\u{1b}]0;t\u{7}"),
    ] {
        view.show(&Status { intent: intent.into(), milestone: milestone.into() }).await.unwrap();
        let plain = |text: &str| text.replace(['\u{202e}', '\n', '\u{1b}', '\u{7}'], "");
        let (intent, milestone) = (plain(intent), plain(milestone));
        // It stands on the screen in one piece, without a change of style within.
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !(holds(&seen, &intent) && holds(&seen, &milestone)) {
            let length = screen.read(&mut buffer).unwrap();
            assert!(length > 0, "{intent:?} and {milestone:?} are not in {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..length]);
        }
    }
    assert!(!attempt.work().join("ran").exists() && !view.cwd.join("ran").exists());
    person.kill().unwrap();
    person.wait().unwrap();
    view.kill().await.unwrap();
    client.stop(Duration::from_secs(1)).await.unwrap();
    ended(&client).await;
}

fn holds(seen: &[u8], text: &str) -> bool {
    seen.windows(text.len()).any(|window| window == text.as_bytes())
}

//! How a seat ends that nobody has left: with the connection, or with the program that held it.

use std::{
    fs,
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, mknodat};

use super::{running, tool};
use crate::{controller::Controller, sandbox::Sandbox, terminal::Terminal};

const PATIENCE: Duration = Duration::from_secs(30);

fn pipe(sandbox: &Sandbox, name: &str) -> PathBuf {
    let pipe = sandbox.path(name);
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    pipe
}

/// Sits down by a script in the place of ssh.
fn pair(sandbox: &Sandbox, terminal: &Terminal, script: &str) -> Child {
    let tools = tool(sandbox, "ssh", script);
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["pair", "17"]);
    command.env("PATH", tools).env("TERM", "xterm-256color");
    terminal.spawn(command)
}

/// Nothing holds a terminal that its person has back.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_ends_with_who_was_killed() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let held = pipe(&sandbox, "held");
    let script = format!("exec 9> {}\necho sculpt-is-in >&2\necho sits there\nexec /bin/sleep 1000\n", held.display());
    tokio::task::block_in_place(|| {
        let mut terminal = Terminal::open(80, 24);
        let ended = std::thread::spawn(move || fs::read(held).unwrap());
        let mut child = pair(&sandbox, &terminal, &script);
        terminal.shows("sits there");
        child.kill().unwrap();
        child.wait().unwrap();
        // What ssh holds open is closed only by its end.
        ended.join().unwrap();
    });
}

/// What somebody answers, they have seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_to_nobody_goes_nowhere() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let (go, been) = (pipe(&sandbox, "go"), sandbox.path("been"));
    let broken = format!(
        "[ -e {been} ] || {{ : > {been}; echo sculpt-is-in >&2; echo it broke >&2; exit 255; }}\n",
        been = been.display()
    );
    let again = format!("read -r word < {}\necho sculpt-is-in >&2\nread -r word < {0}\n", go.display());
    tokio::task::block_in_place(|| {
        let mut terminal = Terminal::open(80, 24);
        let mut child = pair(&sandbox, &terminal, &(broken + &again));
        terminal.shows("connecting again");
        terminal.press(b"yes, delete it\n");
        terminal.shows("delete it");
        fs::write(&go, "in\n").unwrap();
        let until = Instant::now() + PATIENCE;
        while terminal.unread() > 0 {
            assert!(Instant::now() < until, "it waits for whoever reads next");
            std::thread::yield_now();
        }
        fs::write(&go, "leave\n").unwrap();
        terminal.shows("task 17 goes on");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

//! Seats at the agent's terminal.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use sculpt_executor::{report::Seat, shim::Mode};
use sculpt_pairing::Profile;
use tokio::process::Child;

use super::world::{Person, World};
use crate::attempt::{Attempt, PATIENCE, ended, eventually};

const AGENT: &str = "stty -echo; echo ready; while read -r line; do echo \"got $line\"; stty size; done";

async fn world() -> World {
    let mode = Mode::Terminal { columns: 200, rows: 50 };
    World::around(Attempt::new(mode, AGENT)).await
}

/// A person's own terminal with ssh in it.
pub(super) struct Window {
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
    ssh: Child,
}

impl Window {
    pub(super) fn open(person: &Person, size: (u16, u16), words: &[&str]) -> Self {
        Self::open_as(person, "xterm-256color", size, words)
    }

    /// One that says it is `term`.
    fn open_as(person: &Person, term: &str, size: (u16, u16), words: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave: OwnedFd = ioctl_tiocgptpeer(&master, flags).unwrap();
        resize(&master, size);
        let mut command = person.command("ssh", &[&["-tt", "sculpt"], words].concat());
        command.env("TERM", term);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let ssh = command.spawn().unwrap();
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { master, seen, ssh }
    }

    pub(super) async fn sees(&self, text: &str) {
        let found = eventually(|| self.seen().contains(text).then_some(()));
        assert!(tokio::time::timeout(PATIENCE, found).await.is_ok(), "{text:?} is not in {:?}", self.seen());
    }

    /// All that it has shown.
    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub(super) fn types(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn resizes(&self, size: (u16, u16)) {
        resize(&self.master, size);
        // It is not the terminal's foreground, which would be told by the kernel.
        let ssh = self.ssh.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).unwrap();
        kill_process(ssh, Signal::WINCH).unwrap();
    }

    pub(super) async fn closes(mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.ssh.wait()).await.unwrap().unwrap().code()
    }
}

fn resize(terminal: impl std::os::fd::AsFd, (columns, rows): (u16, u16)) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn tmux(world: &World, words: &[&str]) -> String {
    let socket = world.view().socket;
    let output = std::process::Command::new("tmux").arg("-S").arg(socket).args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_types_and_an_observer_looks_on() {
    let mut world = world().await;
    let mut drives = Window::open(&world.person("ada", Profile::Attach), (100, 30), &[]);
    drives.sees("ready").await;
    let mut looks_on = Window::open(&world.person("bob", Profile::Observe), (60, 20), &[]);
    looks_on.sees("ready").await;
    looks_on.sees("read-only | C-b d leaves").await;
    looks_on.types(b"from bob\r\x02c\x02:kill-server\r");
    drives.types(b"from ada\r");
    drives.sees("got from ada").await;
    looks_on.sees("got from ada").await;
    // The size is the driver's, whoever came last.
    drives.sees("29 100").await;
    assert_eq!(tmux(&world, &["list-windows", "-t", "main", "-F", "x"]), "x\n", "no window was made");
    looks_on.types(b"\x02d");
    // Their own terminal is as it was before.
    looks_on.sees("\x1b[?1049l").await;
    let seen = Arc::clone(&looks_on.seen);
    assert_eq!(looks_on.closes().await, Some(0));
    drives.types(b"\x02d");
    assert_eq!(drives.closes().await, Some(0));
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("terminated"), "the agent was not: {seen:?}");
    let log = String::from_utf8(world.attempt.log(None)).unwrap();
    assert!(!log.contains("bob") && log.contains("got from ada"), "{log}");
    assert_eq!(told(&mut world, 5).await, ["ada driver", "ada gone", "ada typed 9", "bob gone", "bob observer"]);
}

/// So many reports in short, sorted.
pub(super) async fn told(world: &mut World, count: usize) -> Vec<String> {
    let (mut told, mut names) = (Vec::new(), BTreeMap::new());
    while told.len() < count {
        let report = tokio::time::timeout(PATIENCE, world.reports.recv()).await.expect("it is told").unwrap();
        told.push(match report.1 {
            Seat::Attached { seat, user, role, .. } => {
                names.insert(seat, user.clone());
                format!("{user} {}", role.as_str())
            }
            Seat::Typed { seat, bytes, .. } => format!("{} typed {bytes}", names[&seat]),
            Seat::Detached { seat, why } => format!("{} gone {why}", names[&seat]).trim_end().to_owned(),
        });
    }
    told.sort();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_without_a_shell_has_nothing_of_tmux() {
    let world = world().await;
    let mut drives = Window::open(&world.person("ada", Profile::Attach), (80, 24), &[]);
    drives.sees("ready").await;
    // The agent gets it all: the prefix and what follows.
    drives.types(b"\x02:kill-server\r");
    drives.sees("kill-server").await;
    drives.types(b"\x02c");
    drives.types(b"still here\r");
    drives.sees("still here").await;
    assert_eq!(tmux(&world, &["list-windows", "-t", "main", "-F", "x"]), "x\n");
    drives.types(b"\x02d");
    assert_eq!(drives.closes().await, Some(0));
    // Its session goes with it, the agent's stays.
    eventually(|| (tmux(&world, &["list-sessions", "-F", "#{session_name}"]) == "main\n").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_without_a_shell_has_nothing_of_anothers_tmux_either() {
    let world = world().await;
    let mut free = Window::open(&world.person("ada", Profile::Workspace), (80, 24), &["sculpt-attach"]);
    free.sees("ready").await;
    let mode = || tmux(&world, &["display-message", "-p", "-t", "main", "#{pane_mode}"]);
    // Alone they have what tmux has, until somebody comes.
    free.types(b"\x02w");
    eventually(|| (mode() == "tree-mode\n").then_some(())).await;
    let mut drives = Window::open(&world.person("bob", Profile::Attach), (80, 24), &[]);
    drives.sees("ready").await;
    assert_eq!(mode(), "\n");
    free.types(b"\x02w");
    free.sees("not beside somebody who may only type").await;
    assert_eq!(mode(), "\n");
    tmux(&world, &["choose-tree", "-t", "main"]);
    eventually(|| (mode() == "\n").then_some(())).await;
    drives.types(b":run-shell 'touch ran'\r");
    drives.sees("got :run-shell 'touch ran'").await;
    assert!(!world.attempt.work().join("ran").exists());
    drives.types(b"\x02d");
    assert_eq!(drives.closes().await, Some(0));
    eventually(|| (tmux(&world, &["list-sessions", "-F", "#{session_name}"]) == "main\n").then_some(())).await;
    free.types(b"\x02w");
    eventually(|| (mode() == "tree-mode\n").then_some(())).await;
    // Who reads back disturbs nobody.
    for (keys, then) in [(&b"q"[..], "\n"), (b"\x02[", "copy-mode\n"), (b"q", "\n")] {
        free.types(keys);
        eventually(|| (mode() == then).then_some(())).await;
    }
    free.types(b"\x02d");
    assert_eq!(free.closes().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_was_left_where_nobody_looks_ends_when_a_driver_sees_it() {
    let world = world().await;
    let mode = |pane: &str| tmux(&world, &["display-message", "-p", "-t", pane, "#{pane_mode}"]);
    let mut free = Window::open(&world.person("ada", Profile::Workspace), (80, 24), &["sculpt-attach"]);
    free.sees("ready").await;
    for (makes, pane) in [("split-window", "main:0.1"), ("new-window", "main:1.0")] {
        tmux(&world, &[makes, "-d", "-t", if makes == "new-window" { "main:1" } else { "main:0" }, "sleep 1000"]);
        tmux(&world, &["choose-tree", "-t", pane]);
        assert_eq!(mode(pane), "tree-mode\n");
    }
    let mut drives = Window::open(&world.person("bob", Profile::Attach), (80, 24), &[]);
    drives.sees("ready").await;
    assert_eq!((mode("main:0.1"), mode("main:1.0")), ("tree-mode\n".into(), "tree-mode\n".into()));
    tmux(&world, &["select-pane", "-t", "main:0.1"]);
    eventually(|| (mode("main:0.1") == "\n").then_some(())).await;
    let theirs = tmux(&world, &["list-sessions", "-F", "#{session_name}"]);
    let theirs = theirs.lines().find(|name| *name != "main").expect("their session");
    tmux(&world, &["select-window", "-t", &format!("{theirs}:1")]);
    eventually(|| (mode("main:1.0") == "\n").then_some(())).await;
    drives.types(b"\x02d");
    assert_eq!(drives.closes().await, Some(0));
    free.types(b"\x02d");
    assert_eq!(free.closes().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_types_goes_to_the_agent_whatever_others_have_open() {
    let world = world().await;
    let active = || tmux(&world, &["display-message", "-p", "-t", "main:0", "#{pane_id}"]);
    let mut free = Window::open(&world.person("ada", Profile::Workspace), (80, 24), &["sculpt-attach"]);
    free.sees("ready").await;
    assert_eq!(active(), "%0\n");
    let shell = "while read -r line; do echo \"$line\" >> stolen; done";
    tmux(&world, &["split-window", "-t", "main:0", shell]);
    tmux(&world, &["new-window", "-t", "main:1", shell]);
    assert_eq!(active(), "%1\n");
    let mut drives = Window::open(&world.person("bob", Profile::Attach), (80, 24), &[]);
    drives.sees("ready").await;
    assert_eq!(active(), "%0\n");
    drives.types(b"first\r");
    drives.sees("got first").await;
    tmux(&world, &["select-pane", "-t", "%1"]);
    eventually(|| (active() == "%0\n").then_some(())).await;
    drives.types(b"second\r");
    drives.sees("got second").await;
    // Who has a shell is told why no other pane comes, and has windows of their own.
    tmux(&world, &["select-window", "-t", "main:0"]);
    free.types(b"\x02%");
    free.sees("not beside somebody who may only type").await;
    assert!(!world.attempt.work().join("stolen").exists());
    drives.types(b"\x02d");
    assert_eq!(drives.closes().await, Some(0));
    eventually(|| (tmux(&world, &["list-sessions", "-F", "#{session_name}"]) == "main\n").then_some(())).await;
    tmux(&world, &["select-pane", "-t", "%1"]);
    assert_eq!(active(), "%1\n");
    free.types(b"\x02d");
    assert_eq!(free.closes().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_is_asked_for_by_name_where_a_shell_is_allowed() {
    let world = world().await;
    let ada = world.person("ada", Profile::Workspace);
    let mut seat = Window::open(&ada, (90, 25), &["sculpt-attach"]);
    seat.sees("ready").await;
    seat.types(b"hello\r");
    seat.sees("24 90").await;
    seat.resizes((70, 22));
    let width = || tmux(&world, &["display-message", "-p", "-t", "main", "#{window_width}x#{window_height}"]);
    eventually(|| (width() == "70x21\n").then_some(())).await;
    seat.types(b"\x02d");
    seat.sees("detached").await;
    assert_eq!(seat.closes().await, Some(0));
    let mut looks_on = Window::open(&ada, (60, 20), &["sculpt-attach", "--read-only"]);
    looks_on.sees("ready").await;
    looks_on.types(b"nothing\r\x03\x03");
    assert_eq!(looks_on.closes().await, Some(0));
    let said = ada.ssh(&["sculpt-attach"]).await;
    assert!(said.code == Some(69) && said.err.contains("`ssh -t`"), "{said:?}");
    assert!(!String::from_utf8(world.attempt.log(None)).unwrap().contains("nothing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_nothing_of_a_persons_terminal() {
    let world = world().await;
    let mut seat = Window::open(&world.person("ada", Profile::Attach), (80, 24), &[]);
    seat.sees("ready").await;
    // What it writes past tmux: the client's terminal is one of its own account.
    let client = tmux(&world, &["list-clients", "-F", "#{client_tty}"]);
    let mut terminal = File::options().write(true).open(client.trim()).unwrap();
    terminal.write_all(b"\x1b]52;c;?\x07\x1b[21t\x1bP$qm\x1b\\\x1b[6nshown").unwrap();
    seat.sees("shown").await;
    let seen = seat.seen();
    assert!(!["]52", "[21t", "$qm", "[6n"].iter().any(|asks| seen.contains(asks)), "{seen:?}");
    seat.types(b"\x02d");
    assert_eq!(seat.closes().await, Some(0), "nor does it keep anybody there");
    drop(terminal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_nobody_knows_is_told_and_taken_for_another() {
    let world = world().await;
    let ada = world.person("ada", Profile::Workspace);
    let mut seat = Window::open_as(&ada, "from-tomorrow", (120, 24), &["sculpt-attach"]);
    seat.sees("this host does not know the type of your terminal; xterm-256color is used").await;
    // A key is enough to have read it.
    seat.types(b"hello\r");
    seat.sees("got hello").await;
    seat.types(b"\x02d");
    assert_eq!(seat.closes().await, Some(0));
    let mut shell = Window::open_as(&ada, "from-tomorrow", (80, 24), &[]);
    shell.sees("sculpt: this host does not know the terminal \"from-tomorrow\"").await;
    shell.types(b"exit\r");
    assert_eq!(shell.closes().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_no_terminal_has_are_none_here() {
    let world = world().await;
    let ada = world.person("ada", Profile::Attach);
    for (size, shown) in [((0, 0), "80x23\n"), ((10_000, 10_000), "1000x499\n")] {
        let mut seat = Window::open(&ada, size, &[]);
        seat.sees("ready").await;
        let width = || tmux(&world, &["display-message", "-p", "-t", "main", "#{window_width}x#{window_height}"]);
        eventually(|| (width() == shown).then_some(())).await;
        seat.types(b"\x02d");
        assert_eq!(seat.closes().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_ends_with_its_pairing_and_the_agent_goes_on() {
    let mut world = world().await;
    let ada = world.person("ada", Profile::Attach);
    let seat = Window::open(&ada, (80, 24), &[]);
    seat.sees("ready").await;
    world.take_back(&ada);
    seat.sees("this pairing was taken back").await;
    // Their own terminal is as it was before, when they read that.
    let seen = seat.seen();
    assert!(seen.find("\x1b[?1049l") < seen.find("this pairing was taken back"), "{seen:?}");
    assert!(!seen.contains("terminated"), "the agent was not: {seen:?}");
    assert_eq!(seat.closes().await, Some(255));
    assert_eq!(told(&mut world, 2).await, ["ada driver", "ada gone this pairing was taken back"]);
    assert!(world.place().lives());
    eventually(|| tmux(&world, &["list-clients"]).is_empty().then_some(())).await;
    world.client.stop(std::time::Duration::from_millis(100)).await.unwrap();
    ended(&world.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_lost_is_told_and_can_be_come_back_to() {
    let mut world = world().await;
    let ada = world.person("ada", Profile::Attach);
    let seat = Window::open(&ada, (80, 24), &[]);
    seat.sees("ready").await;
    let server = world.view().server().await.unwrap();
    server.signal(Signal::KILL);
    seat.sees("the agent's terminal was lost and is made anew").await;
    assert_eq!(seat.closes().await, Some(75));
    let told = told(&mut world, 2).await;
    assert!(told[1].starts_with("ada gone the agent's terminal was lost"), "{told:?}");
    // Who comes before it is there waits for it.
    let mut again = Window::open(&ada, (80, 24), &[]);
    assert!(world.view().ensure().await.unwrap());
    again.sees("ready").await;
    again.types(b"back\r");
    again.sees("got back").await;
    again.types(b"\x02d");
    assert_eq!(again.closes().await, Some(0));
}

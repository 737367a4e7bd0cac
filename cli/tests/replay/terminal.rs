//! A replay on a terminal, which it leaves as it was.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::{HOUR, start};

/// A terminal, with somebody before it.
struct Terminal {
    keys: File,
    programs: OwnedFd,
    seen: Vec<u8>,
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let programs = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { keys: master.into(), programs, seen: Vec::new() }
    }

    fn spawn(&self, mut command: Command) -> Child {
        let end = || self.programs.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits until `text` was shown since this was last asked for, and gives all that was.
    fn shows(&mut self, text: &str) -> String {
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let mut buffer = [0; 4096];
        loop {
            let shown = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = shown.find(text) {
                self.seen.drain(..at + text.len());
                return shown;
            }
            let ready = poll(&mut [PollFd::new(&self.keys, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "{text:?} is not in {shown:?}");
            let length = self.keys.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..length]);
        }
    }

    fn settings(&self) -> (InputModes, OutputModes, LocalModes) {
        let settings = tcgetattr(&self.programs).unwrap();
        (settings.input_modes, settings.output_modes, settings.local_modes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_paused_and_ended_by_keys() {
    let recorded = [(0, 80, &b"\x1b[?25l\x1b[6nhello\nthere"[..]), (HOUR, 0, b"late"), (2 * HOUR, 0, b"later")];
    let (sandbox, _controller) = start(&recorded).await;
    let replay = |args: &[&str]| sandbox.sculpt(&sandbox.path("home"), &[&["replay", "17"], args].concat());
    tokio::task::block_in_place(|| {
        let mut terminal = Terminal::open(100, 30);
        let before = terminal.settings();
        for key in [b"q", b"\x03"] {
            let mut child = terminal.spawn(replay(&[]));
            let shown = terminal.shows("hello\nthere");
            assert!(!shown.contains("[6n"), "what makes the terminal answer is left out: {shown:?}");
            assert_ne!(terminal.settings(), before);
            terminal.press(b" x ");
            terminal.press(key);
            assert_eq!(child.wait().unwrap().code(), Some(0));
            terminal.shows("\x1b[?25h");
            assert_eq!(terminal.settings(), before, "it is given back as it was");
        }
        let mut child = terminal.spawn(replay(&[]));
        terminal.shows("hello\nthere");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        terminal.shows("\x1b[?25h");
        assert_eq!(terminal.settings(), before, "also by who is asked to end");
        // What was before is shown at once.
        let mut child = terminal.spawn(replay(&["--from", "1h"]));
        terminal.shows("hello\ntherelate");
        terminal.press(b"q");
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(terminal.settings(), before);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_too_small_is_told_before() {
    let (sandbox, _controller) = start(&[(0, 80, b"hello")]).await;
    tokio::task::block_in_place(|| {
        let mut terminal = Terminal::open(40, 10);
        let mut child = terminal.spawn(sandbox.sculpt(&sandbox.path("home"), &["replay", "17"]));
        let shown = terminal.shows("press Space");
        assert!(shown.contains("40 columns and 10 rows") && shown.contains("80 and 24"), "{shown:?}");
        assert!(!shown.contains("hello"), "{shown:?}");
        terminal.press(b" ");
        terminal.shows("hello");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

//! A replay on a terminal, which it leaves as it was.

use super::{HOUR, start};
use crate::terminal::Terminal;

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

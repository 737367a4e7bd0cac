//! What somebody who comes after a break reads before they sit down.

use std::time::{SystemTime, UNIX_EPOCH};

use sculpt_proto::v1::Milestone;

use super::{running, tool};
use crate::{controller::Controller, terminal::Terminal};

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_reads_first_what_they_missed() {
    let mut task = running();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    task.attempts[0].started_at = Some(prost_types::Timestamp { seconds: now - 3_600, nanos: 0 });
    task.intent_line = "dates without a locale".into();
    task.milestones = vec![Milestone { text: "the parser passes".into(), ..Milestone::default() }];
    let written = b"\x1b[31mcompiling\x1b[0m\r\ntests \x1b[6mgo on\r\n";
    task.attempts[0].log_bytes = written.len() as u64;
    let (sandbox, controller) = Controller::known(task).await;
    controller.script.log.lock().unwrap().extend_from_slice(written);
    let tools = tool(&sandbox, "ssh", "echo sculpt-is-in >&2\necho the agent itself\n");
    tokio::task::block_in_place(|| {
        // The log's end is told where it is there soon, and nobody waits for it.
        let comes_soon = (0..50).any(|_| {
            let mut terminal = Terminal::open(80, 24);
            let mut command = sandbox.sculpt(&sandbox.path("home"), &["pair", "17"]);
            command.env("PATH", &tools).env("TERM", "xterm-256color");
            let mut child = terminal.spawn(command);
            let before = terminal.shows("the agent itself");
            let places = ["task 17  dates without a locale", "the parser passes"].map(|words| before.find(words));
            assert!(places[0].is_some() && places[0] < places[1], "{before:?}");
            terminal.shows("task 17 goes on");
            assert_eq!(child.wait().unwrap().code(), Some(0));
            before.contains("  | compiling\r\n  | tests go on\r\n")
        });
        assert!(comes_soon, "the log's end was never told");
    });
}

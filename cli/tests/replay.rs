//! What a task wrote, played again and written as an asciicast.

mod terminal;

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sculpt_proto::v1::{Attempt, LogFrame, LogSize, LogStream, Task, TaskState};
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    controller::Controller,
    sandbox::{Ran, Sandbox, run},
};

const HOUR: u64 = 3_600_000;

/// A recorded frame: when, in which columns if they had changed, and its bytes.
type Recorded<'a> = (u64, u32, &'a [u8]);

fn task() -> Task {
    let started_at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
    Task {
        uuid: "0198c0de-0000-7000-8000-000000000017".into(),
        number: 17,
        title: "work".into(),
        state: TaskState::Completed.into(),
        attempts: vec![Attempt {
            number: 1,
            state: "ended".into(),
            log_complete: true,
            started_at,
            ..Attempt::default()
        }],
        ..Task::default()
    }
}

async fn start(recorded: &[Recorded<'_>]) -> (Sandbox, Controller) {
    let (sandbox, controller) = Controller::known(task()).await;
    for (time_ms, columns, bytes) in recorded {
        let size = (*columns > 0).then_some(LogSize { columns: *columns, rows: 24 });
        let (length, stream) = (u32::try_from(bytes.len()).unwrap(), LogStream::Terminal.into());
        controller.script.frames.lock().unwrap().push(LogFrame { length, stream, time_ms: *time_ms, size });
        controller.script.log.lock().unwrap().extend_from_slice(bytes);
    }
    (sandbox, controller)
}

/// The header and the events of an asciicast, after a look at all that version 2 of the format asks for.
fn asciicast(text: &str) -> (Value, Vec<(f64, String, String)>) {
    assert!(text.ends_with('\n'), "{text:?}");
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], json!(2));
    assert!(header["width"].as_u64().unwrap() > 0 && header["height"].as_u64().unwrap() > 0, "{header}");
    let events: Vec<(f64, String, String)> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut before = 0.0;
    for (at, code, data) in &events {
        assert!(*at >= before, "{at} after {before}");
        before = *at;
        match code.as_str() {
            "o" => assert!(!data.is_empty()),
            "r" => {
                let (columns, rows) = data.split_once('x').unwrap();
                assert!(columns.parse::<u16>().unwrap() > 0 && rows.parse::<u16>().unwrap() > 0, "{data}");
            }
            _ => panic!("{code:?} is no event of a recording"),
        }
    }
    (header, events)
}

fn event(at: f64, code: &str, data: &str) -> (f64, String, String) {
    (at, code.to_owned(), data.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_holds_what_was_written_when_and_how_wide() {
    let check = "✓".as_bytes();
    let recorded: &[Recorded<'_>] = &[
        (0, 200, b"\x1b[1mone \x1b]52;c;aGk=\x07\x1b[6n"),
        (1500, 0, &check[..1]),
        (1600, 80, &check[1..]),
        (HOUR, 0, b"two\xff\r\n"),
    ];
    let (sandbox, controller) = start(recorded).await;
    let home = sandbox.path("home");
    let expected = [
        event(0.0, "o", "\u{1b}[1mone "),
        event(1.6, "r", "80x24"),
        event(1.6, "o", "✓"),
        event(3600.0, "o", "two\u{fffd}\r\n"),
    ];
    // Wherever the connection breaks, no byte and no size is lost or doubled.
    for at in [None, Some(0), Some(1), Some(8), Some(9), Some(10), Some(12)] {
        controller.script.breaks.lock().unwrap().extend(at);
        for args in [&["replay", "17", "--cast", "-"][..], &["replay", "17", "-o", "json"]] {
            let done = run(sandbox.sculpt(&home, args)).await;
            assert_eq!(done.code, 0, "{}", done.stderr);
            let (header, events) = asciicast(&done.stdout);
            assert_eq!(
                header,
                json!({
                    "version": 2, "width": 200, "height": 24, "timestamp": 1_700_000_000, "title": "task 17: work",
                    "env": { "TERM": "xterm-256color" },
                })
            );
            // A frame that came in two parts is two events of one time.
            let whole = events.into_iter().fold(Vec::<(f64, String, String)>::new(), |mut whole, (at, code, data)| {
                match whole.last_mut().filter(|(before, of, _)| (*before, of.as_str()) == (at, "o") && code == "o") {
                    Some((.., text)) => text.push_str(&data),
                    None => whole.push((at, code, data)),
                }
                whole
            });
            assert_eq!(whole, expected, "broken at {at:?}");
        }
    }
    let args = ["replay", "17", "--cast", "-", "--speed", "2", "--idle-limit", "10s", "--from", "1s"];
    let done = run(sandbox.sculpt(&home, &args)).await;
    let times: Vec<f64> = asciicast(&done.stdout).1.iter().map(|(at, ..)| *at).collect();
    assert_eq!(times, [0.0, 0.3, 0.3, 5.3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_there_whole_or_not_at_all() {
    let (sandbox, controller) = start(&[(0, 80, b"one"), (2000, 0, b"two")]).await;
    let home = sandbox.path("home");
    let file = home.join("film.cast");
    let done = run(sandbox.sculpt(&home, &["replay", "17", "--cast", "film.cast"])).await;
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{}", done.stderr);
    assert!(done.stderr.contains("wrote film.cast: 80x24, plays for 2s"), "{}", done.stderr);
    let whole = fs::read_to_string(&file).unwrap();
    assert_eq!(asciicast(&whole).1, [event(0.0, "o", "one"), event(2.0, "o", "two")]);
    let mask = fs::metadata(home.join(".config")).unwrap().permissions().mode() & 0o666;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mask, "as any file of the user");

    run(sandbox.sculpt(&home, &["replay", "17", "--cast", "film.cast"]))
        .await
        .refuses(7, &["film.cast", "there already"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);
    run(sandbox.sculpt(&home, &["replay", "17", "--cast", "none/film.cast"])).await.refuses(64, &["none/film.cast"]);

    let told = run(sandbox.sculpt(&home, &["replay", "17", "--cast", "other.cast", "-o", "json"])).await;
    let expected = json!({
        "task": 17, "attempt": 1, "file": "other.cast", "complete": true, "columns": 80, "rows": 24, "events": 2,
        "seconds": 2.0,
    });
    assert_eq!(serde_json::from_str::<Value>(&told.stdout).unwrap(), expected, "{}", told.stderr);

    *controller.script.no_log.lock().unwrap() = Some(Status::not_found("the log was dropped"));
    run(sandbox.sculpt(&home, &["replay", "17", "--cast", "third.cast"])).await.refuses(6, &["the log was dropped"]);
    let mut left: Vec<_> = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".config", "film.cast", "other.cast"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_is_refused_by_its_reason() {
    let (sandbox, controller) = start(&[(0, 80, b"one")]).await;
    let home = sandbox.path("home");
    for (option, value) in [
        ("--speed", "0"),
        ("--speed", "-1"),
        ("--speed", "NaN"),
        ("--speed", "inf"),
        ("--speed", "1001"),
        ("--speed", "fast"),
        ("--from", "0s"),
        ("--from", "-5s"),
        ("--idle-limit", "soon"),
        ("--attempt", "0"),
    ] {
        let option = format!("{option}={value}");
        run(sandbox.sculpt(&home, &["replay", "17", &option])).await.refuses(2, &[value]);
    }
    run(sandbox.sculpt(&home, &["replay", "17", "--attempt", "2"])).await.refuses(6, &["has had 1 attempt so far"]);
    run(sandbox.sculpt(&home, &["replay", "18"])).await.refuses(6, &["There is no task 18"]);
    controller.script.task.send_modify(|task| {
        task.attempts.clear();
        task.state = TaskState::Queued.into();
    });
    let queued = run(sandbox.sculpt(&home, &["replay", "17"])).await;
    queued.refuses(7, &["it is queued and has no log yet", "sculpt logs -f 17"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_in_their_time() {
    let (sandbox, controller) = start(&[(0, 200, b"\x1b[6none\xff"), (1, 80, b" and\n"), (HOUR, 0, b"two")]).await;
    let home = sandbox.path("home");
    // An hour is not waited for; what was before it is there.
    let mut command = sandbox.sculpt(&home, &["replay", "17"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (ended, first) = tokio::task::spawn_blocking(move || {
        let mut first = [0; 13];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        (Ran::from(child.wait_with_output().unwrap()), first)
    })
    .await
    .unwrap();
    assert_eq!(&first, b"\x1b[6none\xff and\n", "a pipe gets the bytes as they are");
    assert_eq!((ended.code, ended.stdout.as_str()), (130, ""), "{}", ended.stderr);

    for args in [
        &["replay", "17", "--idle-limit", "1ms"][..],
        &["replay", "17", "--idle-limit", "1s", "--speed", "1000"],
        &["replay", "17", "--from", "1h"],
        &["replay", "17", "--from", "5h"],
    ] {
        let mut command = sandbox.sculpt(&home, args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.stdout, b"\x1b[6none\xff and\ntwo", "{args:?}: {words}");
        assert_eq!(words.contains("only 1h long"), args.contains(&"5h"), "{words}");
    }

    // Of what goes on it plays what there is.
    *controller.script.complete.lock().unwrap() = false;
    controller.script.task.send_modify(|task| {
        task.attempts[0].state = "running".into();
        task.attempts[0].log_complete = false;
    });
    let so_far = run(sandbox.sculpt(&home, &["replay", "17", "--from", "1h"])).await;
    assert_eq!(so_far.code, 0);
    assert!(so_far.stderr.contains("goes on") && so_far.stderr.contains("sculpt logs -f 17"), "{}", so_far.stderr);
}

//! The log of a task on our standard output, byte for byte, and what is said where it has no end.

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sculpt_proto::v1::{LogFrame, LogStream, TaskState};
use tonic::Status;

use super::{failed, run, task};
use crate::{controller::Controller, sandbox::Ran};

/// Runs the command and gives its exact bytes.
async fn bytes(mut command: Command) -> (i32, Vec<u8>) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code().unwrap(), output.stdout)
}

fn binary(length: u32) -> Vec<u8> {
    (0..length).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_arrives_once_whatever_breaks() {
    let (sandbox, controller) = Controller::known(failed()).await;
    let log = binary(40_000);
    controller.script.log.lock().unwrap().clone_from(&log);
    let home = sandbox.path("home");
    for args in [&["run", "--no-repo", "--", "work"][..], &["logs", "-f", "17"], &["logs", "17"]] {
        controller.script.breaks.lock().unwrap().extend([0, 1, 999, 1000, 1001, 50_000]);
        let (code, out) = bytes(sandbox.sculpt(&home, args)).await;
        assert_eq!(code, i32::from(args[0] == "run"), "{args:?}");
        assert!(out == log, "{args:?}: {} bytes of {}", out.len(), log.len());
    }
    let (_, rest) = bytes(sandbox.sculpt(&home, &["logs", "17", "--from-offset", "159999"])).await;
    assert_eq!(rest, log[159_999..]);
    run(sandbox.sculpt(&home, &["logs", "17", "--from-offset", "160001"])).await.refuses(64, &["160000 bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_an_agent_are_errors_here_and_part_of_its_log() {
    let (sandbox, controller) = Controller::known(failed()).await;
    controller.script.log.lock().unwrap().extend_from_slice(b"outerr\x1b[31mmore");
    let frame = |length, stream: LogStream| LogFrame { length, stream: stream.into(), ..LogFrame::default() };
    let frames = [frame(3, LogStream::Stdout), frame(8, LogStream::Stderr), frame(4, LogStream::Stdout)];
    controller.script.frames.lock().unwrap().extend(frames);
    let home = sandbox.path("home");
    let done = run(sandbox.sculpt(&home, &["run", "--no-repo", "--no-tty", "--", "work"])).await;
    assert_eq!(done.stdout, "outmore");
    assert!(done.stderr.contains("err\x1b[31m") && !done.stderr.contains("more"), "{:?}", done.stderr);
    // The log itself is one, and every byte of it has its place.
    for (args, log) in [
        (&["logs", "17"][..], "outerr\x1b[31mmore"),
        (&["logs", "17", "--plain"], "outerrmore"),
        (&["logs", "-f", "17"], "outerr\x1b[31mmore"),
        (&["logs", "17", "--from-offset", "4"], "rr\x1b[31mmore"),
    ] {
        let done = run(sandbox.sculpt(&home, args)).await;
        assert_eq!((done.stdout.as_str(), done.stderr.contains("31m")), (log, false), "{args:?}: {}", done.stderr);
    }
    // A program is told which bytes are which.
    let told = run(sandbox.sculpt(&home, &["logs", "17", "-o", "json"])).await;
    assert!(told.stderr.is_empty() && told.stdout.lines().count() == 3, "{}{}", told.stdout, told.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_called_by_its_number() {
    let (sandbox, controller) = Controller::known(failed()).await;
    *controller.script.no_log.lock().unwrap() = Some(Status::not_found("the task was removed"));
    let home = sandbox.path("home");
    for args in [&["run", "--no-repo", "--", "work"][..], &["logs", "17"], &["logs", "-f", "17"]] {
        let done = run(sandbox.sculpt(&home, args)).await;
        assert_eq!(done.code, 6, "{args:?}: {}", done.stderr);
        assert!(
            done.stderr.contains("cannot read the log of attempt 1 of task 17: the task was removed"),
            "{}",
            done.stderr
        );
        assert!(!done.stderr.contains("0198c0de"), "{}", done.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_end_does_not_come_is_no_success() {
    let mut ended = failed();
    ended.attempts[0].state = "ended".into();
    let (sandbox, controller) = Controller::known(ended).await;
    controller.script.log.lock().unwrap().extend_from_slice(b"the first line\n");
    // Nothing comes after the first bytes, however often it is asked for.
    controller.script.breaks.lock().unwrap().extend([1000; 1000]);
    let done = run(sandbox.sculpt(&sandbox.path("home"), &["logs", "17", "--patience", "5s"])).await;
    assert_eq!((done.code, done.stdout.as_str()), (1, "the first line\n"), "{}", done.stderr);
    assert!(done.stderr.contains("have not arrived") && done.stderr.contains("sculpt logs -f 17"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_detaches_and_says_how_to_come_back() {
    let (sandbox, controller) = Controller::known(task(TaskState::Running)).await;
    controller.script.log.lock().unwrap().extend_from_slice(b"the first line\n");
    let home = sandbox.path("home");
    for args in [&["run", "--no-repo", "--", "work"][..], &["logs", "-f", "17"]] {
        // The log goes on for ever: each stream of it breaks after its bytes.
        controller.script.breaks.lock().unwrap().extend([1000; 1000]);
        let mut command = sandbox.sculpt(&home, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (ran, out) = tokio::task::spawn_blocking(move || {
            let mut out = [0; 15];
            child.stdout.as_mut().unwrap().read_exact(&mut out).unwrap();
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            (Ran::from(child.wait_with_output().unwrap()), out)
        })
        .await
        .unwrap();
        assert_eq!(&out, b"the first line\n");
        assert_eq!((ran.code, ran.stdout.as_str()), (130, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("detached: task 17") && ran.stderr.contains("sculpt logs -f 17"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_no_error() {
    let (sandbox, controller) = Controller::known(failed()).await;
    controller.script.log.lock().unwrap().extend_from_slice(&binary(400_000));
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["logs", "17"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ran = tokio::task::spawn_blocking(move || {
        drop(child.stdout.take());
        Ran::from(child.wait_with_output().unwrap())
    });
    let ran = ran.await.unwrap();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_given_up_is_no_success() {
    let mut given_up = failed();
    given_up.attempts[0].state = "ended".into();
    let (sandbox, controller) = Controller::known(given_up.clone()).await;
    controller.script.log.lock().unwrap().extend_from_slice(b"a stump\n");
    let home = sandbox.path("home");
    let done = run(sandbox.sculpt(&home, &["logs", "17"])).await;
    assert_eq!((done.code, done.stdout.as_str()), (1, "a stump\n"), "{}", done.stderr);
    assert!(done.stderr.contains("given up before all of its log had arrived"), "{}", done.stderr);
    given_up.attempts[0].log_complete = true;
    controller.script.task.send_replace(given_up);
    assert_eq!(run(sandbox.sculpt(&home, &["logs", "17"])).await.code, 0);
}

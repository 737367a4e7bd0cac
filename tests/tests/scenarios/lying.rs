//! Executors that lie: each lie is refused, what no executor says ends the session, and neighbours notice nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use sculpt_proto::{
    executor::v1::{
        Accepted, AttemptSpec, Ended, Finalizing, ObservedAttempt, Preparing, PutSpecRequest, Report, Running,
        control_request::Part, ended::Outcome, log_refusal, logs_response, report::Step, report_ack::Refusal,
    },
    v1::{Command, Exit, Failure, LogFrame, TaskSpec, task_spec},
};
use sculpt_tests::harness::{
    Peer, Stack,
    peer::{append, hello, resident},
};
use tonic::{Code, Status};
use uuid::Uuid;

/// The pool of the liars: honest tasks stay with the honest executor.
const POOL: &str = "liars";

fn report(attempt: &str, sequence: u64, step: Step) -> Report {
    Report { attempt_id: attempt.to_owned(), sequence, age: None, step: Some(step) }
}

fn ended(log_length: u64) -> Ended {
    let exit = Some(Exit { code: Some(0), signal: None });
    Ended { outcome: Outcome::Completed.into(), exit, log_length, ..Ended::default() }
}

fn note(length: usize) -> Step {
    Step::Note(sculpt_proto::executor::v1::Note { text: "x".repeat(length) })
}

/// Messages that no executor sends, each with the word on which its session ends.
fn outrages() -> Vec<(&'static str, Part, Code)> {
    let attempt = Uuid::new_v4().to_string();
    let told = |report: Report| Part::Report(report);
    let aged = |seconds| Report {
        age: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..report(&attempt, 1, Step::Accepted(Accepted {}))
    };
    let end = |ended: Ended| told(report(&attempt, 1, Step::Ended(ended)));
    vec![
        ("a second Hello", Part::Hello(hello("twice", POOL)), Code::InvalidArgument),
        ("a message over 256 KiB", told(report(&attempt, 1, note(300 << 10))), Code::ResourceExhausted),
        ("a message over 4 MiB", told(report(&attempt, 1, note(5 << 20))), Code::OutOfRange),
        ("an attempt that is no uuid", told(report("../17", 1, note(1))), Code::InvalidArgument),
        ("a report of nothing", told(Report { step: None, ..report(&attempt, 1, note(1)) }), Code::InvalidArgument),
        ("sequence 0", told(report(&attempt, 0, note(1))), Code::InvalidArgument),
        ("a negative sequence", told(report(&attempt, u64::MAX, note(1))), Code::InvalidArgument),
        ("a report from the future", told(aged(-3600)), Code::InvalidArgument),
        ("a report from the dinosaurs", told(aged(i64::MAX)), Code::InvalidArgument),
        ("an end without an outcome", end(Ended { outcome: 0, ..ended(0) }), Code::InvalidArgument),
        ("a negative length", end(ended(u64::MAX)), Code::InvalidArgument),
        ("a head that is none", end(Ended { head: "--upload-pack=x".into(), ..ended(0) }), Code::InvalidArgument),
    ]
}

#[tokio::test]
async fn what_no_executor_says_ends_its_session_alone() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let liar = hello("liar", POOL);
    for (what, part, code) in outrages() {
        // Each time it is welcome again.
        let peer = stack.peer(liar.clone()).await?;
        peer.say(part).await;
        let end = peer.closed().await?;
        ensure!(end.code() == code, "after {what} the session ended with {end:?}");
    }
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

/// A set of attempts without end fills no memory.
#[tokio::test]
async fn attempts_without_number_end_the_session() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let before = memory(&stack)?;
    let peer = stack.peer(hello("liar", POOL)).await?;
    let one = |_| ObservedAttempt {
        attempt_id: Uuid::new_v4().to_string(),
        task_id: Uuid::new_v4().to_string(),
        number: 1,
        cluster_id: peer.cluster.clone(),
        ..ObservedAttempt::default()
    };
    // One more than any executor may have.
    for _ in 0..100 {
        peer.observe((0..1000).map(one).collect(), false).await;
    }
    peer.observe((0..1).map(one).collect(), true).await;
    let end = peer.closed().await?;
    ensure!(end.code() == Code::ResourceExhausted, "the session ended with {end:?}");
    grew_little(&stack, before)?;
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

/// Resident memory of the controller, in bytes.
fn memory(stack: &Stack) -> Result<u64> {
    let controller = stack.processes("sculpt-controller serve").into_iter().next().context("the controller runs")?;
    resident(controller.pid)
}

fn grew_little(stack: &Stack, before: u64) -> Result<()> {
    let grown = memory(stack)?.saturating_sub(before) >> 20;
    ensure!(grown < 128, "the controller grew by {grown} MiB");
    Ok(())
}

/// Takes the attempt of a task of its own, up to and with its agent running.
async fn take_one(stack: &Stack, peer: &mut Peer) -> Result<(String, String)> {
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--pool", POOL, "--", "true"]).await?;
    let attempt = peer.offered().await?;
    let running = Step::Running(Running { pid: 1, tmux_socket: String::new() });
    for (sequence, step) in (1..).zip([Step::Accepted(Accepted {}), Step::Preparing(Preparing {}), running]) {
        let ack = peer.report(&attempt, sequence, step).await?;
        ensure!(ack.through == sequence && ack.refusal() == Refusal::Unspecified, "{ack:?}");
    }
    Ok((task, attempt))
}

/// What contradicts the rows is refused with its reason, moves nothing, and the session goes on.
#[tokio::test]
async fn reports_that_cannot_be_true_move_nothing() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let mut peer = stack.peer(hello("liar", POOL)).await?;
    let (task, own) = take_one(&stack, &mut peer).await?;
    let failure = Some(Failure { cause: "internal".into(), message: "I say so".into() });
    let failed = Ended { outcome: Outcome::Failed.into(), failure, ..Ended::default() };
    let foreign = stack.attempt_of(&neighbour.task).await?;
    let invented = Uuid::new_v4().to_string();
    let published = Ended { head: "1".repeat(40), ..ended(0) };
    for (what, attempt, sequence, step, refusal) in [
        ("the end of another's attempt", &foreign, 4, Step::Ended(failed.clone()), Refusal::UnknownAttempt),
        ("an invented attempt", &invented, 1, Step::Accepted(Accepted {}), Refusal::UnknownAttempt),
        ("a report out of order", &own, 6, Step::Ended(ended(0)), Refusal::Gap),
        ("a head that nobody published", &own, 4, Step::Ended(published), Refusal::Illegal),
        ("a step backwards", &own, 4, Step::Accepted(Accepted {}), Refusal::Illegal),
    ] {
        let ack = peer.report(attempt, sequence, step).await?;
        ensure!(ack.refusal() == refusal, "{what} was answered by {ack:?}");
    }
    let shown = stack.show(&task).await?;
    ensure!(shown["state"] == "running", "{shown:#}");
    let finalizing = Step::Finalizing(Finalizing { exit: Some(Exit { code: Some(0), signal: None }) });
    peer.report(&own, 5, finalizing).await?;
    peer.report(&own, 6, Step::Ended(ended(0))).await?;
    // An end that is told again, in other words, is the end that was told first.
    let again = peer.report(&own, 6, Step::Ended(failed)).await?;
    ensure!(again.through == 6 && again.refusal() == Refusal::Unspecified, "{again:?}");
    ensure!(stack.done(&task).await?["state"] == "completed");
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn log_bytes_that_cannot_be_are_not_taken() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let mut peer = stack.peer(hello("liar", POOL)).await?;
    let (task, own) = take_one(&stack, &mut peer).await?;
    let epoch = peer.epoch;
    let refused = |part: logs_response::Part| match part {
        logs_response::Part::Refusal(refusal) => Some(refusal.code()),
        logs_response::Part::Ack(_) => None,
    };
    let committed = |part: logs_response::Part| match part {
        logs_response::Part::Ack(ack) => Some(ack.committed),
        logs_response::Part::Refusal(_) => None,
    };

    let mut logs = peer.logs(epoch).await?;
    let foreign = stack.attempt_of(&neighbour.task).await?;
    let forged = logs.append(append(&foreign, 0, b"forged")).await?;
    ensure!(refused(forged) == Some(log_refusal::Code::UnknownAttempt));
    ensure!(committed(logs.append(append(&own, 1 << 40, b"far")).await?) == Some(0), "a gap is answered by the end");
    ensure!(committed(logs.append(append(&own, 0, b"truth")).await?) == Some(5));
    ensure!(committed(logs.append(append(&own, 3, b"th and more")).await?) == Some(14), "what is held is trimmed");
    ensure!(refused(logs.append(append(&own, 0, b"lies!")).await?) == Some(log_refusal::Code::Differs));

    let frames = |length| vec![LogFrame { length, stream: 1, ..LogFrame::default() }];
    for (what, epoch, bytes, code) in [
        ("a negative offset", epoch, append(&own, u64::MAX, b"x"), Code::InvalidArgument),
        ("an offset beyond any log", epoch, append(&own, i64::MAX as u64, b"x"), Code::InvalidArgument),
        ("over 256 KiB", epoch, append(&own, 14, &vec![b'x'; (256 << 10) + 1]), Code::InvalidArgument),
        ("over 4 MiB", epoch, append(&own, 14, &vec![b'x'; 5 << 20]), Code::OutOfRange),
        (
            "frames of other lengths",
            epoch,
            sculpt_proto::executor::v1::Append { frames: frames(9), ..append(&own, 14, b"x") },
            Code::InvalidArgument,
        ),
        ("an old session", epoch - 1, append(&own, 14, b"x"), Code::Aborted),
        ("a session to come", epoch + 1, append(&own, 14, b"x"), Code::Aborted),
    ] {
        let end = peer.logs(epoch).await?.append(bytes).await;
        ensure!(end.as_ref().is_err_and(|end| end.code() == code), "{what} was answered by {end:?}");
    }
    peer.report(&own, 4, Step::Ended(ended(14))).await?;
    ensure!(stack.done(&task).await?["state"] == "completed");
    ensure!(stack.logs(&task).await? == b"truth and more");
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

/// Whoever sends without reading the answers, or only questions, waits in its own connection and takes no memory.
#[tokio::test]
async fn a_flood_of_log_bytes_stays_in_its_own_connection() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let mut peer = stack.peer(hello("liar", POOL)).await?;
    let (task, own) = take_one(&stack, &mut peer).await?;
    let before = memory(&stack)?;
    let (flood, questions) = (peer.logs(peer.epoch).await?, peer.logs(peer.epoch).await?);
    let piece = vec![b'x'; 256 << 10];
    let patience = Duration::from_secs(2);
    // As much as it takes until nothing more is read, but not more than anybody has to send in this test.
    for _ in 0..400 {
        // Beyond the end: nothing of it may be kept, whatever is read of it.
        if !flood.send(append(&own, 1 << 30, &piece), patience).await {
            break;
        }
    }
    for _ in 0..20_000 {
        if !questions.send(append(&own, 0, b""), patience).await {
            break;
        }
    }
    grew_little(&stack, before)?;
    ensure!(stack.show(&neighbour.task).await?["state"] == "running");
    drop((flood, questions));
    peer.report(&own, 4, Step::Ended(ended(0))).await?;
    ensure!(stack.done(&task).await?["state"] == "completed");
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn nothing_forged_is_published_or_read() -> Result<()> {
    let stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let gate = stack.root().join("gate");
    let script = r#"git commit -q --allow-empty -m honest; echo ready; while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let arguments = ["--no-tty", "--", "sh", "-c", script, "x", &gate.to_string_lossy()].map(str::to_owned);
    let honest = stack.detached(repo.path(), arguments).await?;
    stack.log_until(&honest, "its commit", |log| log == b"ready\n").await?;
    let foreign = stack.attempt_of(&honest).await?;

    let mut peer = stack.peer(hello("liar", POOL)).await?;
    let own_task = stack.detached(repo.path(), ["--no-tty", "--pool", POOL, "--", "true"]).await?;
    let own = peer.offered().await?;
    let code = |answer: Result<String, Status>| answer.map_err(|status| status.code());
    let head = repo.git(["rev-parse", "HEAD"])?;
    let junk = b"PACK\0\0\0\x02\0\0\0\x01junk that is no object and no checksum";
    let size = junk.len() as u64;
    let elsewhere = "1".repeat(40);
    for (what, attempt, head, length, expected) in [
        ("a foreign attempt", foreign.as_str(), elsewhere.as_str(), size, Code::NotFound),
        ("an invented attempt", &Uuid::new_v4().to_string(), &elsewhere, size, Code::NotFound),
        ("a pack of junk", &own, &elsewhere, size, Code::InvalidArgument),
        ("a pack longer than it says", &own, &elsewhere, size - 1, Code::InvalidArgument),
        ("a pack shorter than it says", &own, &elsewhere, size + 1, Code::InvalidArgument),
        ("a head that is an option", &own, "--all", size, Code::InvalidArgument),
    ] {
        let answer = code(peer.publish(attempt, head, junk, length).await);
        ensure!(answer == Err(expected), "{what} was answered by {answer:?}");
    }
    let epoch = peer.epoch;
    let spec = |answer: Result<Vec<u8>, Status>| answer.map(drop).map_err(|status| status.code());
    ensure!(spec(peer.spec(&foreign, epoch).await) == Err(Code::NotFound), "a foreign spec is not handed out");
    ensure!(spec(peer.spec(&own, epoch + 1).await) == Err(Code::Aborted), "nor one to another session");

    std::fs::write(&gate, "")?;
    let shown = stack.done(&honest).await?;
    ensure!(shown["state"] == "needs_review" && shown["head"] != head.trim(), "{shown:#}");
    let failure = Some(Failure { cause: "setup".into(), message: "it never wanted to".into() });
    let failed = Ended { outcome: Outcome::Failed.into(), failure, ..Ended::default() };
    for (sequence, step) in (1..).zip([Step::Accepted(Accepted {}), Step::Ended(failed)]) {
        peer.report(&own, sequence, step).await?;
    }
    stack.sculpt(["wait", &own_task]).run().await?.exits(1)?;
    stack.finish().await
}

/// Nobody's attempt is taken over because an executor says so: it takes a person who asked for it, and a true spec.
#[tokio::test]
async fn specs_that_nobody_asked_for_make_no_task() -> Result<()> {
    let stack = Stack::parts().await?;
    let neighbour = stack.counting(&[]).await?;
    let foreign = stack.attempt_of(&neighbour.task).await?;
    let mut peer = stack.peer(hello("liar", POOL)).await?;
    let (task, own) = take_one(&stack, &mut peer).await?;
    let invented = Uuid::new_v4().to_string();
    let work = task_spec::Work::Command(Command { argv: vec![b"true".to_vec()] });
    let forged = AttemptSpec {
        cluster_id: peer.cluster.clone(),
        attempt_id: invented.clone(),
        task_id: Uuid::new_v4().to_string(),
        task_number: 99,
        number: 1,
        task: Some(TaskSpec { work: Some(work), ..TaskSpec::default() }),
        ..AttemptSpec::default()
    };
    let forged = forged.encode_to_vec();
    let (now, stale) = (peer.epoch, peer.epoch - 1);
    for (what, epoch, attempt, spec, code) in [
        ("an invented attempt", now, &invented, forged.clone(), Code::FailedPrecondition),
        ("another's attempt", now, &foreign, forged.clone(), Code::FailedPrecondition),
        ("its own, under another name", now, &own, forged.clone(), Code::FailedPrecondition),
        ("an old session", stale, &invented, forged, Code::Aborted),
        ("no spec at all", now, &invented, b"junk".to_vec(), Code::FailedPrecondition),
        ("a spec over 4 MiB", now, &invented, vec![0; 5 << 20], Code::OutOfRange),
    ] {
        let request = PutSpecRequest { executor_id: peer.id.clone(), epoch, attempt_id: attempt.clone(), spec };
        let answer = peer.client.put_spec(request).await.map(drop).map_err(|status| status.code());
        ensure!(answer == Err(code), "{what} was answered by {answer:?}");
    }
    let all = stack.sculpt(["ls", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(all.as_array().is_some_and(|all| all.len() == 2), "{all:#}");
    peer.report(&own, 4, Step::Ended(ended(0))).await?;
    ensure!(stack.done(&task).await?["state"] == "completed");
    neighbour.arrives(&stack).await?;
    neighbour.ends_well(&stack).await?;
    stack.finish().await
}

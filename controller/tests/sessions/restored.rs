//! A database that was set back to what it was before: it ends nothing, and takes again what it has lost.

use sculpt_proto::executor::v1::{
    Hello, LogAck, ObservedAttempt, Phase, control_response, log_refusal::Code as Refused, reject::Code as RejectCode,
    report_ack::Refusal,
};

use sculpt_controller::store::history;

use super::{
    Stack,
    executor::{Scripted, completed, finalizing, hello, observed},
};
use crate::make;

/// How many of everything have been taken from an executor.
const TAKEN: &str = "SELECT count(*) FROM attempts WHERE fenced_at IS NOT NULL OR released_at IS NOT NULL";

/// An executor that runs an attempt, and has written five bytes of its log.
async fn running(stack: &mut Stack, who: &Hello) -> String {
    let (mut executor, _) = Scripted::ready(stack, who.clone()).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let epoch = executor.epoch;
    let ack = executor.logs(epoch).await.append(&attempt, 0, b"12345").await.unwrap();
    assert_eq!(ack.committed, 5);
    attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_before_the_task_leaves_its_attempt_alone() {
    let who = hello("one");
    let (mut stack, mut before) = Stack::start().await.backup().await;
    let attempt = running(&mut stack, &who).await;

    let mut executor = Scripted::welcome(&mut before, who).await;
    let seen = ObservedAttempt { report_sequence: 3, log_length: 5, ..observed(&before, &attempt, false) };
    executor.observe(vec![seen.clone()]).await;
    let desired = executor.desired().await;
    assert_eq!((desired.attempts, desired.released, desired.adopted), (vec![], vec![], vec![]));
    assert_eq!(executor.report(&attempt, 4, finalizing(0)).await.refusal(), Refusal::UnknownAttempt);
    let epoch = executor.epoch;
    let refusal = executor.logs(epoch).await.append(&attempt, 5, b"678").await.unwrap_err();
    assert_eq!(refusal.code(), Refused::UnknownAttempt);
    let listed = "SELECT array_to_string(unknown, ' ') FROM executors";
    assert_eq!(before.value::<String>(listed).await, attempt);

    // The numbers are given again, and the attempts of one number are told apart by their uuids.
    make::task(&before.store).await;
    before.place().await;
    let again = executor.run_one().await;
    assert_ne!(again, attempt);
    let number = "SELECT t.number::text || '.' || a.number FROM tasks t JOIN attempts a ON a.task_id = t.id";
    assert_eq!(before.value::<String>(number).await, "1.1");
    assert_eq!(stack.value::<String>(number).await, "1.1");
    assert_eq!(executor.report(&attempt, 5, completed(5)).await.refusal(), Refusal::UnknownAttempt);
    executor.observe(vec![seen, observed(&before, &again, false)]).await;
    assert_eq!(executor.report(&again, 4, finalizing(0)).await.through, 4);
    assert_eq!(before.value::<String>("SELECT state::text FROM attempts").await, "finalizing");
    assert_eq!(before.value::<String>(listed).await, attempt);
    assert_eq!(before.value::<i64>(TAKEN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_lost_is_taken_again() {
    let who = hello("one");
    let mut stack = Stack::start().await;
    let attempt = running(&mut stack, &who).await;
    let (mut stack, mut before) = stack.backup().await;
    let (ended, length) = (5, 10);
    {
        let mut executor = Scripted::welcome(&mut stack, who.clone()).await;
        executor.observe(vec![observed(&stack, &attempt, false)]).await;
        executor.desired().await;
        let epoch = executor.epoch;
        assert_eq!(executor.logs(epoch).await.append(&attempt, 5, b"67890").await.unwrap().committed, length);
        executor.report(&attempt, 4, finalizing(0)).await;
        assert_eq!(executor.report(&attempt, ended, completed(length)).await.through, ended);
        assert_eq!(executor.desired().await.released, std::slice::from_ref(&attempt));
    }

    let mut executor = Scripted::welcome(&mut before, who).await;
    let over = ObservedAttempt { report_sequence: ended, log_length: length, ..observed(&before, &attempt, true) };
    executor.observe(vec![over]).await;
    // It is asked for what is missing, though it holds everything for acknowledged.
    let control_response::Part::ReportAck(ack) = executor.next().await else { panic!("no question for reports") };
    assert_eq!((ack.attempt_id.as_str(), ack.through, ack.refusal()), (attempt.as_str(), 3, Refusal::Gap));
    let wanted = executor.desired().await;
    assert_eq!((wanted.attempts[0].phase(), wanted.released.as_slice()), (Phase::Run, &[][..]));
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let LogAck { committed, .. } = logs.append(&attempt, length, b"").await.unwrap();
    assert_eq!(committed, 5, "the log stands lower than the executor was told");
    assert_eq!(logs.append(&attempt, committed, b"67890").await.unwrap().committed, length);
    assert_eq!(executor.report(&attempt, 4, finalizing(0)).await.through, 4);
    assert_eq!(executor.report(&attempt, ended, completed(length)).await.through, ended);
    assert_eq!(executor.desired().await.released, [attempt]);
    let row = "SELECT concat_ws(' ', shown, outcome, log_bytes, fenced_at IS NOT NULL) FROM tasks t \
               JOIN attempts a ON a.id = t.attempt_id";
    assert_eq!(before.value::<String>(row).await, "completed completed 10 f");
    assert_eq!(before.value::<i64>("SELECT count(*) FROM events WHERE kind = 'attempt.ended'").await, 1);
}

/// A session that has nothing to do would not notice that the database was changed under it.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_begun_anew_when_the_database_is_another_one() {
    let mut stack = Stack::start().await;
    let place = {
        let mut conn = stack.store.read().await.unwrap();
        history::place(&mut conn).await.unwrap()
    };
    assert!(place.follows(&place));
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(&mut stack, who.clone()).await;
    stack.sessions.recall();
    let reject = executor.rejected().await;
    assert!(reject.code() == RejectCode::Unavailable && reject.retry_after.is_some(), "{reject:?}");
    assert!(reject.text.contains("promoted or set back"), "{}", reject.text);
    drop(Scripted::ready(&mut stack, who).await);
}

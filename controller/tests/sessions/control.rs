use prost::Message as _;
use sculpt_controller::{
    background::liveness,
    dispatch::{Actor, DispatchError},
    session::{census, state::Census},
    store::sessions::Epoch,
};
use sculpt_core::task::{Event, OnLost, Policy};
use sculpt_proto::executor::v1::{
    AttemptSpec, Ended, HeartbeatAck, Note, Phase, control_request, control_response, ended,
    reject::Code as RejectCode, report::Step, report_ack::Refusal,
};
use sha2::Digest as _;
use tonic::Code;

use super::{
    Stack,
    executor::{Scripted, accepted, completed, finalizing, hello, observed, preparing, running, unknown},
};
use crate::{harness, make};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_its_way_and_every_report_counts_once() {
    let mut stack = Stack::start().await;
    let (mut executor, desired) = Scripted::ready(&mut stack, hello("one")).await;
    assert_eq!(desired.attempts, []);
    let task = make::task(&stack.store).await;
    assert_eq!(stack.place().await, 1);
    let wanted = executor.desired().await.attempts.remove(0);
    assert_eq!((wanted.phase(), wanted.number, wanted.task_id.as_str()), (Phase::Run, 1, task.to_string().as_str()));
    let attempt = wanted.attempt_id;

    let spec = executor.spec(&attempt).await.unwrap();
    assert_eq!(sha2::Sha256::digest(&spec).as_slice(), wanted.spec_digest);
    assert_eq!(executor.spec(&attempt).await.unwrap(), spec);
    let spec = AttemptSpec::decode(spec.as_slice()).unwrap();
    assert_eq!((spec.attempt_id.as_str(), spec.number), (attempt.as_str(), 1));
    assert_eq!(spec.cluster_id, stack.cluster.to_string());

    // The second and third come before the first, then all of them, then the first again.
    for (sequence, step, through, refusal) in [
        (2, preparing(), 0, Refusal::Gap),
        (1, accepted(), 1, Refusal::Unspecified),
        (3, running(), 1, Refusal::Gap),
        (2, preparing(), 2, Refusal::Unspecified),
        (1, accepted(), 2, Refusal::Unspecified),
        (3, running(), 3, Refusal::Unspecified),
        (4, Step::Note(Note { text: "submodules are not fetched".into() }), 4, Refusal::Unspecified),
        (4, Step::Note(Note { text: "submodules are not fetched".into() }), 4, Refusal::Unspecified),
        (5, preparing(), 5, Refusal::Illegal),
        (6, finalizing(0), 6, Refusal::Unspecified),
        (7, completed(0), 7, Refusal::Unspecified),
    ] {
        let ack = executor.report(&attempt, sequence, step.clone()).await;
        assert_eq!((ack.through, ack.refusal()), (through, refusal), "{sequence}: {step:?}: {}", ack.text);
        if sequence == 1 && refusal == Refusal::Unspecified && through == 1 {
            assert_eq!(executor.spec(&attempt).await, Err(Code::FailedPrecondition));
        }
    }
    assert_eq!(executor.desired().await.released, std::slice::from_ref(&attempt));
    assert_eq!(executor.report(&attempt, 7, completed(0)).await.through, 7);
    let row = "SELECT shown::text || ' ' || (ended_at IS NOT NULL)::text FROM tasks";
    assert_eq!(stack.value::<String>(row).await, "completed true");
    let row = "SELECT concat_ws(' ', state, outcome, exit_code, array_length(notes, 1), report_sequence) FROM attempts";
    assert_eq!(stack.value::<String>(row).await, "ended completed 0 1 7");
    let kinds = "SELECT string_agg(kind, ' ' ORDER BY id) FROM events WHERE kind LIKE 'attempt.%'";
    let expected =
        "attempt.offered attempt.accepted attempt.preparing attempt.running attempt.finalizing attempt.ended";
    assert_eq!(stack.value::<String>(kinds).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_session_wins_and_an_older_one_moves_nothing() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut old, _) = Scripted::ready(&mut stack, who.clone()).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = old.run_one().await;
    let mut new = Scripted::welcome(&mut stack, who).await;
    assert_eq!(new.epoch, old.epoch + 1);
    let reject = old.rejected().await;
    assert_eq!((reject.code(), reject.retry_after), (RejectCode::Superseded, None));
    assert!(old.message().await.unwrap().is_none());
    assert_eq!(old.spec(&attempt).await, Err(Code::Aborted));
    let epoch = old.epoch;
    let mut logs = old.logs(epoch).await;
    logs.send(super::executor::append(&attempt, 0, b"stale")).await;
    assert_eq!(logs.message().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(stack.value::<i64>("SELECT log_bytes FROM attempts").await, 0);
    new.observe(vec![observed(&stack, &attempt, false)]).await;
    assert_eq!(new.desired().await.attempts[0].attempt_id, attempt);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_belong_here_is_told_why() {
    let mut stack = Stack::start().await;
    let (_first, _) = Scripted::ready(&mut stack, hello("one")).await;
    let other_cluster = uuid::Uuid::new_v4().to_string();
    for (hello, code, text) in [
        (sculpt_proto::executor::v1::Hello { protocol: 99, ..hello("two") }, RejectCode::Protocol, "protocol 99"),
        (
            sculpt_proto::executor::v1::Hello { cluster_id: other_cluster, ..hello("two") },
            RejectCode::Cluster,
            "belongs to cluster",
        ),
        (sculpt_proto::executor::v1::Hello { slots: 1_000_000, ..hello("two") }, RejectCode::Invalid, "hello.slots"),
        (hello(""), RejectCode::Invalid, "hello.name"),
    ] {
        let mut scripted = Scripted::dial(&mut stack, hello).await;
        let reject = scripted.rejected().await;
        assert_eq!((reject.code(), reject.retry_after), (code, None), "{}", reject.text);
        assert!(reject.text.contains(text), "{}", reject.text);
        assert!(scripted.message().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_name_that_is_taken_asks_again_until_it_is_free() {
    let mut stack = Stack::start().await;
    let (_first, _) = Scripted::ready(&mut stack, hello("one")).await;
    let second = hello("one");
    let reject = Scripted::dial(&mut stack, second.clone()).await.rejected().await;
    assert!(reject.code() == RejectCode::Invalid && reject.retry_after.is_some(), "{reject:?}");
    assert!(reject.text.contains("another executor is named \"one\"") && reject.text.contains("--again"), "{reject:?}");
    stack.run("UPDATE executors SET name = 'other'").await;
    Scripted::ready(&mut stack, second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_session_and_moves_nothing() {
    let mut stack = Stack::start().await;
    let huge = "x".repeat(300 << 10);
    let note = |text: String| sculpt_proto::executor::v1::Report {
        attempt_id: unknown(),
        sequence: 1,
        age: None,
        step: Some(Step::Note(Note { text })),
    };
    for (name, part, code) in [
        ("hello", control_request::Part::Hello(hello("again")), Code::InvalidArgument),
        ("huge", control_request::Part::Report(note(huge)), Code::ResourceExhausted),
        ("empty", control_request::Part::Report(Default::default()), Code::InvalidArgument),
    ] {
        let (mut executor, _) = Scripted::ready(&mut stack, hello(name)).await;
        executor.send(part).await;
        assert_eq!(executor.message().await.unwrap_err().code(), code, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_database_does_not_know_is_recorded_and_left_alone() {
    let mut stack = Stack::start().await;
    let mut executor = Scripted::welcome(&mut stack, hello("one")).await;
    let (stranger, foreign) = (unknown(), unknown());
    let mut of_another = observed(&stack, &foreign, false);
    of_another.cluster_id = uuid::Uuid::new_v4().to_string();
    executor.observe(vec![observed(&stack, &stranger, false), of_another]).await;
    let desired = executor.desired().await;
    assert_eq!((desired.attempts, desired.released), (vec![], vec![]));
    assert_eq!(executor.report(&stranger, 1, accepted()).await.refusal(), Refusal::UnknownAttempt);
    assert_eq!(stack.value::<i32>("SELECT cardinality(unknown) FROM executors").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_never_read_goes_back_to_the_queue_and_its_executor_is_fenced() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.desired().await.attempts.remove(0).attempt_id;
    stack.run("UPDATE executors SET last_seen = now() - interval '31 seconds'").await;
    assert_eq!(liveness::look(&stack.dispatch).await.unwrap().moved, 1);
    assert_eq!(stack.value::<String>("SELECT shown::text || next_attempt::text FROM tasks").await, "queued2");
    let fence = executor.desired().await.attempts.remove(0);
    assert_eq!((fence.attempt_id.as_str(), fence.phase()), (attempt.as_str(), Phase::Fence));
    assert_eq!(executor.spec(&attempt).await, Err(Code::FailedPrecondition));
    assert_eq!(executor.report(&attempt, 1, accepted()).await.refusal(), Refusal::Fenced);
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let refusal = logs.append(&attempt, 0, b"stale").await.unwrap_err();
    assert_eq!(refusal.code(), sculpt_proto::executor::v1::log_refusal::Code::Fenced);
    let fenced = Step::Ended(Ended { outcome: ended::Outcome::Fenced.into(), ..Ended::default() });
    assert_eq!(executor.report(&attempt, 2, fenced).await.refusal(), Refusal::Fenced);
    let row = "SELECT concat_ws(' ', state, outcome, released_at IS NOT NULL) FROM attempts";
    assert_eq!(stack.value::<String>(row).await, "ended fenced t");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_shown_stops_nothing_and_is_over_when_the_executor_is_back() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(&mut stack, who.clone()).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let liveness =
        "SELECT t.shown::text || ' ' || a.liveness::text FROM tasks t JOIN attempts a ON a.id = t.attempt_id";
    for (silence, expected) in [("31 seconds", "running unreachable"), ("1 hour", "lost lost"), ("2 days", "lost lost")]
    {
        let mut conn = stack.store.read().await.unwrap();
        sqlx::query("UPDATE executors SET last_seen = now() - $1::text::interval")
            .bind(silence)
            .execute(&mut *conn)
            .await
            .unwrap();
        drop(conn);
        liveness::look(&stack.dispatch).await.unwrap();
        assert_eq!(stack.value::<String>(liveness).await, expected, "after {silence}");
    }
    let mut back = Scripted::welcome(&mut stack, who).await;
    back.observe(vec![observed(&stack, &attempt, false)]).await;
    assert_eq!(back.desired().await.attempts[0].phase(), Phase::Run);
    assert_eq!(stack.value::<String>(liveness).await, "running connected");
    assert_eq!(back.report(&attempt, 4, finalizing(0)).await.through, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_executor_lost_is_not_run_again_unless_it_never_had_it() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(&mut stack, who.clone()).await;
    make::task(&stack.store).await;
    stack.place().await;
    let begun = executor.run_one().await;
    make::task(&stack.store).await;
    stack.place().await;
    let read = executor.desired().await.attempts.remove(0).attempt_id;
    executor.spec(&read).await.unwrap();
    let (_back, desired) = Scripted::ready(&mut stack, who).await;
    let wanted: Vec<_> = desired.attempts.iter().map(|wanted| wanted.attempt_id.clone()).collect();
    assert_eq!(wanted, [read]);
    let row = "SELECT concat_ws(' ', id, cause, fenced_at IS NOT NULL, released_at IS NOT NULL) FROM attempts WHERE state = 'ended'";
    assert_eq!(stack.value::<String>(row).await, format!("{begun} interrupted t t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_the_executor_and_an_end_that_contradicts_is_refused() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let _ = stack.dispatch.apply(task, Event::Stop, Actor::user("ada").because("enough")).await.unwrap();
    assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Stop);
    let unpublished =
        Step::Ended(Ended { outcome: ended::Outcome::Completed.into(), head: "a".repeat(40), ..Ended::default() });
    let ack = executor.report(&attempt, 4, unpublished).await;
    assert_eq!((ack.refusal(), ack.through), (Refusal::Illegal, 3));
    assert!(ack.text.contains("publish it first"), "{}", ack.text);
    let cancelled = Step::Ended(Ended { outcome: ended::Outcome::Cancelled.into(), ..Ended::default() });
    assert_eq!(executor.report(&attempt, 4, cancelled).await.through, 4);
    assert_eq!(stack.value::<String>("SELECT shown::text FROM tasks").await, "cancelled");
    let again = stack.dispatch.apply(task, Event::Stop, Actor::user("ada")).await;
    assert!(matches!(again, Err(DispatchError::Illegal(_))), "{again:?}");
    let reason = "SELECT data->>'reason' FROM events WHERE kind = 'task.stop'";
    assert_eq!(stack.value::<String>(reason).await, "enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_answered_and_an_executor_that_takes_no_work_gets_none() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let beat = |sequence, accepts_work| {
        control_request::Part::Heartbeat(sculpt_proto::executor::v1::Heartbeat {
            sequence,
            slots_used: 0,
            accepts_work,
            reason: "disk over its budget".into(),
            disk_used: 0,
            disk_budget: 0,
        })
    };
    let ack =
        |sequence, leased| control_response::Part::HeartbeatAck(HeartbeatAck { sequence, leased, trusted: vec![] });
    executor.send(beat(1, false)).await;
    assert_eq!(executor.next().await, ack(1, 0));
    // And again, once the database has it.
    assert_eq!(executor.next().await, ack(1, 1));
    make::task(&stack.store).await;
    assert_eq!(stack.place().await, 0);
    assert_eq!(stack.value::<String>("SELECT closed_reason FROM executors").await, "disk over its budget");
    executor.send(beat(2, true)).await;
    assert_eq!(executor.next().await, ack(2, 1));
    assert_eq!(executor.next().await, ack(2, 2));
    assert_eq!(stack.place().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_sends_executors_away_for_a_moment() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    stack.stop.cancel();
    let reject = executor.rejected().await;
    assert_eq!(reject.code(), RejectCode::Unavailable);
    assert!(reject.retry_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_limit_and_the_margin_a_task_starts_anew_or_fails_as_it_wishes() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let lost_after = chrono::TimeDelta::seconds(60);
    for (on_lost, expected) in
        [(OnLost::Wait, "lost"), (OnLost::Retry, "queued"), (OnLost::Fail, "failed executor_lost")]
    {
        make::task_with(&stack.store, Policy { on_lost, lost_after }, 0).await;
        stack.place().await;
        let attempt = executor.run_one().await;
        let shown = "SELECT concat_ws(' ', t.shown, a.cause) FROM tasks t LEFT JOIN attempts a ON a.id = t.attempt_id \
                     ORDER BY t.number DESC LIMIT 1";
        stack.run("UPDATE executors SET last_seen = now() - interval '110 seconds'").await;
        liveness::look(&stack.dispatch).await.unwrap();
        // Where nothing starts in its place there is no margin to wait for.
        let early = if on_lost == OnLost::Fail { expected } else { "lost" };
        assert_eq!(stack.value::<String>(shown).await, early, "{on_lost:?}");
        stack.run("UPDATE executors SET last_seen = now() - interval '130 seconds'").await;
        liveness::look(&stack.dispatch).await.unwrap();
        assert_eq!(stack.value::<String>(shown).await, expected, "{on_lost:?}");
        if on_lost != OnLost::Wait {
            assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Fence);
            assert_eq!(executor.report(&attempt, 4, finalizing(0)).await.refusal(), Refusal::Fenced);
        }
        stack.run("UPDATE executors SET last_seen = now(), liveness = 'connected'").await;
        stack.run("UPDATE tasks SET intent = 'hold', shown = 'paused' WHERE next_attempt IS NOT NULL").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_stands_in_the_journal() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut older, _) = Scripted::ready(&mut stack, who.clone()).await;
    let (newer, _) = Scripted::ready(&mut stack, who).await;
    older.rejected().await;
    drop(newer);
    let kinds = "SELECT string_agg(kind, ' ' ORDER BY id) FROM events WHERE kind LIKE 'executor.%'";
    let expected = "executor.connected executor.connected executor.disconnected";
    let written = async || (stack.value::<String>(kinds).await == expected).then_some(());
    harness::eventually("one entry, of the newer session", written).await;
    let reason = "SELECT data->>'reason' FROM events WHERE kind = 'executor.disconnected'";
    assert_eq!(stack.value::<String>(reason).await, "its connection is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_releases_nothing() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(&mut stack, who.clone()).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    // It has ended, and its log is still owed.
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(5)).await;
    let stale = Epoch { executor: who.executor_id.parse().unwrap(), number: executor.epoch };
    let newer = Scripted::welcome(&mut stack, who).await;
    census::reconcile(&stack.dispatch, stack.cluster, stale, Census::new()).await.unwrap();
    let released = "SELECT count(*) FROM attempts WHERE released_at IS NOT NULL";
    assert_eq!(stack.value::<i64>(released).await, 0);
    let current = Epoch { number: newer.epoch, ..stale };
    census::reconcile(&stack.dispatch, stack.cluster, current, Census::new()).await.unwrap();
    assert_eq!(stack.value::<i64>(released).await, 1);
}

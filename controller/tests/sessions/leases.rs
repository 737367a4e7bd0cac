//! What an executor may build on: a lease is a heartbeat that the database knows of, and nothing less.

use sculpt_proto::executor::v1::{
    Heartbeat, HeartbeatAck, Note, Report, control_request, control_response, reject::Code, report::Step,
    report_ack::Refusal,
};

use super::{
    Stack,
    executor::{Scripted, hello},
};
use crate::make;

/// A heartbeat that the session writes down at once, because it changes whether the executor takes work.
fn beat(sequence: u64) -> control_request::Part {
    control_request::Part::Heartbeat(Heartbeat { sequence, ..Heartbeat::default() })
}

fn unleased(sequence: u64) -> control_response::Part {
    control_response::Part::HeartbeatAck(HeartbeatAck { sequence, leased: 0, trusted: vec![] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_overtaken_confirms_no_lease() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    stack.run("UPDATE executors SET epoch = epoch + 1, last_seen = now() - interval '1 hour'").await;
    executor.send(beat(1)).await;
    assert_eq!(executor.next().await, unleased(1));
    assert_eq!(executor.rejected().await.code(), Code::Superseded);
    assert!(stack.value::<bool>("SELECT last_seen < now() - interval '59 minutes' FROM executors").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_did_not_take_is_no_lease() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    stack
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$",
        )
        .await;
    stack.run("CREATE TRIGGER refuse BEFORE UPDATE ON executors FOR EACH ROW EXECUTE FUNCTION refuse()").await;
    executor.send(beat(1)).await;
    assert_eq!(executor.next().await, unleased(1));
    let reject = executor.rejected().await;
    assert_eq!(reject.code(), Code::Unavailable);
    assert!(reject.retry_after.is_some());
}

/// As much as a session lets wait for the database, but for what it asks of it by itself.
const WAITING: u64 = 250;

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_answered_while_everything_else_waits_for_the_database() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    // Whatever the session writes begins with this row.
    let mut held = stack.store.read().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM executors FOR UPDATE").execute(&mut *held).await.unwrap();
    for sequence in 4..4 + WAITING {
        let step = Some(Step::Note(Note { text: format!("remark {sequence}") }));
        let report = Report { attempt_id: attempt.clone(), sequence, age: None, step };
        executor.send(control_request::Part::Report(report)).await;
    }
    for sequence in 1..=3 {
        let beat = Heartbeat { sequence, accepts_work: true, ..Heartbeat::default() };
        executor.send(control_request::Part::Heartbeat(beat)).await;
        assert_eq!(executor.next().await, unleased(sequence), "nothing waits for the row but what needs it");
    }
    sqlx::raw_sql("COMMIT").execute(&mut *held).await.unwrap();
    let (mut through, mut leased) = (3, 0);
    while through < 3 + WAITING || leased == 0 {
        match executor.next().await {
            control_response::Part::ReportAck(ack) => {
                assert_eq!((ack.through, ack.refusal()), (through + 1, Refusal::Unspecified));
                through = ack.through;
            }
            control_response::Part::HeartbeatAck(ack) => leased = ack.leased,
            control_response::Part::Desired(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

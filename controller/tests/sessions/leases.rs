//! What an executor may build on: a lease is a heartbeat that the database knows of, and nothing less.

use sculpt_proto::executor::v1::{Heartbeat, HeartbeatAck, control_request, control_response, reject::Code};

use super::{
    Stack,
    executor::{Scripted, hello},
};

/// A heartbeat that the session writes down at once, because it changes whether the executor takes work.
fn beat(sequence: u64) -> control_request::Part {
    control_request::Part::Heartbeat(Heartbeat { sequence, ..Heartbeat::default() })
}

fn unleased(sequence: u64) -> control_response::Part {
    control_response::Part::HeartbeatAck(HeartbeatAck { sequence, leased: 0 })
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

//! Every place where an attempt has an effect, shown a stale fence and a stale epoch: it can compute, never publish.

use sculpt_controller::background::liveness;
use sculpt_proto::executor::v1::{Hello, log_refusal, report_ack::Refusal};
use tonic::Code;

use super::{
    executor::{Scripted, completed, finalizing, hello},
    publish::Run,
};

/// Everything that an attempt could have moved.
const EFFECTS: &str = "SELECT concat_ws(' | ', \
    (SELECT concat_ws(' ', revision, shown, review, head, branch) FROM tasks t LEFT JOIN attempts a ON a.id = t.attempt_id), \
    (SELECT string_agg(concat_ws(' ', number, state, report_sequence, log_bytes, head, notes), ',' ORDER BY number) FROM attempts), \
    (SELECT count(*) FROM log_chunks), (SELECT count(*) FROM packs), \
    (SELECT string_agg(name || target, ',' ORDER BY name) FROM refs))";

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_fence_has_no_effect_anywhere() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    run.stack.run("UPDATE tasks SET on_lost = 'retry', lost_after = '1 minute'").await;
    run.stack.run("UPDATE executors SET last_seen = now() - interval '1 hour'").await;
    liveness::look(&run.stack.dispatch).await.unwrap();
    run.stack.run("UPDATE executors SET last_seen = now(), liveness = 'connected'").await;
    // Its own executor is given the next attempt: the session is good, the fence alone is stale.
    assert_eq!(run.stack.place().await, 1);
    let before = run.stack.value::<String>(EFFECTS).await;
    let (attempt, epoch) = (run.attempt.clone(), run.executor.epoch);

    assert_eq!(run.publish(&head, &pack).await, Err(Code::FailedPrecondition));
    assert_eq!(run.executor.spec(&attempt).await, Err(Code::FailedPrecondition));
    let mut logs = run.executor.logs(epoch).await;
    let refusal = logs.append(&attempt, 0, b"stale").await.unwrap_err();
    assert_eq!(refusal.code(), log_refusal::Code::Fenced);
    for (sequence, step) in [(4, finalizing(0)), (9, finalizing(0))] {
        let ack = run.executor.answer(&attempt, sequence, step).await;
        assert_eq!((ack.refusal(), ack.through), (Refusal::Fenced, sequence));
    }
    assert_eq!(run.stack.value::<String>(EFFECTS).await, before);
    // An end closes the books of the attempt, and moves nothing of the task.
    assert_eq!(run.executor.answer(&attempt, 5, completed(7)).await.refusal(), Refusal::Fenced);
    let row = "SELECT concat_ws(' ', outcome, log_final, head, released_at IS NOT NULL) FROM attempts WHERE number = 1";
    assert_eq!(run.stack.value::<String>(row).await, "fenced t");
    assert_eq!(run.stack.value::<String>("SELECT shown::text FROM tasks").await, "starting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_epoch_has_no_effect_anywhere() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    let (attempt, epoch) = (run.attempt.clone(), run.executor.epoch);
    let mut open = run.executor.logs(epoch).await;
    let who = Hello { executor_id: run.executor.id.clone(), ..hello("one") };
    let newer = Scripted::welcome(&mut run.stack, who).await;
    assert_eq!(newer.epoch, epoch + 1);
    let before = run.stack.value::<String>(EFFECTS).await;

    run.executor.rejected().await;
    assert_eq!(run.publish(&head, &pack).await, Err(Code::Aborted));
    assert_eq!(run.executor.spec(&attempt).await, Err(Code::Aborted));
    open.send(super::executor::append(&attempt, 0, b"stale")).await;
    assert_eq!(open.message().await.unwrap_err().code(), Code::Aborted, "a connection from before");
    let mut late = run.executor.logs(epoch).await;
    late.send(super::executor::append(&attempt, 0, b"stale")).await;
    assert_eq!(late.message().await.unwrap_err().code(), Code::Aborted, "a connection from after");
    assert_eq!(run.stack.value::<String>(EFFECTS).await, before);
}

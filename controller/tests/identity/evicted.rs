//! Who is locked or removed is gone within 10 s, wherever it is connected, and is told why.

use std::time::Duration;

use http::StatusCode;
use sculpt_proto::{
    executor::v1::Reject,
    id::RequestId,
    v1::{self, read_log_response::Part},
};
use tokio::time::timeout;
use tonic::Code;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::{dial, joined, lock, ready, recorded, renewed, run, shown, unlock, unrenewed};
use crate::{
    api::{command, create},
    harness::{self, Enrolled, Stack},
    sessions::executor::{LogStream, Scripted, hello},
};

/// What a lock may take.
const SOON: Duration = Duration::from_secs(10);

async fn sent_away(executor: &mut Scripted) -> Reject {
    timeout(SOON, executor.rejected()).await.expect("within 10 s")
}

/// What git is told that asks for a project.
async fn fetch(stack: &Stack, enrolled: &Enrolled) -> StatusCode {
    let path = format!("/git/{}.git/info/refs?service=git-upload-pack", Uuid::new_v4());
    let request = http::Request::get(path).body(tonic::body::Body::empty()).expect("a request");
    stack.executor_channel(enrolled).await.oneshot(request).await.expect("an answer").status()
}

async fn cut(logs: &mut LogStream) -> Code {
    timeout(SOON, logs.message()).await.expect("within 10 s").expect_err("it is cut").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_executor_is_gone_from_every_replica_and_back_when_it_is_unlocked() {
    let one = harness::stack().await;
    let two = one.replica().await;
    let (who, other) = (hello("one"), hello("two"));
    let (enrolled, neighbour) = (one.enrol(&who).await, one.enrol(&other).await);
    let mut executor = ready(&one, &enrolled, &who).await;
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let mut beside = ready(&one, &neighbour, &other).await;
    assert_eq!(fetch(&one, &enrolled).await, StatusCode::NOT_FOUND, "there is no such project");

    // At the other replica than the one that has the session.
    lock(&two, "one", "lost key").await;
    let told = sent_away(&mut executor).await;
    assert!(told.retry_after.is_some() && told.text.contains("locked (lost key)"), "{told:?}");
    assert_eq!(cut(&mut logs).await, Code::Unavailable, "what was being done is no refusal of it");
    for stack in [&one, &two] {
        let told = dial(stack, &enrolled, &who).await.rejected().await;
        assert!(told.retry_after.is_some() && told.text.contains("locked (lost key)"), "{told:?}");
    }
    assert_eq!(executor.spec(&Uuid::new_v4().to_string()).await, Err(Code::Unavailable));
    assert_eq!(fetch(&one, &enrolled).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(shown(&one, "one").await.closed_reason.contains("locked (lost key)"));

    unlock(&one, "one").await;
    let mut executor = ready(&two, &enrolled, &who).await;
    assert_eq!(shown(&one, "one").await.closed_reason, "");

    // Told to nobody: found by looking.
    run(
        &one,
        "INSERT INTO locks (id, executor_id, locked_by) SELECT gen_random_uuid(), id, 'x' FROM executors \
         WHERE name = 'one'",
    )
    .await;
    assert!(sent_away(&mut executor).await.text.contains("is locked"));
    // Nobody else has noticed anything.
    assert_eq!(beside.spec(&Uuid::new_v4().to_string()).await, Err(Code::NotFound));
    beside.observe(vec![]).await;
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_not_joined_here_is_kept_out_all_the_same() {
    let (stack, who, enrolled) = joined().await;
    let forget = "UPDATE executors SET key = NULL, generation = 0, certified_until = NULL";
    run(&stack, forget).await;
    ready(&stack, &enrolled, &who).await;
    run(&stack, forget).await;
    lock(&stack, "one", "lost key").await;
    assert_eq!(fetch(&stack, &enrolled).await, StatusCode::SERVICE_UNAVAILABLE);
    let refused = unrenewed(&stack, &enrolled).await;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    unlock(&stack, "one").await;
    run(&stack, "UPDATE executors SET removed_at = now()").await;
    assert_eq!(fetch(&stack, &enrolled).await, StatusCode::FORBIDDEN);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_no_attempt_and_lets_it_be_finished_later() {
    let (stack, who, enrolled) = joined().await;
    let mut executor = ready(&stack, &enrolled, &who).await;
    let made = stack.tasks().create_task(create(command(&["true"]))).await.expect("it is made").into_inner();
    let task = made.task.expect("a task").uuid;
    let attempt = executor.run_one().await;
    lock(&stack, "one", "").await;
    sent_away(&mut executor).await;
    let request = v1::GetTaskRequest { task: task.clone() };
    let seen = stack.tasks().get_task(request).await.expect("it is there").into_inner().task.expect("a task");
    assert_eq!((seen.state(), &seen.failure), (v1::TaskState::Running, &None), "nothing has happened to it: {seen:?}");

    unlock(&stack, "one").await;
    let mut executor = dial(&stack, &enrolled, &who).await;
    executor.welcomed().await;
    let request = v1::ReadLogRequest { task, follow: true, ..Default::default() };
    let mut followed = stack.logs().read_log(request).await.expect("a stream").into_inner();
    let epoch = executor.epoch;
    executor.logs(epoch).await.append(&attempt, 0, b"after").await.expect("it is taken");
    let Some(Part::Chunk(chunk)) = followed.message().await.expect("a message").expect("it goes on").part else {
        panic!("no chunk");
    };
    assert_eq!(chunk.data.as_ref(), b"after");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_executor_is_told_so_and_stays_out() {
    let (stack, who, enrolled) = joined().await;
    let mut executor = ready(&stack, &enrolled, &who).await;
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let request =
        v1::RemoveExecutorRequest { request_id: RequestId::fresh().to_string(), executor: "one".into(), force: false };
    stack.executors().remove_executor(request.clone()).await.expect("it is removed");
    stack.executors().remove_executor(request).await.expect("as its first answer, had that been lost");
    let told = sent_away(&mut executor).await;
    assert!(told.retry_after.is_none() && told.text.contains("was removed"), "{told:?}");
    assert_eq!(cut(&mut logs).await, Code::PermissionDenied);
    let told = dial(&stack, &enrolled, &who).await.rejected().await;
    assert!(told.retry_after.is_none() && told.text.contains("was removed"), "{told:?}");
    let refused = unrenewed(&stack, &enrolled).await;
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("removed"), "{refused}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_key_locks_both_and_ends_their_sessions() {
    let (stack, who, enrolled) = joined().await;
    let second = renewed(&stack, &enrolled).await;
    assert_eq!(second.subject().generation, 2);
    let mut executor = ready(&stack, &second, &who).await;
    // The copy cannot call before it renews, and that gives it away.
    let told = dial(&stack, &enrolled, &who).await.rejected().await;
    assert!(told.retry_after.is_some() && told.text.contains("renewed first"), "{told:?}");
    let refused = unrenewed(&stack, &enrolled).await;
    assert!(refused.message().contains("both are locked"), "{refused}");
    let told = sent_away(&mut executor).await;
    assert!(told.text.contains("used in two places"), "{told:?}");
    unrenewed(&stack, &second).await;
    assert!(shown(&stack, "one").await.closed_reason.contains("used in two places"));
    assert_eq!(recorded(&stack, "executor.lock").await, 1);
    stack.stop().await;
}

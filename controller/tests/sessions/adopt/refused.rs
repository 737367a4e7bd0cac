//! What is not taken over, and what is said of it.

use sculpt_controller::store::{
    StoreError,
    adopt::{self, Adoption},
};
use sculpt_proto::{
    executor::v1::{AttemptSpec, report_ack::Refusal},
    id::{AttemptId, ExecutorId},
    v1::task_spec::Work,
};
use tonic::Code;

use super::{
    super::{
        Stack,
        executor::{Scripted, accepted, completed, finalizing, hello, preparing, running},
    },
    adoptions, executor_with, hand_in, in_project, minted, refused, reported, spec, unknown, want,
};
use crate::make;

/// Hands in, for one wish each, what `change` makes of a good spec; returns why it is refused.
async fn lie(change: impl Fn(&mut AttemptSpec)) -> String {
    let mut stack = Stack::start().await;
    let truth = in_project(spec());
    let mut executor = executor_with(&mut stack, &[&truth]).await;
    let request = want(&stack, &executor, &[&truth]).await;
    let mut lie = truth.clone();
    change(&mut lie);
    let status = hand_in(&mut executor, &truth.attempt_id, &lie).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let found = adoptions(&stack, &request).await.unwrap().remove(0);
    assert_eq!((found.task, found.refusal.as_deref()), (None, Some(status.message())));
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM tasks").await, 0, "nothing was made");
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM projects").await, 0, "nothing was made");
    // It is not asked for again by itself, and what comes without being asked for is refused as well.
    assert_eq!(hand_in(&mut executor, &truth.attempt_id, &truth).await.unwrap_err().code(), Code::FailedPrecondition);
    status.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_no_controller_has_minted_is_refused_by_the_name_of_its_field() {
    type Change = fn(&mut AttemptSpec);
    let table: [(Change, &str); 11] = [
        (|spec| spec.attempt_id = AttemptId::fresh().to_string(), "spec.attempt_id: is another attempt's"),
        (|spec| spec.task_id = "17".into(), "spec.task_id"),
        (|spec| spec.cluster_id.clear(), "spec.cluster_id"),
        (|spec| spec.number = 0, "spec.number"),
        (|spec| spec.number = u32::MAX, "spec.number"),
        (|spec| spec.number = i32::MAX.unsigned_abs(), "spec.number"),
        (|spec| spec.task = None, "spec.task: is missing"),
        (|spec| spec.task.as_mut().unwrap().base = "HEAD".into(), "spec.base"),
        (|spec| spec.task.as_mut().unwrap().work = None, "spec.work"),
        (|spec| spec.project_name = "../x".into(), "spec.project_name"),
        (|spec| spec.project_id = "x".into(), "spec.project_id"),
    ];
    for (change, expected) in table {
        let said = lie(change).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_unasked() {
    let mut stack = Stack::start().await;
    let (mine, others) = (spec(), spec());
    let mut executor = executor_with(&mut stack, &[&mine]).await;
    assert!(refused(&mut executor, &mine).await.contains("nobody asked"));
    // Asked of another executor.
    let other = Scripted::welcome(&mut stack, hello("two")).await;
    other.observe(vec![unknown(&others)]).await;
    want(&stack, &other, &[&others]).await;
    assert!(refused(&mut executor, &others).await.contains("nobody asked"));
    let epoch = std::mem::replace(&mut executor.epoch, 99);
    assert_eq!(hand_in(&mut executor, &mine.attempt_id, &mine).await.unwrap_err().code(), Code::Aborted);
    executor.epoch = epoch;
    // What the executor does not name is refused at once.
    let request = want(&stack, &executor, &[&others]).await;
    let found = adoptions(&stack, &request).await.unwrap().remove(0);
    assert!(found.refusal.unwrap().contains("has no such attempt"));
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM tasks").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_takes_only_the_attempt_that_it_waits_for() {
    let mut stack = Stack::start().await;
    let task = make::task(&stack.store).await;
    let (right, second) = (minted(&stack, task, 1).await, minted(&stack, task, 2).await);
    let mut elsewhere = AttemptSpec { attempt_id: AttemptId::fresh().to_string(), ..right.clone() };
    elsewhere.task.as_mut().unwrap().work = Some(Work::Prompt("something else".into()));
    let renamed = AttemptSpec { attempt_id: AttemptId::fresh().to_string(), task_number: 99, ..right.clone() };
    let late = minted(&stack, task, 1).await;
    let third = minted(&stack, task, 3).await;
    let all = [&right, &second, &third, &elsewhere, &renamed, &late];
    let mut executor = executor_with(&mut stack, &all).await;
    want(&stack, &executor, &[]).await;
    for other in [&elsewhere, &renamed] {
        assert!(refused(&mut executor, other).await.contains("another one here"));
    }
    hand_in(&mut executor, &right.attempt_id, &right).await.unwrap();
    assert!(refused(&mut executor, &late).await.contains("is at attempt 1, and this is attempt 1: numbers only rise"));
    // What it took over before has yet to tell how it ended; until then nobody is refused.
    let early = hand_in(&mut executor, &third.attempt_id, &third).await.unwrap_err();
    assert!(early.code() == Code::Unavailable && early.message().contains("asked for again"), "{early:?}");
    for (sequence, step) in (1..).zip([accepted(), preparing(), running(), finalizing(0), completed(0)]) {
        assert_eq!(reported(&mut executor, &right.attempt_id, sequence, step).await.1, Refusal::Unspecified);
    }
    hand_in(&mut executor, &third.attempt_id, &third).await.unwrap();
    assert!(
        refused(&mut executor, &second).await.contains("is at attempt 3, and this is attempt 2: numbers only rise")
    );
    let row = "SELECT a.id::text FROM attempts a JOIN tasks t ON t.attempt_id = a.id";
    assert_eq!(stack.value::<String>(row).await, third.attempt_id);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM tasks").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_another_executor_is_not_taken_away() {
    let mut stack = Stack::start().await;
    let (mut owner, _) = Scripted::ready(&mut stack, hello("owner")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let attempt = owner.run_one().await;
    let mut spec = minted(&stack, task, 1).await;
    spec.attempt_id = attempt.clone();
    let mut thief = executor_with(&mut stack, &[&spec]).await;
    want(&stack, &thief, &[]).await;
    assert!(refused(&mut thief, &spec).await.contains("known already, as attempt 1 of task 1"));
    assert_eq!(owner.report(&attempt, 4, finalizing(0)).await.refusal(), Refusal::Unspecified);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_names_that_are_taken_stay_whose_they_are() {
    let mut stack = Stack::start().await;
    make::task(&stack.store).await;
    let taken = AttemptSpec { task_number: 1, ..spec() };
    let absurd = AttemptSpec { task_number: u64::MAX, ..spec() };
    let same_name = in_project(spec());
    stack
        .run(
            "INSERT INTO projects (id, name, root_commit) \
             VALUES ('00000000-0000-0000-0000-000000000001', 'demo', repeat('b', 40))",
        )
        .await;
    let mut executor = executor_with(&mut stack, &[&taken, &absurd, &same_name]).await;
    let request = want(&stack, &executor, &[]).await;
    for spec in [&taken, &absurd] {
        hand_in(&mut executor, &spec.attempt_id, spec).await.unwrap();
    }
    let said = refused(&mut executor, &same_name).await;
    assert!(said.contains("project demo") && said.contains("sculpt project rm"), "{said}");
    let numbers: Vec<Option<u64>> =
        adoptions(&stack, &request).await.unwrap().into_iter().map(|adoption| adoption.task).collect();
    assert_eq!(numbers.iter().flatten().count(), 2);
    assert!(numbers.iter().flatten().all(|number| (2..10).contains(number)), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_answers_who_asked_and_nobody_who_asks_again() {
    let mut stack = Stack::start().await;
    let spec = spec();
    let executor = executor_with(&mut stack, &[&spec]).await;
    let first = want(&stack, &executor, &[&spec]).await;
    let again = want(&stack, &executor, &[&spec]).await;
    let (id, attempt): (ExecutorId, AttemptId) = (executor.id.parse().unwrap(), spec.attempt_id.parse().unwrap());
    for (request, refusal) in [(first.id, None), (again.id, Some("no".to_owned()))] {
        let refused = stack.store.write::<_, StoreError>(move |conn| {
            Box::pin(async move { adopt::refuse(conn, id, attempt, request, "no").await })
        });
        refused.await.unwrap();
        assert_eq!(adoptions(&stack, &again).await.unwrap(), [Adoption { attempt, task: None, refusal }]);
    }
}

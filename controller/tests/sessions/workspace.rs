//! Retries in the workspace that the last attempt left.

use prost::Message as _;
use sculpt_controller::{
    background::place,
    dispatch::{Actor, DispatchError},
    store::sessions::Epoch,
};
use sculpt_core::task::Event;
use sculpt_proto::{
    executor::v1::{AttemptSpec, DesiredAttempt, Ended, control_response, ended, report::Step},
    id::TaskId,
    v1::Failure,
};

use super::{
    Stack,
    executor::{Scripted, finalizing, hello},
};
use crate::make;

async fn apply(stack: &Stack, task: TaskId, event: Event) -> Result<(), DispatchError> {
    stack.dispatch.apply(task, event, Actor::user("ada")).await.map(drop)
}

/// The next attempt that is desired, past what else is said.
async fn desired(executor: &mut Scripted) -> DesiredAttempt {
    loop {
        match executor.next().await {
            control_response::Part::Desired(desired) => {
                if let Some(attempt) = desired.attempts.into_iter().next() {
                    return attempt;
                }
            }
            other => panic!("no Desired but {other:?}"),
        }
    }
}

/// Runs the next attempt to a failure; its id.
async fn fails(executor: &mut Scripted) -> String {
    let attempt = executor.run_one().await;
    executor.report(&attempt, 4, finalizing(1)).await;
    let failure = Some(Failure { cause: "agent_exit".into(), message: "exit 1".into() });
    let outcome = ended::Outcome::Failed.into();
    executor.report(&attempt, 5, Step::Ended(Ended { outcome, failure, ..Ended::default() })).await;
    attempt
}

fn epoch(executor: &Scripted) -> Epoch {
    Epoch { executor: executor.id.parse().unwrap(), number: executor.epoch }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_the_one_executor_that_has_it_and_that_one_keeps_it() {
    let mut stack = Stack::start().await;
    let (mut owner, _) = Scripted::ready(&mut stack, hello("owner")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let first = fails(&mut owner).await;
    assert_eq!(owner.desired().await.released, std::slice::from_ref(&first));
    let (other, _) = Scripted::ready(&mut stack, hello("other")).await;

    apply(&stack, task, Event::RetryInWorkspace).await.unwrap();
    stack.dispatch.bus().tell(epoch(&owner).executor);
    // What was released is wanted again, so that it is not collected meanwhile.
    assert_eq!(desired(&mut owner).await.attempt_id, first);
    let place = |sessions: Vec<Epoch>| {
        let dispatch = stack.dispatch.clone();
        async move { place::place_all(&dispatch, stack.cluster, &sessions).await.unwrap().count }
    };
    assert_eq!(place(vec![epoch(&other)]).await, 0, "nobody else has it");
    let classes = "SELECT count(*) FROM classes WHERE executor_id IS NOT NULL";
    assert_eq!(stack.value::<i64>(classes).await, 1);
    // Another task with the same needs is not held up by it.
    let free = make::task(&stack.store).await;
    assert_eq!(place(vec![epoch(&other)]).await, 1);
    assert_eq!(place(vec![epoch(&other), epoch(&owner)]).await, 1);

    let second = desired(&mut owner).await;
    assert_eq!((second.number, second.task_id.as_str()), (2, task.to_string().as_str()));
    let spec = AttemptSpec::decode(owner.spec(&second.attempt_id).await.unwrap().as_slice()).unwrap();
    assert_eq!(spec.workspace_of, first);
    let elsewhere =
        "SELECT executor_id::text FROM attempts WHERE task_id <> (SELECT task_id FROM attempts WHERE number = 2)";
    assert_eq!(stack.value::<String>(elsewhere).await, other.id, "{free}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_without_a_word_of_it_runs_anywhere_again() {
    let mut stack = Stack::start().await;
    let (mut owner, _) = Scripted::ready(&mut stack, hello("owner")).await;
    let task = make::task(&stack.store).await;
    let refused = apply(&stack, task, Event::RetryInWorkspace).await.unwrap_err();
    assert_eq!(refused.to_string(), "a task that is queued cannot be retried in its workspace");
    stack.place().await;
    fails(&mut owner).await;
    apply(&stack, task, Event::RetryInWorkspace).await.unwrap();
    apply(&stack, task, Event::Stop).await.unwrap();
    // Cancelled before it was placed: it can still go on there, or be begun anew.
    apply(&stack, task, Event::RetryInWorkspace).await.unwrap();
    apply(&stack, task, Event::Stop).await.unwrap();
    apply(&stack, task, Event::Retry).await.unwrap();
    let (other, _) = Scripted::ready(&mut stack, hello("other")).await;
    let placed = place::place_all(&stack.dispatch, stack.cluster, &[epoch(&other)]).await.unwrap().count;
    assert_eq!(placed, 1);
    let pinned = "SELECT count(*) FROM tasks t JOIN classes c ON c.id = t.class_id \
                  WHERE c.executor_id IS NOT NULL OR t.workspace_of IS NOT NULL";
    assert_eq!(stack.value::<i64>(pinned).await, 0);
}

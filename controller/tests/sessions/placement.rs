use std::collections::BTreeSet;

use sculpt_controller::background::place;
use sculpt_core::task::{OnLost, Policy};
use sculpt_proto::id::TaskId;

use super::Stack;
use crate::make;

#[tokio::test(flavor = "multi_thread")]
async fn two_placements_at_once_never_claim_a_task_twice_nor_a_slot() {
    let stack = Stack::start().await;
    for _ in 0..60 {
        make::task(&stack.store).await;
    }
    let epochs = [
        make::open(&stack.store, make::introduction("one", 20)).await,
        make::open(&stack.store, make::introduction("two", 20)).await,
    ];
    let placements = (0..4).map(|n| {
        let (dispatch, cluster) = (stack.dispatch.clone(), stack.cluster);
        let mine = if n < 2 { epochs.to_vec() } else { vec![epochs[n - 2]] };
        tokio::spawn(async move { place::place_all(&dispatch, cluster, &mine).await.unwrap().count })
    });
    let mut placed = 0;
    for placement in placements.collect::<Vec<_>>() {
        placed += placement.await.unwrap();
    }
    // A placement that found all rows locked by another has nothing left to do but to look again.
    placed += place::place_all(&stack.dispatch, stack.cluster, &epochs).await.unwrap().count;
    assert_eq!(placed, 40);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM attempts").await, 40);
    assert_eq!(stack.value::<i64>("SELECT count(DISTINCT task_id) FROM attempts").await, 40);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM tasks WHERE next_attempt IS NOT NULL").await, 20);
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM attempts GROUP BY executor_id) x";
    assert_eq!(stack.value::<i64>(most).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn priority_goes_before_age_and_an_unplaceable_class_hinders_nobody() {
    let stack = Stack::start().await;
    let policy = Policy { on_lost: OnLost::Wait, lost_after: chrono::TimeDelta::minutes(15) };
    let tasks = [
        make::task_with(&stack.store, policy, 0).await,
        make::task_with(&stack.store, policy, 5).await,
        make::task_with(&stack.store, policy, 0).await,
    ];
    stack
        .run("INSERT INTO classes (digest, pool, requirements) VALUES (decode(repeat('00', 32), 'hex'), 'gpu', '{}')")
        .await;
    let elsewhere = make::task_with(&stack.store, policy, 1000).await;
    stack.run("UPDATE tasks SET class_id = (SELECT id FROM classes WHERE pool = 'gpu') WHERE priority = 1000").await;
    let epoch = make::open(&stack.store, make::introduction("one", 2)).await;
    assert_eq!(place::place_all(&stack.dispatch, stack.cluster, &[epoch]).await.unwrap().count, 2);
    let placed: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT task_id FROM attempts")
        .fetch_all(&mut *stack.store.read().await.unwrap())
        .await
        .unwrap();
    assert_eq!(BTreeSet::from_iter(placed), BTreeSet::from([tasks[0].0, tasks[1].0]));
    assert_ne!(elsewhere, tasks[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_claimed_hinders_no_other() {
    let stack = Stack::start().await;
    let epochs = [make::open(&stack.store, make::introduction("one", 1)).await];
    let unreadable = make::task(&stack.store).await;
    stack.run("UPDATE tasks SET spec = '\\xff'").await;
    let taken = make::task(&stack.store).await;
    // An attempt of the number that the task waits for: the claim breaks a constraint, half-way through its writes.
    stack
        .run(
            "INSERT INTO attempts (id, task_id, number, executor_id, spec_digest, state, outcome, ended_at) \
             SELECT gen_random_uuid(), t.id, 1, e.id, '', 'ended', 'completed', now() FROM tasks t, executors e \
             WHERE t.spec <> '\\xff'",
        )
        .await;
    let good = [make::task(&stack.store).await, make::task(&stack.store).await];
    // One slot: those that cannot be claimed stand before the others in the queue.
    for slots in ["UPDATE executors SET slots = 1", "UPDATE executors SET slots = 10"] {
        stack.run(slots).await;
        let placed = place::place_all(&stack.dispatch, stack.cluster, &epochs).await.unwrap();
        assert_eq!(placed.count, 1, "{placed:?}");
        let failed: Vec<TaskId> = placed.failed.into_iter().map(|(task, _)| task).collect();
        assert_eq!(failed, [unreadable, taken]);
    }
    let placed: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT task_id FROM attempts WHERE state <> 'ended'")
        .fetch_all(&mut *stack.store.read().await.unwrap())
        .await
        .unwrap();
    assert_eq!(BTreeSet::from_iter(placed), BTreeSet::from(good.map(|task| task.0)));
    let stay: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM tasks WHERE shown = 'queued' ORDER BY number")
        .fetch_all(&mut *stack.store.read().await.unwrap())
        .await
        .unwrap();
    assert_eq!(stay, [unreadable.0, taken.0]);
}

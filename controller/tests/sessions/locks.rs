//! Everybody at once on the same rows: whoever waits is waited for by nobody.

use std::{sync::Arc, time::Duration};

use sculpt_controller::{
    background::{liveness, place, retention},
    dispatch::{Actor, DispatchError},
    session::reports::{self, Report, ReportError, Told},
    store::{
        StoreError, adopt,
        logs::{self, Chunk},
        sessions::{self, Epoch, Introduction},
    },
};
use sculpt_core::task::Event;
use sculpt_proto::id::{AttemptId, TaskId};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Stack;
use crate::harness::until_waiting;
use crate::make;

/// Rounds of each part: some hundreds of transactions, a few seconds.
const ROUNDS: usize = 40;

/// Whether the database ended a circle of transactions that wait for each other, or one that waited for too long.
fn waited(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = format!("{error:?}");
    // deadlock_detected, lock_not_available
    text.contains("40P01") || text.contains("55P03")
}

fn check<T, E: std::error::Error + 'static>(what: &str, done: Result<T, E>) -> Option<T> {
    match done {
        Err(error) if waited(&error) => panic!("{what}: {error:?}"),
        done => done.ok(),
    }
}

async fn live(stack: &Stack) -> Vec<(Uuid, Uuid)> {
    let sql = "SELECT task_id, id FROM attempts WHERE state <> 'ended' AND fenced_at IS NULL ORDER BY id";
    sqlx::query_as(sql).fetch_all(&mut *stack.store.read().await.unwrap()).await.unwrap()
}

async fn reconnect(stack: &Stack, who: &Introduction) -> Epoch {
    let who = Introduction { directory: Some(Uuid::now_v7()), ..who.clone() };
    let opened = stack.store.write(move |conn| Box::pin(async move { sessions::open(conn, &who).await })).await;
    check("reconnect", opened).expect("it is welcome")
}

async fn report(stack: &Stack, epoch: Epoch, round: usize) {
    for (sequence, (_, attempt)) in (1..).zip(live(stack).await) {
        let told = if round.is_multiple_of(2) { Told::Accepted } else { Told::Note(format!("round {round}")) };
        let report = Report { attempt: AttemptId(attempt), sequence, age: Duration::ZERO, told };
        let answered: Result<_, ReportError> = reports::apply(&stack.dispatch, epoch, report).await;
        check("report", answered);
    }
}

async fn log(stack: &Stack, epoch: Epoch) {
    let attempts: Vec<AttemptId> = live(stack).await.into_iter().map(|(_, id)| AttemptId(id)).collect();
    let appended = stack.store.write::<_, StoreError>(move |conn| {
        Box::pin(async move {
            if !sessions::holds(conn, epoch).await? {
                return Ok(());
            }
            let extents = logs::lock_extents(conn, epoch.executor, &attempts).await?;
            let piece = |end| Chunk { start: end, data: "text".into(), frames: Vec::new() };
            let chunks: Vec<_> = extents.into_iter().map(|(id, extent)| (id, piece(extent.end))).collect();
            logs::append(conn, &chunks).await
        })
    });
    check("append", appended.await);
}

async fn people(stack: &Stack, round: usize) {
    let task = make::task(&stack.store).await;
    for (task, _) in live(stack).await.into_iter().skip(round % 3).step_by(3) {
        for event in [Event::Stop, Event::Retry] {
            let moved: Result<_, DispatchError> = stack.dispatch.apply(TaskId(task), event, Actor::user("ada")).await;
            check("a person", moved);
        }
    }
    check("hold", stack.dispatch.apply(task, Event::Hold, Actor::user("ada")).await);
}

async fn adoption(stack: &Stack, epoch: Epoch) {
    let adopted = stack.store.write::<_, StoreError>(move |conn| {
        Box::pin(async move {
            adopt::hold_for_change(conn, epoch).await?;
            adopt::make_task(conn, TaskId::fresh(), 7, 1, &make::command()).await
        })
    });
    check("adopt", adopted.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_another_in_a_circle() {
    let stack = Arc::new(Stack::start().await);
    let who = make::introduction("one", 30);
    let epoch = make::open(&stack.store, who.clone()).await;
    let (told, newest) = tokio::sync::watch::channel(epoch);
    let mut parts = JoinSet::new();
    macro_rules! part {
        ($stack:ident, $epoch:ident, $round:ident => $work:expr) => {{
            let ($stack, newest) = (Arc::clone(&stack), newest.clone());
            parts.spawn(async move {
                for $round in 0..ROUNDS {
                    let $epoch = *newest.borrow();
                    $work;
                }
            });
        }};
    }
    part!(stack, epoch, round => report(&stack, epoch, round).await);
    part!(stack, epoch, _round => log(&stack, epoch).await);
    part!(stack, _epoch, round => people(&stack, round).await);
    part!(stack, epoch, _round => adoption(&stack, epoch).await);
    part!(stack, epoch, _round => check("place", place::place_all(&stack.dispatch, stack.cluster, &[epoch]).await));
    part!(stack, _epoch, _round => check("retention", retention::sweep(&stack.store, Duration::ZERO).await));
    part!(stack, _epoch, _round => {
        stack.run("UPDATE executors SET last_seen = last_seen - interval '31 seconds'").await;
        let looked = check("liveness", liveness::look(&stack.dispatch).await).expect("the database is there");
        for (_, error) in looked.failed {
            check::<(), _>("liveness", Err(error));
        }
    });
    let (reconnecting, who) = (Arc::clone(&stack), who.clone());
    parts.spawn(async move {
        for _ in 0..ROUNDS {
            let _nobody = told.send(reconnect(&reconnecting, &who).await);
        }
    });
    while let Some(part) = parts.join_next().await {
        part.unwrap();
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(stack.value::<i64>(deadlocks).await, 0);
    assert!(stack.value::<i64>("SELECT count(*) FROM attempts").await > 0, "something happened");
}

/// Several that had high numbers are taken over at once, each after it has drawn a number of its own.
#[tokio::test(flavor = "multi_thread")]
async fn adoptions_at_once_never_set_the_numbers_back() {
    let stack = Stack::start().await;
    make::task(&stack.store).await;
    let mut held = stack.store.read().await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let numbers: Vec<u64> = (1..=6).map(|n| 20_000 * (7 - n)).collect();
    let adopted: Vec<_> = numbers
        .iter()
        .map(|number| {
            let (store, number) = (stack.store.clone(), *number);
            tokio::spawn(async move {
                let made = store.write::<_, StoreError>(move |conn| {
                    Box::pin(async move { adopt::make_task(conn, TaskId::fresh(), number, 1, &make::command()).await })
                });
                made.await.unwrap();
            })
        })
        .collect();
    until_waiting(&stack.store, 6, || false).await;
    sqlx::raw_sql("COMMIT").execute(&mut *held).await.unwrap();
    drop(held);
    for adopted in adopted {
        adopted.await.unwrap();
    }
    make::task(&stack.store).await;
    let rows = "SELECT array_agg(number ORDER BY number) FROM tasks";
    let found = stack.value::<Vec<i64>>(rows).await;
    let newest = *found.last().unwrap();
    assert!(newest > 120_000, "the next number is above all that were taken over: {found:?}");
    assert_eq!(found.len(), 8);
}

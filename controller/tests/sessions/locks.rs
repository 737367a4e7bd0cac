//! Everybody at once on the same rows: whoever waits is waited for by nobody.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
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
use sculpt_core::{
    outcome::{Cause, Failure, Outcome},
    task::Event,
};
use sculpt_proto::id::{AttemptId, TaskId};
use tokio::{sync::Barrier, task::JoinSet};
use uuid::Uuid;

use super::Stack;
use crate::harness::until_waiting;
use crate::make;

/// Rounds of each kind: some hundreds of transactions, a few seconds.
const ROUNDS: usize = 8;

/// Attempts that nobody stops: in every round there is something to tell of.
const STEADY: usize = 8;

/// What disturbs a round, and so whose work may come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing: everybody's work is done.
    Calm,
    /// The executor is found silent, and so is given nothing.
    Silent,
    /// It comes back besides, and what its earlier session does is refused.
    Torn,
}

impl Round {
    fn is_sure_of(self, part: &str) -> bool {
        match self {
            Self::Calm => true,
            Self::Silent => part != "place",
            Self::Torn => matches!(part, "people" | "retention" | "reconnect"),
        }
    }
}

/// The rows that everybody works on.
struct Scene {
    stack: Stack,
    /// In whose directory the steady attempts are.
    who: Introduction,
    steady: BTreeSet<TaskId>,
}

/// A live attempt, as it was found.
struct Live {
    task: TaskId,
    attempt: AttemptId,
    /// How many reports of it were taken.
    through: u64,
}

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

impl Scene {
    async fn set() -> Self {
        let stack = Stack::start().await;
        let who = Introduction { directory: Some(Uuid::now_v7()), ..make::introduction("one", 1000) };
        let mut scene = Self { stack, who, steady: BTreeSet::new() };
        let epoch = scene.reconnect(scene.who.clone()).await;
        for _ in 0..STEADY {
            scene.steady.insert(make::task(&scene.stack.store).await);
        }
        assert_eq!(scene.place(epoch).await, STEADY);
        assert_eq!(scene.report(epoch).await, STEADY, "each is accepted where it stays");
        scene
    }

    /// What a round begins with: the executor is there, each part finds something to do.
    async fn prepare(&self) -> Epoch {
        let epoch = self.reconnect(self.who.clone()).await;
        // For retention, and for the people.
        let over = make::task(&self.stack.store).await;
        make::task(&self.stack.store).await;
        assert!(self.place(epoch).await >= 2);
        let live = self.live().await.into_iter().find(|live| live.task == over).expect("it is placed");
        let failure = Failure { cause: Cause::Internal, message: "as wished".into() };
        let ended = Told::Ended { outcome: Outcome::Failed(failure), exit: None, log_length: 0, head: None };
        assert_eq!(self.tell(epoch, live.attempt, 1, Told::Accepted).await, 1);
        assert_eq!(self.tell(epoch, live.attempt, 2, ended).await, 1);
        // For placement.
        make::task(&self.stack.store).await;
        epoch
    }

    async fn live(&self) -> Vec<Live> {
        let sql = "SELECT task_id, id, report_sequence FROM attempts WHERE state <> 'ended' AND fenced_at IS NULL ORDER BY id";
        let mut conn = self.stack.store.read().await.unwrap();
        let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(sql).fetch_all(&mut *conn).await.unwrap();
        let live = |(task, id, through): (_, _, i64)| Live {
            task: TaskId(task),
            attempt: AttemptId(id),
            through: through.unsigned_abs(),
        };
        rows.into_iter().map(live).collect()
    }

    async fn reconnect(&self, who: Introduction) -> Epoch {
        let opened =
            self.stack.store.write(move |conn| Box::pin(async move { sessions::open(conn, &who).await })).await;
        check("reconnect", opened).expect("it is welcome")
    }

    async fn place(&self, epoch: Epoch) -> usize {
        let placed = place::place_all(&self.stack.dispatch, self.stack.cluster, &[epoch]).await;
        let placed = check("place", placed).expect("the database is there");
        for (_, error) in placed.failed {
            check::<(), _>("place", Err(error));
        }
        placed.count
    }

    async fn tell(&self, epoch: Epoch, attempt: AttemptId, sequence: u64, told: Told) -> usize {
        let report = Report { attempt, sequence, age: Duration::ZERO, told };
        let answered: Result<_, ReportError> = reports::apply(&self.stack.dispatch, epoch, report).await;
        check("report", answered).filter(|answer| answer.refusal.is_none()).map_or(0, |_| 1)
    }

    async fn report(&self, epoch: Epoch) -> usize {
        let mut taken = 0;
        for live in self.live().await {
            let told = if live.through == 0 { Told::Accepted } else { Told::Note("a remark".into()) };
            taken += self.tell(epoch, live.attempt, live.through + 1, told).await;
        }
        taken
    }

    async fn log(&self, epoch: Epoch) -> usize {
        let attempts: Vec<AttemptId> = self.live().await.into_iter().map(|live| live.attempt).collect();
        let appended = self.stack.store.write::<_, StoreError>(move |conn| {
            Box::pin(async move {
                if !sessions::holds(conn, epoch).await? {
                    return Ok(0);
                }
                let extents = logs::lock_extents(conn, epoch.executor, &attempts).await?;
                let piece = |end| Chunk { start: end, data: "text".into(), frames: Vec::new() };
                let chunks: Vec<_> = extents.into_iter().map(|(id, extent)| (id, piece(extent.end))).collect();
                logs::append(conn, &chunks).await?;
                Ok(chunks.len())
            })
        });
        check("append", appended.await).unwrap_or_default()
    }

    async fn people(&self) -> usize {
        let task = make::task(&self.stack.store).await;
        let live = self.live().await.into_iter().map(|live| live.task).filter(|task| !self.steady.contains(task));
        let wishes = live.flat_map(|task| [(task, Event::Stop), (task, Event::Retry)]).chain([(task, Event::Hold)]);
        let mut moved = 0;
        for (task, event) in wishes {
            let done: Result<_, DispatchError> = self.stack.dispatch.apply(task, event, Actor::user("ada")).await;
            moved += check("a person", done).map_or(0, |_| 1);
        }
        moved
    }

    async fn adoption(&self, epoch: Epoch) -> usize {
        let adopted = self.stack.store.write::<_, StoreError>(move |conn| {
            Box::pin(async move {
                adopt::hold_for_change(conn, epoch).await?;
                adopt::make_task(conn, TaskId::fresh(), 7, 1, &make::command()).await
            })
        });
        check("adopt", adopted.await).map_or(0, |_| 1)
    }

    async fn retention(&self) -> usize {
        let swept = check("retention", retention::sweep(&self.stack.store, Duration::ZERO).await);
        usize::try_from(swept.expect("the database is there")).unwrap()
    }

    /// Looks before the executor is found silent, and after.
    async fn liveness(&self) -> usize {
        let before = self.look().await;
        self.stack.run("UPDATE executors SET last_seen = last_seen - interval '31 seconds'").await;
        before + self.look().await
    }

    async fn look(&self) -> usize {
        let looked = check("liveness", liveness::look(&self.stack.dispatch).await).expect("the database is there");
        for (_, error) in looked.failed {
            check::<(), _>("liveness", Err(error));
        }
        looked.moved
    }
}

/// Everybody's work of a round, which says how much of it was done.
fn parts(scene: &Arc<Scene>, epoch: Epoch, round: Round) -> Vec<(&'static str, BoxFuture<'static, usize>)> {
    macro_rules! part {
        ($scene:ident => $work:expr) => {{
            let $scene = Arc::clone(scene);
            async move { $work }.boxed()
        }};
    }
    let mut parts = vec![
        ("report", part!(scene => scene.report(epoch).await)),
        ("log", part!(scene => scene.log(epoch).await)),
        ("people", part!(scene => scene.people().await)),
        ("adoption", part!(scene => scene.adoption(epoch).await)),
        ("place", part!(scene => scene.place(epoch).await)),
        ("retention", part!(scene => scene.retention().await)),
    ];
    if round != Round::Calm {
        parts.push(("liveness", part!(scene => scene.liveness().await)));
    }
    if round == Round::Torn {
        let elsewhere = Introduction { directory: Some(Uuid::now_v7()), ..scene.who.clone() };
        parts.push(("reconnect", part!(scene => usize::from(scene.reconnect(elsewhere).await.number > epoch.number))));
    }
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_another_in_a_circle() {
    let scene = Arc::new(Scene::set().await);
    for round in [Round::Calm, Round::Silent, Round::Torn].into_iter().cycle().take(3 * ROUNDS) {
        let parts = parts(&scene, scene.prepare().await, round);
        let start = Arc::new(Barrier::new(parts.len()));
        let mut racing = JoinSet::new();
        for (name, part) in parts {
            let start = Arc::clone(&start);
            racing.spawn(async move {
                start.wait().await;
                (name, part.await)
            });
        }
        while let Some(part) = racing.join_next().await {
            let (name, done) = part.unwrap();
            assert!(done > 0 || !round.is_sure_of(name), "{name} has done nothing in a round that is {round:?}");
        }
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(scene.stack.value::<i64>(deadlocks).await, 0);
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

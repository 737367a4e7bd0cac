//! Tasks through the database: what the machines can be, the rows can hold.

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use sculpt_controller::{
    bus::Bus,
    dispatch::{Actor, Dispatch, DispatchError},
    store::{Store, sessions, task_state},
};
use sculpt_core::{
    attempt::{Fence, Step},
    liveness::Liveness,
    outcome::{Cause, Exit, Failure, Outcome},
    review::{Commit, Verdict},
    shown::shown,
    task::{Event, OnLost, Policy, Run, Task},
    turn::{Ask, TurnStep},
};
use sculpt_proto::id::TaskId;
use uuid::Uuid;

use crate::{harness, make};

/// What is to happen; the fence is that of the moment, or a stale one.
#[derive(Clone, Debug)]
enum Happening {
    Plain(Event),
    Claim,
    Of(bool, Of),
}

#[derive(Clone, Debug)]
enum Of {
    SpecRead,
    Withdrawn,
    Step(Step),
    Turn(TurnStep),
    Publish(char),
    /// Silent for so many seconds; 0: connected.
    Silent(i64),
    Expired,
}

fn commit(letter: char) -> Commit {
    Commit(letter.to_string().repeat(40))
}

fn step() -> impl Strategy<Value = Step> {
    let exit = prop_oneof![
        Just(None),
        any::<i32>().prop_map(|code| Some(Exit::Code(code))),
        (1..64).prop_map(|signal| Some(Exit::Signal(signal))),
    ];
    let cause = prop_oneof![
        Just(Cause::AgentExit),
        Just(Cause::Oom),
        Just(Cause::Interrupted),
        Just(Cause::Other("a cause of the future".into()))
    ];
    let failed =
        cause.prop_map(|cause| Outcome::Failed(Failure { cause, message: "it said \"no\", and wrote ü".into() }));
    let outcome = prop_oneof![3 => Just(Outcome::Completed), 1 => failed, 1 => Just(Outcome::Cancelled), 1 => Just(Outcome::Fenced)];
    prop_oneof![
        4 => Just(Step::Accepted),
        4 => Just(Step::Preparing),
        4 => Just(Step::Running),
        2 => exit.prop_map(|exit| Step::Finalizing { exit }),
        1 => outcome.prop_map(|outcome| Step::Ended { outcome }),
    ]
}

fn turn() -> impl Strategy<Value = TurnStep> {
    let ask = prop_oneof![Just(Ask::Question), Just(Ask::Permission)];
    let until =
        proptest::option::of((0_i64..4_000_000_000).prop_map(|s| chrono::DateTime::from_timestamp(s, 0).unwrap()));
    prop_oneof![
        Just(TurnStep::Began),
        Just(TurnStep::Over),
        Just(TurnStep::Parked),
        (ask, "[a-zé?]{0,8}").prop_map(|(ask, text)| TurnStep::Asked { ask, text }),
        until.prop_map(|until| TurnStep::Limited { until }),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let letter = || prop_oneof![Just('a'), Just('b')];
    let verdict = prop_oneof![
        letter().prop_map(|head| Verdict::Accept { head: commit(head) }),
        Just(Verdict::Reject { reason: "not good".into() }),
        letter().prop_map(|head| Verdict::Merge { head: commit(head), commit: commit('c') }),
    ];
    let plain = prop_oneof![
        1 => Just(Event::Stop),
        2 => Just(Event::Hold),
        4 => Just(Event::Resume),
        3 => Just(Event::Retry),
        2 => verdict.prop_map(Event::Reviewed),
    ];
    let of = prop_oneof![
        2 => Just(Of::SpecRead),
        1 => Just(Of::Withdrawn),
        12 => step().prop_map(Of::Step),
        4 => turn().prop_map(Of::Turn),
        3 => letter().prop_map(Of::Publish),
        3 => prop_oneof![Just(0), Just(40), Just(100_000)].prop_map(Of::Silent),
        2 => Just(Of::Expired),
    ];
    prop_oneof![
        2 => plain.prop_map(Happening::Plain),
        4 => Just(Happening::Claim),
        8 => (proptest::bool::weighted(0.95), of).prop_map(|(current, of)| Happening::Of(current, of)),
    ]
}

fn event(happening: Happening, locked: &task_state::Locked, executor: Uuid) -> Option<Event> {
    let (current, of) = match happening {
        Happening::Plain(event) => return Some(event),
        Happening::Claim => {
            let Run::Queued { next } = locked.task.run else { return None };
            return Some(Event::Claimed { fence: Fence { number: next, id: Uuid::now_v7() }, executor });
        }
        Happening::Of(current, of) => (current, of),
    };
    let stale = Fence { number: 1, id: Uuid::now_v7() };
    let fence = if current { locked.task.attempt()?.fence } else { stale };
    Some(match of {
        Of::SpecRead => Event::SpecRead { fence },
        Of::Withdrawn => Event::Withdrawn { fence },
        Of::Step(step) => Event::Stepped { fence, step },
        Of::Turn(step) => Event::Turned { fence, step },
        Of::Publish(head) => Event::Published { fence, head: commit(head) },
        Of::Silent(seconds) => {
            let since = locked.now - chrono::TimeDelta::seconds(seconds);
            Event::Liveness { fence, liveness: Liveness::of(since, locked.task.policy.lost_after, locked.now) }
        }
        Of::Expired => Event::Expired { fence },
    })
}

/// One happening in one transaction: what was, what should have become, and what stands now.
async fn happen(store: &Store, task: TaskId, happening: Happening, executor: Uuid) {
    store
        .write::<_, DispatchError>(move |conn| {
            Box::pin(async move {
                let before = task_state::lock(conn, task).await?.unwrap();
                let Some(event) = event(happening, &before, executor) else { return Ok(()) };
                let done = Dispatch::apply_in(conn, task, event.clone(), &Actor::user("ada").because("why not")).await;
                let after = task_state::lock(conn, task).await?.unwrap();
                let moved = match done {
                    Ok(moved) => moved,
                    Err(DispatchError::Illegal(_)) => {
                        assert_eq!((after.task, after.revision), (before.task, before.revision));
                        return Ok(());
                    }
                    Err(other) => return Err(other),
                };
                let mut expected = before.task.clone();
                let mut effects = expected.apply(&event, before.now).expect("it was applied");
                let next = expected.follow_up(&before.task, &event, before.now);
                if let Some(next) = &next {
                    effects.extend(expected.apply(next, before.now).expect("it follows"));
                }
                assert_eq!(moved.effects, effects);
                assert_eq!(moved.revision, after.revision);
                assert_same(&after.task, &expected);
                let moves = u64::from(!matches!(event, Event::SpecRead { .. })) + u64::from(next.is_some());
                assert_eq!(after.revision, before.revision + moves);
                Ok(())
            })
        })
        .await
        .unwrap();
}

/// The clock is read anew in each call, so times that events set may differ by the duration of the test.
fn assert_same(found: &Task, expected: &Task) {
    assert_eq!(timeless(found), timeless(expected));
    assert_eq!(shown(found), shown(expected));
}

/// Without the two times that `apply` reads from the clock.
fn timeless(task: &Task) -> serde_json::Value {
    let mut value = serde_json::to_value(task).unwrap();
    if let Some(state) = value.pointer_mut("/run/attempt/state").and_then(|state| state.as_object_mut()) {
        let clocked = if state["state"] == "running" { "since" } else { "at" };
        if let Some(time) = state.get_mut(clocked) {
            assert!(time.is_string());
            *time = "a time".into();
        }
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reachable_state_stands_in_its_rows_as_it_is() {
    let (store, _fresh) = harness::store().await;
    let executor = make::executor(&store, "one").await.executor;
    // A mark of silence older than the executor's last word would be read as that word.
    let silent = "UPDATE executors SET last_seen = now() - interval '10 years'";
    sqlx::query(silent).execute(&mut *store.read().await.unwrap()).await.unwrap();
    let mut runner = TestRunner::default();
    let sequences = proptest::collection::vec(happening(), 20..50);
    for round in 0..60_u32 {
        let on_lost = [OnLost::Wait, OnLost::Retry, OnLost::Fail][round as usize % 3];
        let policy = Policy { on_lost, lost_after: chrono::TimeDelta::seconds(900) };
        let task = make::task_with(&store, policy, 0).await;
        for happening in sequences.new_tree(&mut runner).unwrap().current() {
            happen(&store, task, happening, executor.0).await;
        }
    }
    let _ = sessions::wishes(&mut store.read().await.unwrap(), executor).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_was_overtaken_is_refused_and_nothing_moves() {
    let (store, _fresh) = harness::store().await;
    let task = make::task(&store).await;
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    let moved = dispatch.apply_if(task, Some(1), Event::Hold, Actor::user("ada")).await.unwrap();
    assert_eq!(moved.revision, 2);
    let refused = dispatch.apply_if(task, Some(1), Event::Resume, Actor::user("ada")).await;
    assert!(matches!(refused, Err(DispatchError::Revision { expected: 1, actual: 2 })), "{refused:?}");
    let unknown = dispatch.apply(TaskId::fresh(), Event::Stop, Actor::system()).await;
    assert!(matches!(unknown, Err(DispatchError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_sent_after_the_commit() {
    let (store, _fresh) = harness::store().await;
    let task = make::task(&store).await;
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    let (mut placed, mut journal) = (dispatch.bus().placed(), dispatch.bus().journal_moved());
    let _ = dispatch.apply(task, Event::Hold, Actor::user("ada")).await.unwrap();
    placed.changed().await.unwrap();
    journal.changed().await.unwrap();
}

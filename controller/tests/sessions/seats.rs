//! What people do beside an attempt, as its executor tells it.

use sculpt_controller::store::seats;
use sculpt_pairing::Role;
use sculpt_proto::{
    executor::v1::{Attached, Detached, Typed, report::Step, report_ack::Refusal},
    id::{PairingId, SeatId, TaskId},
};
use serde_json::{Value, json};

use super::{
    Stack,
    executor::{Scripted, completed, finalizing, hello},
};
use crate::{harness, make};

/// Gives the one task a project, which has nothing recorded.
const PROJECT: &str = "WITH web AS (INSERT INTO projects (id, name, root_commit) \
     VALUES (gen_random_uuid(), 'web', repeat('c', 40)) RETURNING id) \
     UPDATE tasks SET project_id = web.id, base = repeat('c', 40) FROM web";

/// An agent, with ada's pairing beside it.
struct Desk {
    stack: Stack,
    executor: Scripted,
    task: TaskId,
    attempt: String,
    pairing: PairingId,
}

impl Desk {
    async fn new() -> Self {
        let mut stack = Stack::start().await;
        let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
        let task = make::task(&stack.store).await;
        stack.place().await;
        let attempt = executor.run_one().await;
        let pairing = pairing(&stack, &attempt).await;
        Self { stack, executor, task, attempt, pairing }
    }
}

/// Lets ada sit beside `attempt`.
async fn pairing(stack: &Stack, attempt: &str) -> PairingId {
    harness::admin(&stack.store).await;
    let id = PairingId::fresh();
    let sql = "INSERT INTO pairings (id, attempt_id, user_id, token_id, rights, expires_at) \
               SELECT $1, $2::uuid, user_id, id, '{observe,drive}', now() + interval '15 minutes' \
               FROM tokens ORDER BY created_at LIMIT 1";
    let mut conn = stack.store.read().await.unwrap();
    assert_eq!(sqlx::query(sql).bind(id.0).bind(attempt).execute(&mut *conn).await.unwrap().rows_affected(), 1);
    id
}

fn attached(pairing: PairingId, seat: SeatId, role: &str) -> Step {
    Step::Attached(Attached { pairing_id: pairing.to_string(), session_id: seat.to_string(), role: role.into() })
}

fn typed(seat: SeatId, bytes: u64, content: &[u8]) -> Step {
    let took = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    Step::Typed(Typed { session_id: seat.to_string(), bytes, took, content: content.to_vec() })
}

fn detached(seat: SeatId, why: &str) -> Step {
    Step::Detached(Detached { session_id: seat.to_string(), why: why.into() })
}

/// All that the journal has of it, without the ids.
async fn journal(stack: &Stack) -> Vec<Value> {
    let sql = "SELECT json_build_object('kind', kind, 'by', e.actor, 'on', x.name, 'attempt', attempt, 'state', shown, \
               'data', data - 'session' - 'pairing') FROM events e JOIN executors x ON x.id = executor_id \
               WHERE kind LIKE 'pairing.%' ORDER BY e.id";
    sqlx::query_scalar(sql).fetch_all(&mut *stack.store.read().await.unwrap()).await.unwrap()
}

async fn there(stack: &Stack, task: TaskId) -> Vec<(String, String, bool)> {
    let mut conn = stack.store.read().await.unwrap();
    let seats = seats::beside(&mut conn, task).await.unwrap();
    seats.into_iter().map(|seat| (seat.user_name, seat.role, seat.typed_at.is_some())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_is_told_once_and_in_order() {
    let Desk { stack, mut executor, task, attempt, pairing } = Desk::new().await;
    let (drives, looks) = (SeatId::fresh(), SeatId::fresh());
    let revision = "SELECT revision FROM tasks";
    let before: i64 = stack.value(revision).await;
    stack.run(PROJECT).await;
    for (sequence, step, through, refusal) in [
        (5, typed(drives, 3, b""), 3, Refusal::Gap),
        (4, attached(pairing, drives, "driver"), 4, Refusal::Unspecified),
        (4, attached(pairing, drives, "driver"), 4, Refusal::Unspecified),
        (5, typed(drives, 3, b""), 5, Refusal::Unspecified),
        (5, typed(drives, 3, b""), 5, Refusal::Unspecified),
        (6, attached(pairing, looks, "observer"), 6, Refusal::Unspecified),
        // As from a journal that a damaged disk cut short.
        (7, attached(pairing, drives, "driver"), 7, Refusal::Unspecified),
        // Told by an executor that was told so once, or that does what it likes.
        (8, typed(drives, 6, b"secret"), 8, Refusal::Unspecified),
    ] {
        let ack = executor.report(&attempt, sequence, step.clone()).await;
        assert_eq!((ack.through, ack.refusal()), (through, refusal), "{sequence}: {step:?}: {}", ack.text);
    }
    let ada = |role: &str, typed| ("ada".to_owned(), role.to_owned(), typed);
    assert_eq!(there(&stack, task).await, [ada("driver", true), ada("observer", false)]);
    stack.run("UPDATE projects SET record_typing = true").await;
    executor.report(&attempt, 9, typed(drives, 2, b"\x1b\0")).await;
    executor.report(&attempt, 10, typed(looks, 2, b"no")).await;
    executor.report(&attempt, 11, detached(drives, "")).await;
    executor.report(&attempt, 12, detached(drives, "again")).await;
    executor.report(&attempt, 13, typed(drives, 1, b"")).await;
    assert_eq!(there(&stack, task).await, [ada("observer", false)]);
    assert_eq!(executor.report(&attempt, 14, finalizing(0)).await.through, 14);
    assert_eq!(there(&stack, task).await, [ada("observer", false)]);
    assert_eq!(executor.report(&attempt, 15, completed(0)).await.through, 15);
    assert_eq!(there(&stack, task).await, [], "nobody sits beside what is over");
    let entry = |kind: &str, data: Value| json!({ "kind": format!("pairing.{kind}"), "by": "ada", "on": "one", "attempt": 1, "state": "running", "data": data });
    assert_eq!(
        journal(&stack).await,
        [
            entry("attached", json!({ "role": "driver" })),
            entry("typed", json!({ "role": "driver", "bytes": 3, "seconds": 1.5 })),
            entry("attached", json!({ "role": "observer" })),
            entry("typed", json!({ "role": "driver", "bytes": 6, "seconds": 1.5 })),
            entry("typed", json!({ "role": "driver", "bytes": 2, "seconds": 1.5, "text": "\u{1b}\u{2400}" })),
            entry("detached", json!({ "role": "driver" })),
        ]
    );
    assert_eq!(stack.value::<i64>(revision).await - before, 2, "only the attempt's own steps move the task");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sat_there_as_what_no_pairing_let_them_be() {
    let Desk { stack, mut executor, task, attempt, pairing } = Desk::new().await;
    let mut sequences = 4..;
    for (rights, may) in [("observe", "observer"), ("shell", "shell command files"), ("forward", "ports")] {
        let seat = SeatId::fresh();
        stack.run("UPDATE seats SET ended_at = began_at").await;
        let sql = "UPDATE pairings SET rights = ARRAY[$1::pair_right]";
        sqlx::query(sql).bind(rights).execute(&mut *stack.store.read().await.unwrap()).await.unwrap();
        for (role, sequence) in Role::ALL.into_iter().zip(&mut sequences) {
            let own = if may.contains(role.as_str()) { SeatId::fresh() } else { seat };
            let step = attached(pairing, own, role.as_str());
            assert_eq!(executor.report(&attempt, sequence, step).await.through, sequence);
        }
        let sequence = sequences.next().unwrap();
        assert_eq!(executor.report(&attempt, sequence, typed(seat, 9, b"rm -rf /")).await.through, sequence);
        let sat: Vec<_> = there(&stack, task).await.into_iter().map(|(_, role, _)| role).collect();
        assert_eq!(sat.join(" "), may, "{rights}");
    }
    assert_eq!(journal(&stack).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_beside_an_attempt_that_lost_its_task_meanwhile_is_told_all_the_same() {
    let Desk { stack, mut executor, task, attempt, pairing } = Desk::new().await;
    // Their pairing was taken back meanwhile, too: its executor could not hear of it.
    stack.run("UPDATE pairings SET closed_at = now(), closed_by = 'ada'").await;
    stack.run("UPDATE attempts SET fenced_at = now()").await;
    let seat = SeatId::fresh();
    for (sequence, step) in (4..).zip([attached(pairing, seat, "driver"), typed(seat, 3, b""), detached(seat, "")]) {
        for _ in 0..2 {
            let ack = executor.answer(&attempt, sequence, step.clone()).await;
            assert_eq!((ack.through, ack.refusal()), (sequence, Refusal::Fenced));
        }
    }
    let told: Vec<Value> = journal(&stack).await.into_iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(told, ["pairing.attached", "pairing.typed", "pairing.detached"], "once each");
    assert_eq!(there(&stack, task).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_says_of_nobody_that_they_were_there_whom_nobody_let_in() {
    let Desk { mut stack, executor: mut one, task, attempt: mine, pairing } = Desk::new().await;
    let (mut two, _) = Scripted::ready(&mut stack, hello("two")).await;
    // The first has as many as it can have.
    stack.run("UPDATE executors SET slots = 1 WHERE name = 'one'").await;
    make::task(&stack.store).await;
    stack.place().await;
    let other = two.run_one().await;
    let seat = SeatId::fresh();
    assert_eq!(one.report(&mine, 4, attached(pairing, seat, "driver")).await.through, 4);

    let stray = SeatId::fresh();
    for (sequence, step) in (4..).zip([
        attached(pairing, stray, "driver"),
        attached(PairingId::fresh(), stray, "driver"),
        attached(pairing, seat, "observer"),
        typed(seat, 9, b"rm -rf /"),
        detached(seat, "as two says"),
        typed(stray, 9, b""),
    ]) {
        let ack = two.report(&other, sequence, step).await;
        assert_eq!((ack.through, ack.refusal()), (sequence, Refusal::Unspecified), "what follows it is not held up");
    }
    assert_eq!(journal(&stack).await.len(), 1, "{:?}", journal(&stack).await);
    assert_eq!(there(&stack, task).await, [("ada".into(), "driver".into(), false)]);
    assert_eq!(one.report(&mine, 5, detached(seat, "the connection broke")).await.through, 5);
    assert_eq!(journal(&stack).await[1]["data"], json!({ "role": "driver", "why": "the connection broke" }));
    assert_eq!(there(&stack, task).await, []);
}

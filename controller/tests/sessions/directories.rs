//! Two directories of one executor: what one lacks proves nothing about what went to the other.

use sculpt_controller::background::liveness;
use sculpt_proto::executor::v1::{Hello, ObservedAttempt, Phase, report_ack::Refusal};
use uuid::Uuid;

use super::{
    Stack,
    executor::{Scripted, completed, finalizing, hello, observed},
};
use crate::make;

const STATE: &str = "SELECT concat_ws(' ', t.shown, a.state, a.cause, a.liveness, a.fenced_at IS NOT NULL, \
                     a.released_at IS NOT NULL) FROM tasks t JOIN attempts a ON a.task_id = t.id ORDER BY t.number LIMIT 1";

/// The same executor over another directory.
fn over(who: &Hello, directory: &str) -> Hello {
    Hello { directory_id: directory.to_owned(), ..who.clone() }
}

/// An executor that runs an attempt from its first directory, and a second directory.
async fn running(stack: &mut Stack) -> (Hello, Hello, String) {
    let [first, second] = [(); 2].map(|()| Uuid::new_v4().to_string());
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(stack, over(&who, &first)).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    (over(&who, &first), over(&who, &second), attempt)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_directory_that_lacks_an_attempt_has_lost_it() {
    let mut stack = Stack::start().await;
    let (first, _, _) = running(&mut stack).await;
    let (_back, desired) = Scripted::ready(&mut stack, first).await;
    assert_eq!(desired.attempts, []);
    assert_eq!(stack.value::<String>(STATE).await, "failed ended interrupted connected t t");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_and_runs_all_the_same_is_ended() {
    let mut stack = Stack::start().await;
    let (first, _, attempt) = running(&mut stack).await;
    // Its directory came back without it, and then with it: an older copy had been put in its place.
    let (_without, _) = Scripted::ready(&mut stack, first.clone()).await;
    let mut with = Scripted::welcome(&mut stack, first.clone()).await;
    with.observe(vec![observed(&stack, &attempt, false)]).await;
    let desired = with.desired().await;
    assert_eq!(desired.released, Vec::<String>::new());
    assert_eq!((&desired.attempts[0].attempt_id, desired.attempts[0].phase()), (&attempt, Phase::Fence));
    assert_eq!(stack.value::<String>(STATE).await, "failed ended interrupted connected t f");
    assert_eq!(with.answer(&attempt, 4, completed(0)).await.refusal(), Refusal::Fenced);
    assert_eq!(stack.value::<String>(STATE).await, "failed ended interrupted connected t t");
    // Whoever says once more that it runs, from before its end, changes nothing; in another session it is taken at its word.
    with.observe(vec![observed(&stack, &attempt, false)]).await;
    let mut again = Scripted::welcome(&mut stack, first).await;
    again.observe(vec![observed(&stack, &attempt, true)]).await;
    assert_eq!(again.desired().await.released, [attempt]);
    assert_eq!(stack.value::<String>(STATE).await, "failed ended interrupted connected t t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_identity_on_an_empty_directory_ends_nothing() {
    let mut stack = Stack::start().await;
    let (first, second, attempt) = running(&mut stack).await;
    let (mut copy, desired) = Scripted::ready(&mut stack, second).await;
    assert_eq!(desired.attempts, []);
    assert_eq!(stack.value::<String>(STATE).await, "running running connected f f");
    // Its own directory falls silent while the executor is there.
    for (silence, expected) in [
        ("31 seconds", "running running unreachable f f"),
        ("16 minutes", "lost running lost f f"),
        ("2 days", "lost running lost f f"),
    ] {
        let mut conn = stack.store.read().await.unwrap();
        let sql = "UPDATE attempts SET last_heard = now() - $1::text::interval";
        sqlx::query(sql).bind(silence).execute(&mut *conn).await.unwrap();
        drop(conn);
        liveness::look(&stack.dispatch).await.unwrap();
        copy.observe(vec![]).await;
        assert_eq!(stack.value::<String>(STATE).await, expected, "{silence}");
    }
    // It has room for other work meanwhile.
    for _ in 0..4 {
        make::task(&stack.store).await;
    }
    assert_eq!(stack.place().await, 4);
    assert_eq!(copy.desired().await.attempts.len(), 4);
    // Back with all that it had, it goes on.
    let mut back = Scripted::welcome(&mut stack, first).await;
    back.observe(vec![observed(&stack, &attempt, false)]).await;
    let wanted = back.desired().await.attempts;
    let running = wanted.iter().find(|wanted| wanted.attempt_id == attempt).unwrap();
    assert_eq!(running.phase(), Phase::Run);
    assert_eq!(stack.value::<String>(STATE).await, "running running connected f f");
    assert_eq!(back.report(&attempt, 4, finalizing(0)).await.through, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_directory_cannot_answer_for_is_replaced_by_the_clock_alone() {
    let mut stack = Stack::start().await;
    let (first, second, attempt) = running(&mut stack).await;
    stack.run("UPDATE tasks SET on_lost = 'retry', lost_after = '1 minute'").await;
    let (mut copy, _) = Scripted::ready(&mut stack, second).await;
    for (silence, next) in [("119 seconds", None), ("120 seconds", Some(2))] {
        let mut conn = stack.store.read().await.unwrap();
        let sql = "UPDATE attempts SET last_heard = now() - $1::text::interval";
        sqlx::query(sql).bind(silence).execute(&mut *conn).await.unwrap();
        drop(conn);
        liveness::look(&stack.dispatch).await.unwrap();
        assert_eq!(stack.value::<Option<i32>>("SELECT next_attempt FROM tasks").await, next, "{silence}");
    }
    // The copy never had it and cannot say that it has stopped.
    copy.observe(vec![]).await;
    assert_eq!(copy.report(&super::executor::unknown(), 1, finalizing(0)).await.refusal(), Refusal::UnknownAttempt);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM attempts WHERE released_at IS NULL").await, 1);
    let mut back = Scripted::welcome(&mut stack, first).await;
    back.observe(vec![observed(&stack, &attempt, false)]).await;
    assert_eq!(back.desired().await.attempts[0].phase(), Phase::Fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_where_it_is_named() {
    let mut stack = Stack::start().await;
    let (_, second, attempt) = running(&mut stack).await;
    let mut moved = Scripted::welcome(&mut stack, second.clone()).await;
    moved.observe(vec![observed(&stack, &attempt, false)]).await;
    assert_eq!(moved.desired().await.attempts[0].phase(), Phase::Run);
    let row = "SELECT directory::text FROM attempts WHERE last_heard IS NULL";
    assert_eq!(stack.value::<String>(row).await, second.directory_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_any_more_ends_once_in_the_words_of_its_executor() {
    let mut stack = Stack::start().await;
    let (first, _, attempt) = running(&mut stack).await;
    let mut back = Scripted::welcome(&mut stack, first).await;
    let why = format!("journal \u{1b}[31mtorn\nat record 3{}", "x".repeat(10_000));
    let damaged = ObservedAttempt { unreadable: why, ..observed(&stack, &attempt, false) };
    back.observe(vec![damaged.clone()]).await;
    let desired = back.desired().await;
    assert_eq!((desired.attempts, desired.released), (vec![], vec![attempt.clone()]));
    assert_eq!(stack.value::<String>(STATE).await, "failed ended internal connected t t");
    let message = stack.value::<String>("SELECT message FROM attempts").await;
    assert!(message.contains("damaged and was put aside: journal  [31mtorn at record 3x"), "{message}");
    assert!(message.len() < 1000 && !message.contains(char::is_control), "{message}");
    let revision = stack.value::<i64>("SELECT revision FROM tasks").await;
    back.observe(vec![damaged]).await;
    assert_eq!(back.desired().await.released, [attempt]);
    assert_eq!(stack.value::<i64>("SELECT revision FROM tasks").await, revision);
}

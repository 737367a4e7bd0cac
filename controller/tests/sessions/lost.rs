//! Executors that stay away: what is shown, what follows, and what never does.

use chrono::TimeDelta;
use sculpt_controller::{
    background::liveness,
    dispatch::{Actor, DispatchError},
};
use sculpt_core::task::{Event, IllegalTransition, OnLost, Policy};
use sculpt_proto::executor::v1::{Ended, Phase, Running, ended, report::Step, report_ack::Refusal};
use tonic::Code;

use super::{
    Stack,
    executor::{Scripted, failed, finalizing, hello, observed},
};
use crate::make;

const SHOWN: &str = "SELECT concat_ws(' ', t.shown, t.next_attempt, a.outcome, a.cause) FROM tasks t \
                     LEFT JOIN attempts a ON a.id = t.attempt_id ORDER BY t.number DESC LIMIT 1";
const KINDS: &str =
    "SELECT string_agg(kind, ' ' ORDER BY id) FROM events WHERE kind ~ 'ended|replaced|expired|stop|withdrawn'";

/// A running attempt of a task that may be without its executor for a minute.
async fn running(stack: &mut Stack, on_lost: OnLost) -> (Scripted, String) {
    let (mut executor, _) = Scripted::ready(stack, hello("one")).await;
    let lost_after = TimeDelta::seconds(60);
    make::task_with(&stack.store, Policy { on_lost, lost_after }, 0).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    (executor, attempt)
}

impl Stack {
    /// All executors were last heard of so long ago, and somebody looks; what is shown then.
    async fn silent(&self, interval: &'static str) -> String {
        let mut conn = self.store.read().await.unwrap();
        let silent = "UPDATE executors SET last_seen = now() - $1::text::interval";
        sqlx::query(silent).bind(interval).execute(&mut *conn).await.unwrap();
        drop(conn);
        let looked = liveness::look(&self.dispatch).await.unwrap();
        assert!(looked.failed.is_empty(), "{looked:?}");
        self.value::<String>(SHOWN).await
    }

    async fn by(&self, event: Event) -> Result<(), DispatchError> {
        let task = sculpt_proto::id::TaskId(self.value("SELECT id FROM tasks").await);
        self.dispatch.apply(task, event, Actor::user("ada")).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_its_shim_ended_is_replaced_in_one_transaction() {
    for (on_lost, stopped, shown, kinds) in [
        (OnLost::Retry, false, "queued 2", "attempt.ended attempt.replaced"),
        (OnLost::Retry, true, "failed failed executor_lost", "task.stop attempt.ended"),
        (OnLost::Wait, false, "failed failed executor_lost", "attempt.ended"),
        (OnLost::Fail, false, "failed failed executor_lost", "attempt.ended"),
    ] {
        let mut stack = Stack::start().await;
        let (mut executor, attempt) = running(&mut stack, on_lost).await;
        if stopped {
            stack.by(Event::Stop).await.unwrap();
            assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Stop);
        }
        executor.report(&attempt, 4, finalizing(143)).await;
        assert_eq!(executor.report(&attempt, 5, failed("executor_lost")).await.refusal(), Refusal::Unspecified);
        assert_eq!(stack.value::<String>(SHOWN).await, shown, "{on_lost:?}, stopped: {stopped}");
        assert_eq!(stack.value::<String>(KINDS).await, kinds, "{on_lost:?}, stopped: {stopped}");
        // It ended by its own word: nobody took it away, and its log was complete.
        let row = "SELECT concat_ws(' ', state, cause, fenced_at IS NOT NULL, released_at IS NOT NULL) FROM attempts";
        assert_eq!(stack.value::<String>(row).await, "ended executor_lost f t");
        // The answer got lost, and the report comes again.
        assert_eq!(executor.desired().await.released, std::slice::from_ref(&attempt));
        assert_eq!(executor.report(&attempt, 5, failed("executor_lost")).await.through, 5);
        assert_eq!(stack.value::<String>(KINDS).await, kinds);
        assert_eq!(stack.place().await, usize::from(shown == "queued 2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_back_before_the_margin_is_over_goes_on() {
    let mut stack = Stack::start().await;
    let who = hello("one");
    let (mut executor, _) = Scripted::ready(&mut stack, who.clone()).await;
    let policy = Policy { on_lost: OnLost::Retry, lost_after: TimeDelta::seconds(60) };
    make::task_with(&stack.store, policy, 0).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    drop(executor);
    assert_eq!(stack.silent("119 seconds").await, "lost");
    let mut back = Scripted::welcome(&mut stack, who).await;
    back.observe(vec![observed(&stack, &attempt, false)]).await;
    assert_eq!(back.desired().await.attempts[0].phase(), Phase::Run);
    assert_eq!(liveness::look(&stack.dispatch).await.unwrap().moved, 0);
    assert_eq!(stack.value::<String>(SHOWN).await, "running");
    assert_eq!(back.report(&attempt, 4, finalizing(0)).await.through, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_mark_counts_for_nothing_once_the_executor_was_heard_of_again() {
    let mut stack = Stack::start().await;
    let (_executor, _) = running(&mut stack, OnLost::Retry).await;
    // (since the last word, what is shown): it came back in between, and went away again.
    for (silence, shown) in
        [("110 seconds", "lost"), ("59 seconds", "running"), ("110 seconds", "lost"), ("100 seconds", "lost")]
    {
        assert_eq!(stack.silent(silence).await, shown, "{silence}");
    }
    stack.run("UPDATE executors SET last_seen = now() - interval '31 seconds'").await;
    let early = stack.by(Event::Retry).await.unwrap_err();
    assert!(matches!(early, DispatchError::Illegal(IllegalTransition::TooEarly { .. })), "{early}");
    assert!(early.to_string().contains("another may start from"), "{early}");
    assert_eq!(stack.silent("119 seconds").await, "lost");
    assert_eq!(stack.silent("120 seconds").await, "queued 2");
    assert_eq!(stack.value::<String>(KINDS).await, "attempt.expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_limit_is_no_shorter_than_the_watchdog() {
    let mut stack = Stack::start().await;
    let (_executor, _) = running(&mut stack, OnLost::Retry).await;
    stack.run("UPDATE tasks SET lost_after = '1 second'").await;
    for (silence, shown) in
        [("29 seconds", "running"), ("31 seconds", "lost"), ("89 seconds", "lost"), ("90 seconds", "queued 2")]
    {
        assert_eq!(stack.silent(silence).await, shown, "{silence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_that_cannot_be_judged_hinders_no_other() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = running(&mut stack, OnLost::Wait).await;
    make::task(&stack.store).await;
    stack.place().await;
    executor.run_one().await;
    stack
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF OLD.task_id = (SELECT id FROM tasks WHERE number = 1) THEN RAISE 'not this one'; END IF; RETURN NEW; END $$",
        )
        .await;
    stack.run("CREATE TRIGGER refuse BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION refuse()").await;
    stack.run("UPDATE executors SET last_seen = now() - interval '40 seconds'").await;
    let looked = liveness::look(&stack.dispatch).await.unwrap();
    let failed: Vec<_> = looked.failed.iter().map(|(task, _)| task.0).collect();
    assert_eq!(failed, [stack.value::<uuid::Uuid>("SELECT id FROM tasks WHERE number = 1").await]);
    assert_eq!(looked.moved, 1);
    let other = "SELECT liveness::text FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE t.number = 2";
    assert_eq!(stack.value::<String>(other).await, "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_that_is_stopped_is_over_when_nothing_can_answer_any_more() {
    // Stopped before and after the moment at which another attempt might start.
    for late in [false, true] {
        let mut stack = Stack::start().await;
        let (mut executor, attempt) = running(&mut stack, OnLost::Wait).await;
        let silence = if late { "1 hour" } else { "61 seconds" };
        assert_eq!(stack.silent(silence).await, "lost");
        stack.by(Event::Stop).await.unwrap();
        if !late {
            assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Stop);
            assert_eq!(stack.silent("119 seconds").await, "lost");
            assert_eq!(stack.silent("121 seconds").await, "cancelled cancelled");
        }
        assert_eq!(stack.value::<String>(SHOWN).await, "cancelled cancelled");
        assert_eq!(stack.value::<String>(KINDS).await, "task.stop attempt.expired");
        assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Fence);
        let fenced = Step::Ended(Ended { outcome: ended::Outcome::Fenced.into(), ..Ended::default() });
        assert_eq!(executor.report(&attempt, 4, fenced).await.refusal(), Refusal::Fenced);
        assert!(stack.value::<bool>("SELECT released_at IS NOT NULL FROM attempts").await);
        assert_eq!(stack.value::<String>(SHOWN).await, "cancelled cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_read_is_over_with_the_stop() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.desired().await.attempts.remove(0).attempt_id;
    stack.by(Event::Stop).await.unwrap();
    assert_eq!(stack.value::<String>(SHOWN).await, "cancelled 2");
    assert_eq!(stack.value::<String>(KINDS).await, "task.stop attempt.withdrawn");
    assert_eq!(executor.desired().await.attempts[0].phase(), Phase::Fence);
    assert_eq!(executor.spec(&attempt).await, Err(Code::FailedPrecondition));
    assert_eq!(stack.place().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_without_its_executor_is_not_retried_beside_a_living_agent() {
    let mut stack = Stack::start().await;
    let (_executor, _) = running(&mut stack, OnLost::Fail).await;
    assert_eq!(stack.silent("61 seconds").await, "failed failed executor_lost");
    let early = stack.by(Event::Retry).await.unwrap_err();
    assert!(matches!(early, DispatchError::Illegal(IllegalTransition::TooEarly { .. })), "{early}");
    stack.run("UPDATE executors SET last_seen = now() - interval '121 seconds'").await;
    stack.run("UPDATE attempts SET silent_since = now() - interval '121 seconds'").await;
    stack.by(Event::Retry).await.unwrap();
    assert_eq!(stack.value::<String>(SHOWN).await, "queued 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_failed_without_its_executor_is_retried_once_that_is_back() {
    let mut stack = Stack::start().await;
    let (mut executor, attempt) = running(&mut stack, OnLost::Fail).await;
    assert_eq!(stack.silent("61 seconds").await, "failed failed executor_lost");
    executor.observe(vec![observed(&stack, &attempt, false)]).await;
    while executor.desired().await.attempts.iter().all(|wanted| wanted.phase() != Phase::Fence) {}
    let early = stack.by(Event::Retry).await.unwrap_err();
    assert!(matches!(early, DispatchError::Illegal(IllegalTransition::TooEarly { .. })), "{early}");
    // It has ended what was left: nothing runs there any more.
    executor.observe(vec![observed(&stack, &attempt, true)]).await;
    while executor.desired().await.released != [attempt.clone()] {}
    stack.by(Event::Retry).await.unwrap();
    assert_eq!(stack.value::<String>(SHOWN).await, "queued 2");
}

/// A damaged disk may cut an executor's journal short: its next reports come under numbers that were taken before.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_counts_under_whatever_number() {
    let mut stack = Stack::start().await;
    let (mut executor, attempt) = running(&mut stack, OnLost::Wait).await;
    assert_eq!(executor.report(&attempt, 2, Step::Running(Running::default())).await.through, 3);
    assert_eq!(executor.report(&attempt, 3, failed("interrupted")).await.refusal(), Refusal::Unspecified);
    assert_eq!(stack.value::<String>(SHOWN).await, "failed failed interrupted");
    assert_eq!(executor.desired().await.released, std::slice::from_ref(&attempt));
    assert_eq!(executor.report(&attempt, 2, failed("internal")).await.refusal(), Refusal::Unspecified);
    assert_eq!(stack.value::<String>(SHOWN).await, "failed failed interrupted");
}

//! Task: every kind of state × every kind of event.

use sculpt_core::{
    liveness::DEFAULT_LOST_AFTER,
    review::NotReviewable,
    task::{Effect, Event, IllegalTransition, OnLost, Run, Task},
};

use crate::{
    notation::{check, columns, rows},
    states::{EXECUTOR, State, What, build, describe, fence, late, policy, start},
};

const INTENT: &str = include_str!("tables/task_intent.txt");
const REVIEW: &str = include_str!("tables/task_review.txt");
const PLACEMENT: &str = include_str!("tables/task_placement.txt");
const STEPS: &str = include_str!("tables/task_steps.txt");
const TURNS: &str = include_str!("tables/task_turns.txt");
const EXPIRY: &str = include_str!("tables/task_expiry.txt");
const REPLACED: &str = include_str!("tables/task_replaced.txt");
const FOLLOWS: &str = include_str!("tables/task_follows.txt");

const POLICIES: [OnLost; 3] = [OnLost::Wait, OnLost::Retry, OnLost::Fail];

/// The names of all rows of all tables of the task.
pub(crate) fn all_rows() -> Vec<&'static str> {
    [INTENT, REVIEW, PLACEMENT, STEPS, TURNS, EXPIRY, REPLACED, FOLLOWS].into_iter().flat_map(rows).collect()
}

#[test]
fn intent_and_retry() {
    use What::{Hold, Resume, Retry, RetryInWorkspace, Stop};
    table(INTENT, &[Stop, Hold, Resume, Retry, RetryInWorkspace]);
}

#[test]
fn verdicts() {
    use What::{Accept, Merge, Reject};
    table(REVIEW, &[Accept, Reject, Merge]);
}

#[test]
fn placement_and_liveness() {
    use What::{Adopt, Claim, Connected, Lost, SpecRead, Unreachable, Withdraw};
    table(PLACEMENT, &[Claim, Adopt, SpecRead, Withdraw, Connected, Unreachable, Lost]);
}

#[test]
fn steps() {
    use What::{EndCancelled, EndCompleted, EndFailed, EndFenced, EndLeft};
    use What::{StepAccepted, StepFinalizing, StepPreparing, StepRunning};
    let steps = [StepAccepted, StepPreparing, StepRunning, StepFinalizing];
    table(STEPS, &[&steps[..], &[EndCompleted, EndFailed, EndCancelled, EndFenced, EndLeft]].concat());
}

#[test]
fn turns_and_publication() {
    use What::{AskedPermission, AskedQuestion, Began, Limited, Over, Parked, PublishH1, PublishH2};
    table(TURNS, &[Began, Over, AskedQuestion, AskedPermission, Limited, Parked, PublishH1, PublishH2]);
}

#[test]
fn expiry() {
    by_policy(EXPIRY, What::Expire);
}

#[test]
fn replacement() {
    by_policy(REPLACED, What::Replace);
}

fn by_policy(table: &str, what: What) {
    check(table, &State::texts(), &POLICIES.map(OnLost::as_str), |row, column| {
        let task = wishing(row, column);
        outcome(&task, &what.event(own_fence(&task)))
    });
}

/// The task `name` that says `on_lost` about a lost executor.
fn wishing(name: &str, on_lost: &str) -> Task {
    let on_lost = *POLICIES.iter().find(|policy| policy.as_str() == on_lost).unwrap();
    Task { policy: policy(on_lost), ..build(name) }
}

#[test]
fn follow_ups() {
    let columns = ["stop.wait", "stop.retry", "stop.fail", "left.wait", "left.retry", "left.fail"];
    check(FOLLOWS, &State::texts(), &columns, |row, column| {
        let (what, on_lost) = column.split_once('.').unwrap();
        let before = wishing(row, on_lost);
        let event = What::read(what).event(own_fence(&before));
        let mut after = before.clone();
        if after.apply(&event, late()).is_err() {
            return "x".to_owned();
        }
        let next = after.follow_up(&before, &event, late());
        next.map_or("-".to_owned(), |next| format!("{}:{}", What::of(&next).text(), outcome(&after, &next)))
    });
}

#[test]
fn a_stop_that_comes_early_waits_for_what_may_still_answer() {
    let tick = chrono::TimeDelta::nanoseconds(1);
    let lost = start() + DEFAULT_LOST_AFTER;
    for (on_lost, border) in [(OnLost::Wait, late()), (OnLost::Retry, late()), (OnLost::Fail, lost)] {
        let before = wishing("working.lost", on_lost.as_str());
        let mut after = before.clone();
        after.apply(&Event::Stop, border - tick).unwrap();
        assert_eq!(after.follow_up(&before, &Event::Stop, border - tick), None, "{on_lost:?}");
        assert_eq!(after.expires_at(), Some(border), "{on_lost:?}");
        let expired = Event::Expired { fence: fence(1) };
        assert_eq!(after.clone().apply(&expired, border - tick), Err(IllegalTransition::TooEarly { until: border }));
        assert_eq!(after.follow_up(&before, &Event::Stop, border), Some(expired.clone()), "{on_lost:?}");
        after.apply(&expired, border).unwrap();
        assert_eq!(describe(&after), "stopped.cancel.lost", "{on_lost:?}");
    }
}

#[test]
fn what_was_given_up_is_not_retried_before_it_may_be_replaced() {
    let mut task = wishing("working.lost", "fail");
    let lost = start() + DEFAULT_LOST_AFTER;
    task.apply(&Event::Expired { fence: fence(1) }, lost).unwrap();
    assert_eq!(describe(&task), "left.lost");
    assert_eq!(task.apply(&Event::Retry, lost), Err(IllegalTransition::TooEarly { until: late() }));
    assert_eq!(task.apply(&Event::Retry, late()), Ok(vec![Effect::Place]));
}

#[test]
fn the_tables_have_a_column_for_every_event() {
    let heads: Vec<&str> = [INTENT, REVIEW, PLACEMENT, STEPS, TURNS].into_iter().flat_map(columns).collect();
    // These have tables of their own.
    let apart = [What::Expire, What::Replace].map(What::text);
    for name in What::texts().into_iter().filter(|name| !apart.contains(name)) {
        assert!(heads.contains(&name), "no table has the column {name}");
    }
}

fn table(table: &str, events: &[What]) {
    let names: Vec<&str> = events.iter().map(|what| what.text()).collect();
    check(table, &State::texts(), &names, |row, column| {
        let task = build(row);
        let what = events[names.iter().position(|name| *name == column).unwrap()];
        outcome(&task, &what.event(own_fence(&task)))
    });
}

fn own_fence(task: &Task) -> sculpt_core::attempt::Fence {
    match &task.run {
        Run::Queued { next } => fence(*next),
        Run::Attempt(attempt) => attempt.fence,
    }
}

/// What becomes of `task`: its new name (`=` for the old one) with the effects (`P`lace, `T`ell), or why nothing does.
fn outcome(task: &Task, event: &Event) -> String {
    let mut after = task.clone();
    match after.apply(event, late()) {
        Ok(effects) => {
            let name = if describe(&after) == describe(task) { "=".to_owned() } else { describe(&after) };
            let mark = |effect: &Effect| match effect {
                Effect::Place => 'P',
                Effect::Tell(EXECUTOR) => 'T',
                Effect::Tell(other) => panic!("{other} has nothing to do with it"),
            };
            let mut marks: Vec<char> = effects.iter().map(mark).collect();
            marks.sort_unstable();
            let plus = if marks.is_empty() { "" } else { "+" };
            name + plus + &String::from_iter(marks)
        }
        Err(error) => {
            assert_eq!(after, *task, "an error changed {}", describe(task));
            match error {
                IllegalTransition::Fenced { .. } => "fenced",
                IllegalTransition::Unfit { .. } => "-",
                IllegalTransition::TooEarly { .. } => "early",
                IllegalTransition::Review(NotReviewable::Nothing) => "nothing",
                IllegalTransition::Review(NotReviewable::Moved { .. }) => "moved",
                IllegalTransition::Review(NotReviewable::AlreadyMerged { .. }) => "was-merged",
            }
            .to_owned()
        }
    }
}

#[test]
fn a_claim_needs_the_number_that_is_next() {
    for number in [0, 2, 3, u32::MAX] {
        let mut task = build("queued");
        let claim = What::Claim.event(fence(number));
        assert!(matches!(task.apply(&claim, late()), Err(IllegalTransition::Unfit { .. })), "{number}");
        assert_eq!(task, build("queued"));
    }
}

#[test]
fn what_goes_on_in_a_workspace_runs_where_that_is() {
    let elsewhere = uuid::Uuid::from_u128(0xf);
    for (state, fits) in [("queued#2", true), ("queued#2.there", false)] {
        let fence = fence(2);
        for event in [Event::Claimed { fence, executor: elsewhere }, Event::Adopted { fence, executor: elsewhere }] {
            assert_eq!(build(state).apply(&event, late()).is_ok(), fits, "{event:?} on {state}");
        }
    }
}

#[test]
fn an_attempt_that_came_later_is_adopted_where_nothing_is_thrown_away_for_it() {
    let read = |task: &Task| matches!(task.attempt(), Some(attempt) if attempt.fence == fence(3) && !attempt.ended());
    for (state, fits) in [
        ("queued", true),
        ("queued#2", true),
        ("queued.cancel", true),
        ("failed", true),
        ("stopped", true),
        ("left", true),
        ("fenced", true),
        ("completed", true),
        ("working.lost", true),
        ("unread", false),
        ("working", false),
        ("working.unreachable", false),
        ("finalizing", false),
        ("idle", false),
    ] {
        let mut task = build(state);
        let adopted = crate::laws::apply(&mut task, &What::Adopt.event(fence(3)), late());
        assert_eq!((adopted.is_ok(), read(&task)), (fits, fits), "{state}: {adopted:?}");
        let older = What::Adopt.event(fence(2));
        assert!(!fits || crate::laws::apply(&mut task, &older, late()).is_err(), "{state}: numbers only rise");
    }
    let mut task = build("stopped");
    task.intent = sculpt_core::task::Intent::Cancel;
    crate::laws::apply(&mut task, &What::Adopt.event(fence(2)), late()).unwrap();
    assert_eq!(task.intent, sculpt_core::task::Intent::Run, "whoever had retried it wanted it to run");
}

#[test]
fn an_attempt_of_the_same_number_and_another_id_is_fenced() {
    for state in State::ALL.iter().filter(|state| **state != State::Queued) {
        let mut task = build(state.text());
        let mut other = fence(1);
        other.id = uuid::Uuid::from_u128(0xbad);
        let error = task.apply(&What::EndCompleted.event(other), late());
        assert_eq!(error, Err(IllegalTransition::Fenced { fence: other }), "{}", state.text());
        assert_eq!(task, build(state.text()));
    }
}

#[test]
fn a_retry_too_early_says_when() {
    let mut task = build("working.lost");
    let early = late() - chrono::TimeDelta::nanoseconds(1);
    assert_eq!(task.apply(&Event::Retry, early), Err(IllegalTransition::TooEarly { until: late() }));
    assert_eq!(task.apply(&Event::Retry, late()), Ok(vec![Effect::Tell(EXECUTOR), Effect::Place]));
}

#[test]
fn an_endless_wait_never_lets_another_attempt_start() {
    let mut task = build("working.lost");
    task.policy.lost_after = chrono::TimeDelta::MAX;
    let never = chrono::DateTime::<chrono::Utc>::MAX_UTC;
    assert_eq!(task.apply(&Event::Retry, late()), Err(IllegalTransition::TooEarly { until: never }));
}

#[test]
fn a_message_says_what_did_not_fit() {
    let said = |name: &str, what: What| build(name).apply(&what.event(fence(1)), late()).unwrap_err().to_string();
    assert_eq!(said("completed", What::Stop), "a task that is completed cannot be stopped");
    assert_eq!(said("queued", What::EndCompleted), "attempt 1 is fenced: the task has gone on without it");
    assert_eq!(said("idle.h2.needed", What::Accept), "its head has moved to h2");
    assert_eq!(said("idle", What::Accept), "it has published no commits");
    assert_eq!(said("idle.h1.merged", What::Reject), "it was merged as m1");
}

//! What holds for every event on every task, whatever the tables say.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use sculpt_core::{
    attempt::Fence,
    liveness::DEFAULT_LOST_AFTER,
    review::{Commit, Review},
    shown::{Shown, live, shown, unreachable},
    task::{Effect, Event, IllegalTransition, Intent, Run, Task},
};
use uuid::Uuid;

use crate::states::{What, fence};

type Applied = Result<Vec<Effect>, IllegalTransition>;

/// Applies `event` to `task` and holds every law against what comes of it.
pub(crate) fn apply(task: &mut Task, event: &Event, now: DateTime<Utc>) -> Applied {
    let before = task.clone();
    let result = task.apply(event, now);
    match &result {
        Err(_) => assert_eq!(*task, before, "an error changed something: {event:?} gave {result:?}"),
        Ok(effects) => {
            step(&before, event, effects, task);
            sound(task);
            follows(&before, event, task, now);
        }
    }
    result
}

/// What follows from an event fits, and nothing follows from it in turn.
fn follows(before: &Task, event: &Event, after: &Task, now: DateTime<Utc>) {
    let Some(next) = after.follow_up(before, event, now) else { return };
    let mut last = after.clone();
    let effects = last.apply(&next, now).unwrap_or_else(|error| panic!("{next:?} after {event:?}: {error}: {after:?}"));
    step(after, &next, &effects, &last);
    sound(&last);
    assert_eq!(last.follow_up(after, &next, now), None, "{next:?} after {event:?} of {before:?}");
}

fn step(before: &Task, event: &Event, effects: &[Effect], after: &Task) {
    let said = Said { before, event, effects, after };
    if let Some(fence) = about(event) {
        assert_eq!(before.attempt().map(|attempt| attempt.fence), Some(fence), "a stale attempt moved it: {said}");
    }
    assert!(number(after) >= number(before), "the number sank: {said}");
    if let Review::Merged { .. } = before.review {
        assert_eq!(after.review, before.review, "what was merged is no longer: {said}");
    }
    if let Some(ended) = before.attempt().filter(|attempt| attempt.ended()) {
        match after.attempt() {
            Some(newer) if matches!(event, Event::Adopted { .. }) => {
                assert!(newer.fence.number > ended.fence.number, "an older attempt took its place: {said}");
            }
            Some(attempt) => assert_eq!(attempt, ended, "what had ended has moved: {said}"),
            None => {
                let again = retried(event) || matches!(event, Event::Replaced { .. });
                assert!(again, "only a retry or a replacement goes on after an end: {said}");
            }
        }
    }
    if before.intent == Intent::Cancel {
        let over = matches!(event, Event::Adopted { .. }) && before.attempt().is_some_and(|attempt| attempt.ended());
        assert!(after.intent == Intent::Cancel || retried(event) || over, "a stop was taken back: {said}");
    }
    for executor in [before, after].into_iter().filter_map(|task| task.attempt().map(|attempt| attempt.executor)) {
        if desired(before, executor) != desired(after, executor) {
            assert!(effects.contains(&Effect::Tell(executor)), "its executor does not hear of it: {said}");
        }
    }
    let freed = takes_slot(before) && !takes_slot(after);
    let queued = !waits(before) && waits(after);
    if freed || queued {
        assert!(effects.contains(&Effect::Place), "nobody looks at the queue: {said}");
    }
}

/// The whole story, written only when a law is broken.
struct Said<'a> {
    before: &'a Task,
    event: &'a Event,
    effects: &'a [Effect],
    after: &'a Task,
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, event, effects, after } = self;
        write!(f, "{event:?} on {before:?} gave {effects:?} and {after:?}")
    }
}

fn retried(event: &Event) -> bool {
    matches!(event, Event::Retry | Event::RetryInWorkspace)
}

/// What holds for a task at any time.
pub(crate) fn sound(task: &Task) {
    let head = task.attempt().and_then(|attempt| attempt.head.as_ref());
    match &task.review {
        Review::Needed { head: judged } | Review::Accepted { head: judged } => {
            assert_eq!(Some(judged), head, "the review is of something else: {task:?}");
        }
        Review::Rejected { .. } | Review::Merged { .. } => assert!(head.is_some(), "nothing to judge: {task:?}"),
        Review::None => {}
    }
    if let Run::Queued { .. } = task.run {
        assert_eq!(task.review, Review::None, "a queued task has no result: {task:?}");
    }
    if task.attempt().is_some_and(|attempt| attempt.at_rest() && attempt.head.is_some()) {
        assert_ne!(task.review, Review::None, "a result that nobody is asked about: {task:?}");
    }
    if let (Some(surviving), Some(attempt)) = (task.surviving, task.attempt()) {
        assert_eq!(surviving.executor, attempt.executor, "it runs where nothing is that it goes on in: {task:?}");
    }
    assert!(!(live(task) && unreachable(task)), "it cannot take a message from nobody: {task:?}");
    assert!(!shown(task).as_str().is_empty());
}

/// Every task has a way on: what did not end well can be retried, what waits for people can be judged, and all else that has
/// not ended moves by itself or can be stopped.
pub(crate) fn has_a_way_on(task: &Task, now: DateTime<Utc>) {
    let much_later = now + DEFAULT_LOST_AFTER * 2 + TimeDelta::hours(1);
    let possible = |event: &Event| task.clone().apply(event, much_later).is_ok();
    let head = task.attempt().and_then(|attempt| attempt.head.clone()).unwrap_or(Commit(String::new()));
    let fence = own_fence(task);
    let merged = matches!(task.review, Review::Merged { .. });
    let over = task.attempt().is_none_or(|attempt| attempt.ended());
    match shown(task) {
        Shown::Failed(_) | Shown::Lost | Shown::Cancelled => assert!(possible(&Event::Retry), "no retry: {task:?}"),
        Shown::Queued => assert!(possible(&What::Claim.event(fence)), "cannot be placed: {task:?}"),
        Shown::NeedsReview { .. } | Shown::Accepted | Shown::Rejected if over => {
            let merge = sculpt_core::review::Verdict::Merge { head: head.clone(), commit: Commit("m1".into()) };
            assert!(possible(&Event::Reviewed(merge)), "cannot be merged: {task:?}");
        }
        Shown::Paused => assert!(possible(&Event::Resume), "cannot go on: {task:?}"),
        Shown::Completed | Shown::Merged if over => {}
        Shown::Starting
        | Shown::Running
        | Shown::Waiting { .. }
        | Shown::Idle
        | Shown::Limited { .. }
        | Shown::NeedsReview { .. }
        | Shown::Accepted
        | Shown::Merged
        | Shown::Rejected
        | Shown::Completed => {
            assert!(possible(&Event::Stop), "cannot be stopped: {task:?}");
            assert!(possible(&What::EndFailed.event(fence)), "cannot end: {task:?}");
        }
    }
    assert!(!merged || !possible(&Event::Retry), "a merged task would run again: {task:?}");
}

pub(crate) fn own_fence(task: &Task) -> Fence {
    match &task.run {
        Run::Queued { next } => fence(*next),
        Run::Attempt(attempt) => attempt.fence,
    }
}

/// The attempt that the event comes from, said apart from the core's own match.
pub(crate) fn about(event: &Event) -> Option<Fence> {
    match event {
        Event::Stop
        | Event::Hold
        | Event::Resume
        | Event::Retry
        | Event::RetryInWorkspace
        | Event::Reviewed(_)
        | Event::Claimed { .. }
        | Event::Adopted { .. } => None,
        Event::SpecRead { fence }
        | Event::Withdrawn { fence }
        | Event::Stepped { fence, .. }
        | Event::Turned { fence, .. }
        | Event::Published { fence, .. }
        | Event::Liveness { fence, .. }
        | Event::Expired { fence }
        | Event::Replaced { fence } => Some(*fence),
    }
}

fn number(task: &Task) -> u32 {
    own_fence(task).number
}

/// What `executor` should have of the task: which attempt, and whether it is to run, stand still or end.
fn desired(task: &Task, executor: Uuid) -> Option<(Fence, Intent)> {
    let attempt = task.attempt().filter(|attempt| attempt.executor == executor && !attempt.ended())?;
    Some((attempt.fence, task.intent))
}

fn takes_slot(task: &Task) -> bool {
    task.attempt().is_some_and(|attempt| attempt.takes_slot())
}

fn waits(task: &Task) -> bool {
    matches!(task.run, Run::Queued { .. }) && task.intent == Intent::Run
}

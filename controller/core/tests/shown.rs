//! Shown: state × review, for each intent and liveness.

use sculpt_core::{
    attempt::AttemptState,
    liveness::Liveness,
    outcome::Failure,
    review::Review,
    shown::{Shown, live, shown, unreachable},
    task::{Intent, Run, Task},
};

use crate::{
    notation::check,
    review::Kind,
    states::{State, build, commit, late, start},
};

const ORDINARY: &str = include_str!("tables/shown.txt");
const HELD: &str = include_str!("tables/shown_held.txt");
const LOST: &str = include_str!("tables/shown_lost.txt");

fn task(state: &str, review: &str, intent: Intent, liveness: Liveness) -> Task {
    let mut task = Task { intent, review: Kind::read(review).review(), ..build(state) };
    if let Run::Attempt(attempt) = &mut task.run {
        attempt.liveness = liveness;
        attempt.head = (task.review != Review::None).then(|| commit("h1"));
    }
    task
}

fn walk(table: &str, intent: Intent, liveness: Liveness) {
    check(table, &State::texts(), &Kind::texts(), |state, review| {
        shown(&task(state, review, intent, liveness)).to_string()
    });
}

#[test]
fn ordinary() {
    walk(ORDINARY, Intent::Run, Liveness::Connected);
}

#[test]
fn silence_alone_changes_nothing_but_a_flag() {
    walk(ORDINARY, Intent::Run, Liveness::Unreachable { since: start() });
    walk(HELD, Intent::Hold, Liveness::Unreachable { since: start() });
}

#[test]
fn held() {
    walk(HELD, Intent::Hold, Liveness::Connected);
}

#[test]
fn a_stop_under_way_shows_what_still_is() {
    walk(&with_queued(ORDINARY, "cancelled"), Intent::Cancel, Liveness::Connected);
}

#[test]
fn lost() {
    walk(LOST, Intent::Run, Liveness::Lost { since: start() });
    walk(&with_queued(LOST, "paused"), Intent::Hold, Liveness::Lost { since: start() });
    walk(&with_queued(LOST, "cancelled"), Intent::Cancel, Liveness::Lost { since: start() });
}

/// `table` with another row for a task that was never placed.
fn with_queued(table: &str, shown: &str) -> String {
    let line = table.lines().find(|line| line.starts_with("queued")).unwrap();
    table.replace(line, &format!("queued | {}", [shown; 5].join(" ")))
}

#[test]
fn what_is_shown_carries_its_reason() {
    assert_eq!(shown(&build("question")), Shown::Waiting { question: "may I?".into() });
    assert_eq!(shown(&build("limited")), Shown::Limited { until: Some(late()) });
    assert_eq!(shown(&build("idle.h1.needed")), Shown::NeedsReview { head: commit("h1") });
    let Failure { cause, message } = crate::states::failure();
    assert_eq!(shown(&build("failed")), Shown::Failed(Failure { cause, message }));
}

#[test]
fn flags() {
    let silent = Liveness::Unreachable { since: start() };
    let lost = Liveness::Lost { since: start() };
    for state in State::ALL {
        let runs = state.turn().is_some();
        let over = state.attempt().is_none_or(|state| matches!(state, AttemptState::Ended { .. }));
        for intent in [Intent::Run, Intent::Hold, Intent::Cancel] {
            for liveness in [Liveness::Connected, silent, lost] {
                let task = task(state.text(), "none", intent, liveness);
                let heard = liveness == Liveness::Connected;
                assert_eq!(live(&task), runs && heard && intent == Intent::Run, "live: {task:?}");
                assert_eq!(unreachable(&task), !over && !heard, "unreachable: {task:?}");
            }
        }
    }
}

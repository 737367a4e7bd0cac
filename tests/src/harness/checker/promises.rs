//! I5: acknowledged means durable.

use std::collections::HashMap;

use super::{Facts, Promise};

/// Promises that were not kept.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = calls(facts);
    wrong.extend(acknowledgements(facts));
    wrong.extend(logs(facts));
    wrong.extend(events(facts));
    wrong
}

fn calls(facts: &Facts) -> Vec<String> {
    let mut asked: Vec<(u64, &str)> = facts.ledger.promises().iter().filter_map(of_a_person).collect();
    asked.sort_unstable();
    let mut wrong = Vec::new();
    for same in asked.chunk_by(|one, other| one == other) {
        let (number, kind) = same[0];
        let found = facts.journal.iter().filter(|entry| entry.task == number && entry.kind == kind).count();
        // A stop that is asked for again moves nothing.
        let due = if kind == "task.stop" { 1 } else { same.len() };
        if found < due {
            wrong.push(format!("task {number}: {due} × {kind} was answered well, the journal holds {found}"));
        }
        if kind == "task.created" && !facts.tasks.iter().any(|task| task.number == number) {
            wrong.push(format!("task {number} was created, and is gone"));
        }
    }
    wrong
}

/// The task that a person's call was about, and the kind of entry that tells of it.
fn of_a_person(promise: &Promise) -> Option<(u64, &'static str)> {
    match promise {
        Promise::Created(number) => Some((*number, "task.created")),
        Promise::Stopped(number) => Some((*number, "task.stop")),
        Promise::Retried(number) => Some((*number, "task.retry")),
        Promise::Applied(..) | Promise::Held(..) => None,
    }
}

/// What an executor need not send again is here.
fn acknowledgements(facts: &Facts) -> Vec<String> {
    let row = |id: &str| facts.attempts.iter().find(|attempt| attempt.id == id);
    let mut wrong = Vec::new();
    for promise in facts.ledger.promises() {
        let (id, what, acknowledged, here) = match promise {
            Promise::Applied(id, reports) => (id, "reports", *reports, row(id).map(|attempt| attempt.reports)),
            Promise::Held(id, bytes) => (id, "bytes of the log", *bytes, row(id).map(|attempt| attempt.log_bytes)),
            Promise::Created(_) | Promise::Stopped(_) | Promise::Retried(_) => continue,
        };
        if here.is_none_or(|here| here < acknowledged) {
            wrong.push(format!("attempt {id}: {acknowledged} {what} were acknowledged, {here:?} are here"));
        }
    }
    wrong
}

/// What a follower was shown is still the beginning of that log.
fn logs(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for shown in facts.ledger.logs().filter(|shown| !shown.bytes.is_empty()) {
        let mut attempts = facts.attempts.iter().filter(|attempt| {
            let named = attempt.task.to_string() == shown.task || attempt.task_id == shown.task;
            named && (shown.attempt == 0 || shown.attempt == attempt.number)
        });
        if !attempts.any(|attempt| attempt.log.starts_with(&shown.bytes)) {
            wrong.push(format!(
                "{} bytes of the log of task {} (attempt {}) were shown that no log begins with",
                shown.bytes.len(),
                shown.task,
                shown.attempt
            ));
        }
    }
    wrong
}

/// Each event that a follower was shown is in the journal, as it was shown.
fn events(facts: &Facts) -> Vec<String> {
    let held: HashMap<&str, _> =
        facts.events.iter().filter_map(|event| Some((event["cursor"].as_str()?, event))).collect();
    let missing = facts.ledger.events().iter().filter(|shown| {
        let cursor = shown["cursor"].as_str().unwrap_or_default();
        held.get(cursor) != Some(shown)
    });
    missing.map(|shown| format!("an event was shown that the journal does not hold so: {shown}")).collect()
}

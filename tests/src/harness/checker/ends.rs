//! I2: each task ends exactly once, and what is shown is what the journal tells.

use std::collections::BTreeMap;

use super::Facts;

/// Kinds of entries after which an attempt does nothing more that counts.
const ENDS: [&str; 3] = ["attempt.ended", "attempt.expired", "attempt.withdrawn"];

/// What is wrong with the ends.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = twice(facts);
    wrong.extend(still_live(facts));
    wrong.extend(torn_from_the_journal(facts));
    wrong
}

/// An attempt that ends twice, or acts after its end.
fn twice(facts: &Facts) -> Vec<String> {
    let mut ended: BTreeMap<(u64, u32), &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in &facts.journal {
        let Some(number) = entry.attempt else { continue };
        let attempt = (entry.task, number);
        if let Some(end) = ended.get(&attempt)
            && (entry.kind.starts_with("attempt.") || entry.kind.starts_with("turn."))
        {
            wrong.push(format!("task {} attempt {number}: {} after {end}", entry.task, entry.kind));
        }
        if ENDS.contains(&entry.kind.as_str()) {
            ended.entry(attempt).or_insert(&entry.kind);
        }
    }
    wrong
}

fn still_live(facts: &Facts) -> Vec<String> {
    let open = |shown: &str| {
        matches!(shown, "queued" | "starting" | "running" | "waiting" | "paused" | "limited" | "lost" | "")
    };
    let tasks = facts.tasks.iter().filter(|task| open(&task.shown));
    let tasks = tasks.map(|task| format!("task {} is still {}", task.number, task.shown));
    // A fenced one is ended by its executor, once that has heard of it; what never began there has no end.
    let ends = |fenced: bool, state: &str| !fenced || (facts.executor_runs && state != "offered");
    let attempts = facts.attempts.iter().filter(|attempt| attempt.is_live());
    let attempts = attempts.filter(|attempt| ends(attempt.fenced, &attempt.state));
    tasks.chain(attempts.map(|attempt| format!("{} is still {}", attempt.name(), attempt.state))).collect()
}

/// Whether an entry tells of a move of its task: what people do beside an attempt, and how far somebody says that it has come,
/// stands between those.
fn moves(kind: &str) -> bool {
    !kind.starts_with("pairing.") && !["task.milestone", "task.intent"].contains(&kind)
}

/// Every move of a task stands in the journal, in order, and the last one made what is shown.
fn torn_from_the_journal(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for task in &facts.tasks {
        let entries: Vec<_> = facts.journal.iter().filter(|entry| entry.task == task.number).collect();
        for pair in entries.windows(2) {
            let moves = u64::from(moves(&pair[1].kind));
            if pair[1].revision != pair[0].revision + moves {
                let (before, after) = (pair[0].revision, pair[1].revision);
                wrong.push(format!("task {}: revision {after} follows {before} in the journal", task.number));
            }
        }
        match entries.last() {
            None => wrong.push(format!("task {} has no entry in the journal", task.number)),
            Some(last) if last.revision != task.revision || last.shown.as_deref() != Some(&task.shown) => {
                wrong.push(format!(
                    "task {} is {} at revision {}, the journal ends with {:?} at {}",
                    task.number, task.shown, task.revision, last.shown, last.revision
                ));
            }
            Some(_) => {}
        }
    }
    wrong
}

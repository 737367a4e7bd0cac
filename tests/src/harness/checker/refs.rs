//! I3: refs of a task come from one attempt at a time, and the numbers of attempts only rise.

use std::collections::BTreeMap;

use super::Facts;

/// What is wrong with the refs and numbers.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = numbers(facts);
    wrong.extend(kept(facts));
    wrong.extend(branches(facts));
    wrong
}

/// Each attempt's number is above the one before it, and only the newest publishes.
fn numbers(facts: &Facts) -> Vec<String> {
    let mut newest: BTreeMap<u64, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in &facts.journal {
        let Some(number) = entry.attempt else { continue };
        let before = newest.get(&entry.task).copied();
        match entry.kind.as_str() {
            "attempt.offered" | "attempt.adopted" => {
                if before.is_some_and(|last| last >= number) {
                    wrong.push(format!("task {}: attempt {number} was offered after {before:?}", entry.task));
                }
                newest.insert(entry.task, number);
            }
            "attempt.published" if before != Some(number) => {
                wrong.push(format!("task {}: attempt {number} published when {before:?} was the newest", entry.task));
            }
            _ => {}
        }
    }
    wrong
}

/// What is kept for an attempt is what that attempt has published.
fn kept(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in &facts.refs {
        let Some(rest) = row.name.strip_prefix("refs/sculpt/attempts/") else { continue };
        let owner = facts.attempts.iter().find(|attempt| rest == format!("{}/{}", attempt.task_id, attempt.id));
        match owner {
            None => wrong.push(format!("{} belongs to no attempt", row.name)),
            Some(attempt) if attempt.head.as_ref() != Some(&row.target) => {
                let head = &attempt.head;
                wrong.push(format!("{} is {}, but the head of {} is {head:?}", row.name, row.target, attempt.name()));
            }
            Some(_) => {}
        }
    }
    for attempt in facts.attempts.iter().filter(|attempt| attempt.head.is_some()) {
        let name = format!("refs/sculpt/attempts/{}/{}", attempt.task_id, attempt.id);
        if !facts.refs.iter().any(|row| row.name == name) {
            wrong.push(format!("{} has a head, but no ref keeps it", attempt.name()));
        }
    }
    wrong
}

/// A task's branch stands where the newest attempt that has published put it.
fn branches(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for task in facts.tasks.iter().filter(|task| !task.branch.is_empty()) {
        let name = format!("refs/heads/{}", task.branch);
        let row = facts.refs.iter().find(|row| row.name == name && Some(&row.project_id) == task.project_id.as_ref());
        let heads = facts.attempts.iter().filter(|attempt| attempt.task == task.number);
        let newest = heads.filter(|attempt| attempt.head.is_some()).max_by_key(|attempt| attempt.number);
        match (row, newest) {
            (None, None) => {}
            (Some(row), Some(attempt)) if attempt.head.as_ref() == Some(&row.target) => {}
            (row, newest) => wrong.push(format!(
                "task {}: its branch is at {:?}, the newest published head is {:?}",
                task.number,
                row.map(|row| &row.target),
                newest.map(|attempt| &attempt.head)
            )),
        }
    }
    wrong
}

//! I4: no process outside a live attempt.

use super::Facts;

/// Processes that outlived their attempt.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    if !facts.executor_runs {
        return Vec::new();
    }
    let live = |id: &str| {
        facts.unknown.contains(id) || facts.attempts.iter().any(|attempt| attempt.id == id && attempt.is_live())
    };
    let strays = facts.processes.iter().filter(|found| !live(&found.attempt));
    strays.map(|found| format!("{} lives on after attempt {}", found.process, found.attempt)).collect()
}

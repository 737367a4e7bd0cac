//! Which end each attempt may have, given what was done to it: exactly that, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::super::checker::{AttemptFacts, Facts};

/// What a task is to do, known by its title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many lines it prints.
    pub lines: u64,
    /// Milliseconds between two of them.
    pub pace: u64,
    /// How it exits.
    pub exit: i32,
    /// Whether it runs in a repository and commits there.
    pub commits: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// What was done to tasks and attempts.
#[derive(Clone, Debug, Default)]
pub struct Deeds {
    /// What each task is to do, by title.
    pub plans: BTreeMap<String, Plan>,
    /// Titles of tasks whose end somebody asked for, answered or not.
    pub stopped: BTreeSet<String>,
    /// How many further attempts of a task somebody asked for, answered or not.
    pub retried: BTreeMap<String, usize>,
    /// Attempts whose shim was killed before it had recorded an end.
    pub shims: BTreeSet<String>,
    /// Attempts whose agent was killed.
    pub agents: BTreeSet<String>,
}

/// Ends that should not be.
pub fn unexpected(facts: &Facts, deeds: &Deeds) -> Vec<String> {
    let mut wrong = Vec::new();
    for task in &facts.tasks {
        let Some(plan) = deeds.plans.get(&task.title) else {
            wrong.push(format!("task {} was planned by nobody: {:?}", task.number, task.title));
            continue;
        };
        let attempts: Vec<_> = facts.attempts.iter().filter(|attempt| attempt.task == task.number).collect();
        let begun = attempts.iter().filter(|attempt| !is_withdrawn(attempt, facts));
        let due = 1 + deeds.retried.get(&task.title).copied().unwrap_or(0);
        if begun.clone().count() > due {
            wrong.push(format!("task {} has {} attempts, {due} were asked for", task.number, begun.clone().count()));
        }
        let stopped = deeds.stopped.contains(&task.title);
        wrong.extend(begun.filter_map(|attempt| surprise(attempt, plan, stopped, deeds)));
        if attempts.is_empty() && !stopped {
            wrong.push(format!("task {} has never run, and nobody has stopped it", task.number));
        }
    }
    wrong
}

/// An offer whose spec nobody had read is withdrawn when its executor is gone, and minted anew: it never began.
fn is_withdrawn(attempt: &AttemptFacts, facts: &Facts) -> bool {
    let mut told =
        facts.journal.iter().filter(|entry| (entry.task, entry.attempt) == (attempt.task, Some(attempt.number)));
    attempt.fenced && attempt.log.is_empty() && told.any(|entry| entry.kind == "attempt.withdrawn")
}

/// Why the end of `attempt` is not one that it may have.
fn surprise(attempt: &AttemptFacts, plan: &Plan, stopped: bool, deeds: &Deeds) -> Option<String> {
    let natural = is_natural(attempt, plan);
    let cancelled = stopped && attempt.outcome.as_deref() == Some("cancelled");
    let failed = |cause: &str| attempt.outcome.as_deref() == Some("failed") && attempt.cause.as_deref() == Some(cause);
    let (fits, expected) = if deeds.shims.contains(&attempt.id) {
        // Its recorder is gone: nobody can say how the agent ended.
        (failed("internal") || cancelled, "internal")
    } else if deeds.agents.contains(&attempt.id) {
        let killed = failed("agent_exit") && attempt.exit_signal == Some(9);
        (killed || natural || cancelled, "killed by signal 9, or its own end if the kill came late")
    } else {
        (natural || cancelled, "its own end")
    };
    (!fits).then(|| {
        format!(
            "{} ended {:?} {:?} (exit {:?}, signal {:?}, head {:?}), expected {expected}{}: {plan:?}",
            attempt.name(),
            attempt.outcome,
            attempt.cause,
            attempt.exit_code,
            attempt.exit_signal,
            attempt.head,
            if stopped { " or cancelled" } else { "" }
        )
    })
}

/// Whether it ended as its plan has it: by its own exit, with everything that it made.
fn is_natural(attempt: &AttemptFacts, plan: &Plan) -> bool {
    let outcome = if plan.exit == 0 { "completed" } else { "failed" };
    let cause = (plan.exit != 0).then_some("agent_exit");
    let lines = attempt.log.iter().filter(|byte| **byte == b'\n').count() as u64;
    attempt.outcome.as_deref() == Some(outcome)
        && attempt.cause.as_deref() == cause
        && attempt.exit_code == Some(plan.exit)
        && attempt.head.is_some() == plan.commits
        && lines == plan.lines
}

//! What tasks wait for, in words for people.

use std::collections::BTreeMap;

use sculpt_core::placement::{AgentNeed, Candidate, Class, Misfit, Needs, Unwelcome, why};
use sculpt_proto::{timestamp, v1};

use super::{absent::Absent, convert, spec::policy};
use crate::store::{
    classes,
    tasks_read::{Attempt, Task},
};

/// What is left where the workspace of a task cannot be gone on in.
const ANEW: &str = "`sculpt stop` and `sculpt retry` start in a fresh clone";

/// What the tasks of each class wait for, none where they do not.
pub(super) type Reasons = BTreeMap<Class, Option<v1::Waiting>>;

/// What a task waits for whose newest attempt is `current`.
pub(super) fn waiting(
    row: &Task,
    current: Option<&Attempt>,
    candidates: &[Candidate],
    reasons: &mut Reasons,
) -> Option<v1::Waiting> {
    unplaced(row, candidates, reasons).or_else(|| absent(row, current?)).or_else(|| asks(current?))
}

/// What a task waits for whose executor stays away.
fn absent(row: &Task, attempt: &Attempt) -> Option<v1::Waiting> {
    let since = attempt.silent_since.filter(|_| attempt.state != "ended")?;
    let absent = Absent {
        executor: &attempt.executor,
        since,
        lost: attempt.liveness == "lost",
        stopped: row.intent == "cancel",
        answered: row.review != "none" || matches!(attempt.turn.as_deref(), Some("idle" | "parked")),
        policy: policy(&convert::spec(row)).ok()?,
    };
    Some(absent.into())
}

/// What an agent that asks or is limited waits for.
fn asks(attempt: &Attempt) -> Option<v1::Waiting> {
    if attempt.question.is_none() && attempt.limited_until.is_none() {
        return None;
    }
    Some(v1::Waiting {
        reason: v1::waiting::Reason::Unspecified.into(),
        text: attempt.question.clone().unwrap_or_default(),
        not_before: attempt.limited_until.map(timestamp),
    })
}

/// What keeps a task from being placed.
fn unplaced(row: &Task, candidates: &[Candidate], reasons: &mut Reasons) -> Option<v1::Waiting> {
    use v1::waiting::Reason;
    if row.attempt_id.is_some() {
        return None;
    }
    if row.intent == "hold" {
        let text = "it is paused; `sculpt resume` lets it go on".to_owned();
        return Some(v1::Waiting { reason: Reason::Paused.into(), text, not_before: None });
    }
    if row.shown != "queued" {
        return None;
    }
    if let Some(not_before) = row.not_before.filter(|at| *at > chrono::Utc::now()) {
        let text = format!("it is not to start before {}", not_before.format("%Y-%m-%d %H:%M:%S UTC"));
        return Some(v1::Waiting { reason: Reason::NotBefore.into(), text, not_before: Some(timestamp(not_before)) });
    }
    let agent = classes::need(row.agent.clone());
    let needs = Needs { pool: row.pool.clone(), requirements: row.requirements.0.clone(), agent };
    let (project, requester) = (row.project_id, row.created_by.clone());
    let class = Class { needs, executor: row.executor_id, project, requester };
    reasons
        .entry(class)
        .or_insert_with_key(|class| why(class, candidates).map(|misfit| misfit_waiting(class, &misfit, candidates)))
        .clone()
}

fn misfit_waiting(class: &Class, misfit: &Misfit, candidates: &[Candidate]) -> v1::Waiting {
    use v1::waiting::Reason;
    let pool = &class.needs.pool;
    if let Some(executor) = class.executor {
        return pinned_waiting(executor, misfit, candidates);
    }
    let (reason, text) = match misfit {
        Misfit::NoExecutor => {
            (Reason::NoExecutor, "no executor has joined yet; `sculpt executor token` makes a token for one".to_owned())
        }
        Misfit::Elsewhere | Misfit::Pool => {
            let there = listed(candidates.iter().map(|candidate| candidate.pool.name.as_str()));
            (Reason::NoExecutorInPool, format!("no executor is in the pool {pool}; there are: {there}"))
        }
        Misfit::Unwelcome(unwelcome) => (Reason::NotAdmitted, unwelcome.to_string()),
        Misfit::Label { key, value } => {
            (Reason::NoMatchingLabels, format!("no executor of the pool {pool} has the label {key}={value}"))
        }
        Misfit::Agent => {
            let there = listed(candidates.iter().flat_map(|candidate| candidate.agents.iter().map(String::as_str)));
            let there = if there.is_empty() { "none".to_owned() } else { there };
            let wanted = match &class.needs.agent {
                AgentNeed::Named(name) => format!("no executor that fits has the agent {name}"),
                AgentNeed::Default | AgentNeed::None => "no executor that fits has a default agent".to_owned(),
            };
            (Reason::NoSuchAgent, format!("{wanted}; agents there are: {there}"))
        }
        Misfit::Owned { executor, owner } => (
            Reason::NotTheOwner,
            format!(
                "executor {executor} would fit, but {}; `sculpt executor show {executor}` says why, and an executor that \
                 keeps attempts apart, as root or with bubblewrap, takes everybody's",
                owned(owner.as_deref())
            ),
        ),
        Misfit::Network { executor } => (
            Reason::OpenNetwork,
            format!(
                "executor {executor} would fit, but cannot keep attempts from the network, as the pool {pool} wishes; it \
                 needs bubblewrap for that"
            ),
        ),
        Misfit::Unreachable { executor } => {
            (Reason::Unreachable, format!("executor {executor} would fit, but has not been heard of lately"))
        }
        Misfit::Closed { executor, reason } => {
            (Reason::Draining, format!("executor {executor} would fit, but takes no new work: {reason}"))
        }
        Misfit::NoFreeSlot { slots } => {
            (Reason::NoFreeSlot, format!("all {slots} slots of the executors that fit are taken"))
        }
    };
    v1::Waiting { reason: reason.into(), text, not_before: None }
}

/// Why an executor that does not separate attempts runs no other tasks.
fn owned(owner: Option<&str>) -> String {
    let whose = match owner {
        Some(owner) => format!("takes only tasks of {owner}, whose it is"),
        None => "takes nobody's tasks: whose it is nobody knows until it joins again, or an admin adopts what it has"
            .to_owned(),
    };
    format!("does not keep attempts apart from itself, and so {whose}")
}

/// Why a task waits that goes on in the workspace which one executor has.
fn pinned_waiting(executor: uuid::Uuid, misfit: &Misfit, candidates: &[Candidate]) -> v1::Waiting {
    use v1::waiting::Reason;
    let name = candidates.iter().find(|candidate| candidate.id == executor).map(|candidate| candidate.name.as_str());
    let place = format!("for executor {}, which has its workspace", name.unwrap_or("(removed)"));
    let (reason, text) = match misfit {
        Misfit::NoExecutor | Misfit::Elsewhere | Misfit::Pool | Misfit::Label { .. } => {
            (Reason::NoExecutor, format!("{place}: it was removed; {ANEW}"))
        }
        Misfit::Unwelcome(Unwelcome::Project { pool }) => {
            (Reason::NotAdmitted, format!("{place}: its pool {pool} no longer takes tasks of this project; {ANEW}"))
        }
        Misfit::Unwelcome(Unwelcome::Requester { pool, requester }) => {
            (Reason::NotAdmitted, format!("{place}: its pool {pool} no longer takes tasks of {requester}; {ANEW}"))
        }
        Misfit::Owned { owner, .. } => {
            (Reason::NotTheOwner, format!("{place}: it {}; {ANEW}", owned(owner.as_deref())))
        }
        Misfit::Network { .. } => {
            (Reason::OpenNetwork, format!("{place}: it cannot keep attempts from the network, as its pool wishes"))
        }
        Misfit::Agent => (Reason::NoSuchAgent, format!("{place}: it no longer has the agent")),
        Misfit::Unreachable { .. } => (Reason::Unreachable, format!("{place}: it has not been heard of lately")),
        Misfit::Closed { reason, .. } => (Reason::Draining, format!("{place}: it takes no new work: {reason}")),
        Misfit::NoFreeSlot { slots } => (Reason::NoFreeSlot, format!("{place}: all of its {slots} slots are taken")),
    };
    v1::Waiting { reason: reason.into(), text, not_before: None }
}

/// Names, each once, in order.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: std::collections::BTreeSet<_> = names.collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

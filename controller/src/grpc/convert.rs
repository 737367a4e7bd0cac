//! Rows to messages: one conversion per type, in one place.

use std::collections::BTreeMap;

use prost::Message as _;
use sculpt_core::placement::Candidate;
use sculpt_proto::{timestamp, v1};

use super::waiting::{Reasons, waiting};
use crate::store::{
    events::Event,
    executors::{Counters, Executor},
    milestones::Milestone,
    projects::Project,
    seats::Seat,
    tasks_read::{Attempt, Task, View},
};

/// Each shown state by its name in the database.
const STATES: [(v1::TaskState, &str); 15] = [
    (v1::TaskState::Queued, "queued"),
    (v1::TaskState::Starting, "starting"),
    (v1::TaskState::Running, "running"),
    (v1::TaskState::Waiting, "waiting"),
    (v1::TaskState::Idle, "idle"),
    (v1::TaskState::Paused, "paused"),
    (v1::TaskState::Limited, "limited"),
    (v1::TaskState::NeedsReview, "needs_review"),
    (v1::TaskState::Accepted, "accepted"),
    (v1::TaskState::Merged, "merged"),
    (v1::TaskState::Rejected, "rejected"),
    (v1::TaskState::Completed, "completed"),
    (v1::TaskState::Failed, "failed"),
    (v1::TaskState::Lost, "lost"),
    (v1::TaskState::Cancelled, "cancelled"),
];

/// The name of a state in the database.
pub(super) fn state_name(state: v1::TaskState) -> Option<&'static str> {
    STATES.iter().find(|(known, _)| *known == state).map(|(_, name)| *name)
}

/// The tasks of `view`, in its order.
pub(super) fn tasks(view: View) -> Vec<v1::Task> {
    let candidates: Vec<Candidate> = view.executors.iter().map(|executor| executor.candidate(&view.pools)).collect();
    let mut reasons = Reasons::new();
    let mut attempts: BTreeMap<uuid::Uuid, Vec<Attempt>> = BTreeMap::new();
    for attempt in view.attempts {
        attempts.entry(attempt.task_id).or_default().push(attempt);
    }
    let mut attached: Attached = BTreeMap::new();
    for seat in view.seats {
        attached.entry(seat.attempt_id).or_default().push(seat.into());
    }
    let mut milestones: Vec<v1::Milestone> = view.milestones.into_iter().map(v1::Milestone::from).collect();
    let convert = |row: Task| {
        let attempts = attempts.remove(&row.id).unwrap_or_default();
        let current = attempts.iter().find(|attempt| Some(attempt.id) == row.attempt_id);
        let waiting = waiting(&row, current, &candidates, &mut reasons);
        // They are those of a single task.
        let milestones = std::mem::take(&mut milestones);
        v1::Task { milestones, ..task(row, attempts, &mut attached, waiting) }
    };
    view.tasks.into_iter().map(convert).collect()
}

/// Who sits beside each attempt.
type Attached = BTreeMap<uuid::Uuid, Vec<v1::PairingSession>>;

fn task(row: Task, attempts: Vec<Attempt>, attached: &mut Attached, waiting: Option<v1::Waiting>) -> v1::Task {
    let current = attempts.iter().find(|attempt| Some(attempt.id) == row.attempt_id);
    let open = current.filter(|attempt| attempt.state != "ended");
    let heard = |attempt: &&Attempt| attempt.liveness == "connected";
    let failed = row.shown == "failed";
    let spec = spec(&row);
    let state =
        STATES.iter().find(|(_, name)| *name == row.shown).map_or(v1::TaskState::Unspecified, |(state, _)| *state);
    v1::Task {
        uuid: row.id.to_string(),
        number: row.number.unsigned_abs(),
        revision: row.revision.unsigned_abs(),
        state: state.into(),
        waiting,
        failure: current.filter(|_| failed).and_then(failure),
        unreachable: open.is_some_and(|attempt| !heard(&attempt)),
        live: row.intent == "run" && open.filter(heard).is_some_and(|attempt| attempt.state == "running"),
        head: current.and_then(|attempt| attempt.head.clone()).unwrap_or_default(),
        intent_line: intent_line(&row, &spec),
        milestones: Vec::new(),
        spec: Some(spec),
        spec_cut: row.spec_cut,
        title: row.title,
        project_id: row.project_id.map(|id| id.to_string()).unwrap_or_default(),
        project: row.project.unwrap_or_default(),
        project_removed: row.project_removed,
        branch: row.branch,
        attempts: attempts
            .into_iter()
            .map(|row| {
                let attached = attached.remove(&row.id).unwrap_or_default();
                attempt(row, attached)
            })
            .collect(),
        created_at: Some(timestamp(row.created_at)),
        ended_at: row.ended_at.map(timestamp),
        intent: row.intent,
        created_by: row.created_by,
    }
}

/// What it is for: as somebody has said since, as was said at its beginning, or as its title has it.
fn intent_line(row: &Task, spec: &v1::TaskSpec) -> String {
    let said = row.intent_line.as_deref().or((!spec.intent.is_empty()).then_some(spec.intent.as_str()));
    said.unwrap_or(&row.title).to_owned()
}

impl From<Milestone> for v1::Milestone {
    fn from(row: Milestone) -> Self {
        Self {
            time: Some(timestamp(row.said_at)),
            text: row.text,
            attempt: row.attempt.unwrap_or_default().unsigned_abs(),
            user: row.user_name,
        }
    }
}

/// What was asked for.
pub(super) fn spec(row: &Task) -> v1::TaskSpec {
    v1::TaskSpec::decode(row.spec.as_slice()).unwrap_or_else(|error| {
        tracing::error!(%error, task = row.number, "the stored spec of a task cannot be read");
        v1::TaskSpec::default()
    })
}

impl From<Seat> for v1::PairingSession {
    fn from(seat: Seat) -> Self {
        Self {
            uuid: seat.session_id.to_string(),
            role: seat.role,
            since: Some(timestamp(seat.began_at)),
            typed_at: seat.typed_at.map(timestamp),
            user: seat.user_name,
        }
    }
}

fn attempt(row: Attempt, attached: Vec<v1::PairingSession>) -> v1::Attempt {
    let exit = v1::Exit { code: row.exit_code, signal: row.exit_signal };
    v1::Attempt {
        failure: failure(&row),
        uuid: row.id.to_string(),
        number: row.number.unsigned_abs(),
        executor_id: row.executor_id.to_string(),
        executor: row.executor,
        state: row.state,
        head: row.head.unwrap_or_default(),
        exit: (exit.code.is_some() || exit.signal.is_some()).then_some(exit),
        log_bytes: row.log_bytes.unsigned_abs(),
        log_complete: row.log_final == Some(row.log_bytes),
        created_at: Some(timestamp(row.created_at)),
        started_at: row.started_at.map(timestamp),
        ended_at: row.ended_at.map(timestamp),
        notes: row.notes,
        pid: u32::try_from(row.pid).unwrap_or_default(),
        outcome: row.outcome.unwrap_or_default(),
        tmux_socket: row.tmux_socket,
        attached,
    }
}

fn failure(row: &Attempt) -> Option<v1::Failure> {
    let cause = row.cause.clone()?;
    Some(v1::Failure { cause, message: row.message.clone().unwrap_or_default() })
}

pub(super) fn executor(row: Executor) -> v1::Executor {
    let agents = row
        .agents
        .iter()
        .map(|name| v1::ExecutorAgent { name: name.clone(), is_default: row.default_agent.as_ref() == Some(name) });

    v1::Executor {
        agents: agents.collect(),
        uuid: row.id.to_string(),
        name: row.name,
        pool: row.pool,
        labels: row.labels.0.into_iter().collect(),
        slots: row.slots.unsigned_abs(),
        slots_used: u32::try_from(row.used).unwrap_or(u32::MAX),
        liveness: row.liveness,
        last_seen: Some(timestamp(row.last_seen)),
        connected_at: Some(timestamp(row.connected_at)),
        draining: row.drained,
        version: row.version,
        separates: row.separates,
        epoch: row.epoch.unsigned_abs(),
        hostname: row.hostname,
        unknown_attempts: row.unknown.iter().map(ToString::to_string).collect(),
        notes: row.notes,
        tasks: row.tasks.iter().map(|number| number.unsigned_abs()).collect(),
        closed_reason: row.closed.filter(|why| why != "drained").unwrap_or_default(),
        unseparated: row.unseparated,
        closes_network: row.closes_network,
        separated_by: row.separated_by,
        ssh_address: row.ssh_address,
        counters: row.counters.map(|counters| {
            let Counters { memory, processes, cpu, lacking } = counters.0;
            v1::Counters { memory, processes, cpu, lacking }
        }),
        unmet: row.unmet,
        owner: row.owner,
        locked: row.locked.is_some(),
        certified_until: row.certified_until.map(timestamp),
        disk_used: row.disk_used.map_or(0, i64::unsigned_abs),
        disk_budget: row.disk_budget.map_or(0, i64::unsigned_abs),
    }
}

pub(super) fn project(row: Project) -> v1::Project {
    v1::Project {
        git_path: format!("/git/{}.git", row.id),
        uuid: row.id.to_string(),
        name: row.name,
        root_commit: row.root_commit,
        remote: row.remote,
        default_agent: row.default_agent,
        commit_changes: row.commit_changes,
        record_typing: row.record_typing,
        created_at: Some(timestamp(row.created_at)),
        task_count: row.task_count.unsigned_abs(),
    }
}

pub(super) fn event(row: Event, cursor: String) -> v1::Event {
    v1::Event {
        cursor,
        time: Some(timestamp(row.at)),
        kind: row.kind,
        task: row.task_number.unwrap_or_default().unsigned_abs(),
        task_uuid: row.task_id.map(|id| id.to_string()).unwrap_or_default(),
        attempt: row.attempt.unwrap_or_default().unsigned_abs(),
        executor: row.executor.unwrap_or_default(),
        state: row.shown.unwrap_or_default(),
        data: row.data.to_string(),
        revision: row.revision.unwrap_or_default().unsigned_abs(),
        actor: row.actor,
    }
}

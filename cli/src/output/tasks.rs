//! Tasks for programs and for people.

use std::{collections::BTreeMap, time::Duration};

use sculpt_proto::v1::{
    Attempt, Milestone, OnLost, PairingSession, Task, TaskSpec, TaskState, task_spec::Work, waiting::Reason,
};
use serde::Serialize;

use super::{
    clean,
    time::{age, rfc3339},
};
use crate::exit::state_name;

/// A task as `-o json` shows it: every field is always there, null where it is absent.
#[derive(Debug, Serialize)]
pub struct TaskJson {
    number: u64,
    uuid: String,
    title: String,
    state: &'static str,
    /// Number of the current attempt.
    attempt: Option<u32>,
    executor: Option<String>,
    project: Option<String>,
    base: Option<String>,
    head: Option<String>,
    branch: Option<String>,
    cause: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    log_bytes: u64,
    log_complete: bool,
    created_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    unreachable: bool,
    live: bool,
    waiting: Option<WaitingJson>,
    agent: Option<String>,
    prompt: Option<String>,
    command: Option<Vec<String>>,
    tty: bool,
    pool: String,
    priority: i32,
    labels: BTreeMap<String, String>,
    requirements: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    timeout_seconds: Option<f64>,
    on_lost: &'static str,
    /// As `--lost-after` takes it.
    lost_after: String,
    subdirectory: Option<String>,
    requester: Option<RequesterJson>,
    notes: Vec<String>,
    /// Who sits beside it now.
    attached: Vec<AttachedJson>,
    created_by: Option<String>,
    /// What it is for.
    intent: Option<String>,
    milestones: Vec<MilestoneJson>,
    /// What people want of it: "run", "hold" or "cancel".
    wanted: Option<String>,
    project_uuid: Option<String>,
    revision: u64,
    attempts: Vec<AttemptJson>,
}

#[derive(Debug, Serialize)]
struct WaitingJson {
    reason: &'static str,
    text: String,
    not_before: Option<String>,
}

#[derive(Debug, Serialize)]
struct AttachedJson {
    user: String,
    /// `observer` or `driver` at the terminal, `shell` at one of their own, `command`, `files` or `ports`
    /// without one.
    role: String,
    since: Option<String>,
    /// Null: they have typed nothing.
    typed_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct RequesterJson {
    name: String,
    email: String,
}

#[derive(Debug, Serialize)]
struct MilestoneJson {
    time: Option<String>,
    text: String,
    /// Within which it was said.
    attempt: Option<u32>,
    /// Who said it, outside of any attempt.
    user: Option<String>,
}

#[derive(Debug, Serialize)]
struct AttemptJson {
    number: u32,
    uuid: String,
    state: String,
    outcome: Option<String>,
    executor: Option<String>,
    executor_uuid: Option<String>,
    head: Option<String>,
    cause: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    log_bytes: u64,
    log_complete: bool,
    created_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    pid: Option<u32>,
    tmux_socket: Option<String>,
    notes: Vec<String>,
}

impl From<&Task> for TaskJson {
    fn from(task: &Task) -> Self {
        let current = current(task);
        let nothing = TaskSpec::default();
        let spec = task.spec.as_ref().unwrap_or(&nothing);
        let exit = current.and_then(|attempt| attempt.exit.as_ref());
        let (prompt, command) = match &spec.work {
            Some(Work::Prompt(prompt)) => (Some(prompt.clone()), None),
            Some(Work::Command(command)) => (None, Some(command.argv.iter().map(|arg| lossy(arg)).collect())),
            None => (None, None),
        };
        Self {
            number: task.number,
            uuid: task.uuid.clone(),
            title: task.title.clone(),
            state: state_name(task.state()),
            attempt: current.map(|attempt| attempt.number),
            executor: current.and_then(|attempt| filled(&attempt.executor)),
            project: filled(&task.project),
            base: filled(&spec.base),
            head: filled(&task.head),
            branch: filled(&task.branch),
            cause: task.failure.as_ref().and_then(|failure| filled(&failure.cause)),
            message: task.failure.as_ref().and_then(|failure| filled(&failure.message)),
            exit_code: exit.and_then(|exit| exit.code),
            signal: exit.and_then(|exit| exit.signal),
            log_bytes: current.map_or(0, |attempt| attempt.log_bytes),
            log_complete: current.is_some_and(|attempt| attempt.log_complete),
            created_at: rfc3339(task.created_at.as_ref()),
            started_at: current.and_then(|attempt| rfc3339(attempt.started_at.as_ref())),
            ended_at: rfc3339(task.ended_at.as_ref()),
            unreachable: task.unreachable,
            live: task.live,
            waiting: task.waiting.as_ref().map(|waiting| WaitingJson {
                reason: reason_name(waiting.reason()),
                text: waiting.text.clone(),
                not_before: rfc3339(waiting.not_before.as_ref()),
            }),
            agent: filled(&spec.agent),
            prompt,
            command,
            tty: spec.tty,
            pool: filled(&spec.pool).unwrap_or_else(|| "default".to_owned()),
            priority: spec.priority,
            labels: spec.labels.clone(),
            requirements: spec.requirements.clone(),
            env: spec.env.clone(),
            timeout_seconds: spec.timeout.as_ref().map(|span| span.seconds as f64 + f64::from(span.nanos) / 1e9),
            on_lost: on_lost_name(spec.on_lost()),
            lost_after: humantime::format_duration(lost_after(spec)).to_string(),
            subdirectory: (!spec.subdirectory.is_empty()).then(|| lossy(&spec.subdirectory)),
            requester: spec
                .requester
                .as_ref()
                .map(|person| RequesterJson { name: person.name.clone(), email: person.email.clone() }),
            notes: current.map(|attempt| attempt.notes.clone()).unwrap_or_default(),
            attached: attached(task).map(AttachedJson::from).collect(),
            created_by: filled(&task.created_by),
            intent: filled(&task.intent_line),
            milestones: task.milestones.iter().map(MilestoneJson::from).collect(),
            wanted: filled(&task.intent),
            project_uuid: filled(&task.project_id),
            revision: task.revision,
            attempts: task.attempts.iter().map(AttemptJson::from).collect(),
        }
    }
}

impl From<&Milestone> for MilestoneJson {
    fn from(milestone: &Milestone) -> Self {
        Self {
            time: rfc3339(milestone.time.as_ref()),
            text: milestone.text.clone(),
            attempt: (milestone.attempt != 0).then_some(milestone.attempt),
            user: filled(&milestone.user),
        }
    }
}

impl From<&PairingSession> for AttachedJson {
    fn from(session: &PairingSession) -> Self {
        Self {
            user: session.user.clone(),
            role: session.role.clone(),
            since: rfc3339(session.since.as_ref()),
            typed_at: rfc3339(session.typed_at.as_ref()),
        }
    }
}

impl From<&Attempt> for AttemptJson {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            uuid: attempt.uuid.clone(),
            state: attempt.state.clone(),
            outcome: filled(&attempt.outcome),
            executor: filled(&attempt.executor),
            executor_uuid: filled(&attempt.executor_id),
            head: filled(&attempt.head),
            cause: attempt.failure.as_ref().and_then(|failure| filled(&failure.cause)),
            message: attempt.failure.as_ref().and_then(|failure| filled(&failure.message)),
            exit_code: attempt.exit.as_ref().and_then(|exit| exit.code),
            signal: attempt.exit.as_ref().and_then(|exit| exit.signal),
            log_bytes: attempt.log_bytes,
            log_complete: attempt.log_complete,
            created_at: rfc3339(attempt.created_at.as_ref()),
            started_at: rfc3339(attempt.started_at.as_ref()),
            ended_at: rfc3339(attempt.ended_at.as_ref()),
            pid: (attempt.pid != 0).then_some(attempt.pid),
            tmux_socket: filled(&attempt.tmux_socket),
            notes: attempt.notes.clone(),
        }
    }
}

/// A milestone for people: how long ago, what, and who said it.
pub(crate) fn milestone_line(milestone: &Milestone) -> String {
    let by = if milestone.user.is_empty() { String::new() } else { format!("  ({})", clean(&milestone.user)) };
    format!("{:<12}{}{by}", age(milestone.time.as_ref()), clean(&milestone.text))
}

/// The attempt that counts: the newest.
pub(crate) fn current(task: &Task) -> Option<&Attempt> {
    task.attempts.iter().max_by_key(|attempt| attempt.number)
}

/// Who sits beside it now.
pub(crate) fn attached(task: &Task) -> impl Iterator<Item = &PairingSession> {
    task.attempts.iter().flat_map(|attempt| &attempt.attached)
}

/// What can follow when an executor stays away.
pub(crate) const ON_LOST: [OnLost; 3] = [OnLost::Wait, OnLost::Retry, OnLost::Fail];

/// Its name in JSON and on the command line.
pub(crate) const fn on_lost_name(on_lost: OnLost) -> &'static str {
    match on_lost {
        OnLost::Unspecified | OnLost::Wait => "wait",
        OnLost::Retry => "retry",
        OnLost::Fail => "fail",
    }
}

/// `lost_after` of a task that names none.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(15 * 60);

/// How long the executor may stay away.
pub(crate) fn lost_after(spec: &TaskSpec) -> Duration {
    spec.lost_after.and_then(|span| sculpt_proto::duration(span, "spec.lost_after").ok()).unwrap_or(LOST_AFTER)
}

/// SGR parameters of a state's colour.
pub(crate) const fn colour(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified | TaskState::Queued | TaskState::Paused => "",
        TaskState::Starting | TaskState::Running => "36",
        TaskState::Waiting | TaskState::Limited => "33",
        TaskState::NeedsReview => "35",
        TaskState::Idle | TaskState::Accepted | TaskState::Merged | TaskState::Completed => "32",
        TaskState::Failed | TaskState::Lost | TaskState::Rejected => "31",
        TaskState::Cancelled => "90",
    }
}

/// Text unless it is empty, which on the wire means absent.
pub(crate) fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Unspecified => "unknown",
        Reason::NoExecutor => "no_executor",
        Reason::NoExecutorInPool => "no_executor_in_pool",
        Reason::NoMatchingLabels => "no_matching_labels",
        Reason::NoSuchAgent => "no_such_agent",
        Reason::NoFreeSlot => "no_free_slot",
        Reason::Draining => "draining",
        Reason::Unreachable => "unreachable",
        Reason::NotBefore => "not_before",
        Reason::Paused => "paused",
        Reason::NotAdmitted => "not_admitted",
        Reason::NotTheOwner => "not_the_owner",
        Reason::OpenNetwork => "open_network",
    }
}

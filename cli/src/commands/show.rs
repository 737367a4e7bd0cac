//! `sculpt show`.

use std::collections::BTreeMap;

use sculpt_proto::v1::{
    Attempt, Exit as ProcessExit, OnLost, PairingSession, Task, TaskSpec, TaskState, task_spec::Work,
};

use super::task_named;
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    output::{
        Format, clean, json, line, paint,
        seat::seat,
        shell_quoted,
        tasks::{LOST_AFTER, TaskJson, attached, colour, current, lost_after, milestone_line, on_lost_name},
        time::{age, between, local, size},
    },
};

/// Characters of a prompt that are shown.
const PROMPT_SHOWN: usize = 300;

pub(super) async fn run(task: &str, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let task = task_named(&client, task, &format!("show task {task}")).await?;
    match format {
        Format::Json => json(&TaskJson::from(&task))?,
        Format::Text => line(page(&task))?,
    }
    Ok(Exit::Done)
}

fn page(task: &Task) -> String {
    let nothing = TaskSpec::default();
    let spec = task.spec.as_ref().unwrap_or(&nothing);
    let mut lines = vec![format!("task {}  {}", task.number, clean(&task.title))];
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<12}{}", value));
        }
    };
    let state = state_name(task.state());
    field("state", format!("{}{}", paint(state, colour(task.state())), reason(task)));
    if task.unreachable && task.waiting.is_none() {
        field("", "its executor has not been heard of for a while; what is shown may be old".to_owned());
    }
    field("intent", if task.intent_line == task.title { String::new() } else { clean(&task.intent_line) });
    match &spec.work {
        Some(Work::Prompt(prompt)) => field("prompt", shortened(prompt)),
        Some(Work::Command(command)) => {
            let words = command.argv.iter().map(|word| shell_quoted(&String::from_utf8_lossy(word)));
            field("command", clean(&words.collect::<Vec<_>>().join(" ")));
        }
        None => {}
    }
    field("agent", clean(&spec.agent));
    let removed = if task.project_removed { " (removed; `sculpt project add` in a clone brings it back)" } else { "" };
    field("project", format!("{}{removed}", clean(&task.project)));
    field("base", spec.base.clone());
    // Until something is published there is only the name that the branch will have.
    field("branch", if task.head.is_empty() { String::new() } else { clean(&task.branch) });
    field("head", task.head.clone());
    field("where", current(task).map(|attempt| clean(&attempt.executor)).unwrap_or_default());
    let mut beside = "beside it";
    for session in attached(task) {
        // Once, for all of them.
        field(std::mem::take(&mut beside), sits(session));
    }
    field("created", joined([local(task.created_at.as_ref()), by(&task.created_by)]));
    field("ended", local(task.ended_at.as_ref()).unwrap_or_default());
    field("pool", if spec.pool.is_empty() { String::new() } else { clean(&spec.pool) });
    field("priority", if spec.priority == 0 { String::new() } else { spec.priority.to_string() });
    field("if lost", if_lost(spec));
    field("requires", pairs(&spec.requirements));
    field("labels", pairs(&spec.labels));
    field("uuid", task.uuid.clone());
    if !task.milestones.is_empty() {
        lines.extend([String::new(), "milestones".to_owned()]);
        lines.extend(task.milestones.iter().map(|milestone| format!("  {}", milestone_line(milestone))));
    }
    for attempt in &task.attempts {
        lines.extend(attempt_lines(attempt));
    }
    lines.push(String::new());
    lines.extend(next_steps(task).into_iter().map(|(command, why)| format!("  {command:<22}{why}")));
    lines.join("\n")
}

/// Why it waits or failed.
fn reason(task: &Task) -> String {
    let waiting = task.waiting.as_ref().filter(|waiting| !waiting.text.is_empty());
    let failure = task.failure.as_ref();
    match (waiting, failure) {
        (Some(waiting), _) => format!(": {}", clean(&waiting.text)),
        (None, Some(failure)) if failure.message.is_empty() => format!(" ({})", clean(&failure.cause)),
        (None, Some(failure)) => format!(" ({}): {}", clean(&failure.cause), clean(&failure.message)),
        (None, None) => String::new(),
    }
}

/// Who sits there, since when, and when they last typed.
fn sits(session: &PairingSession) -> String {
    let typed = session.typed_at.as_ref().map(|at| format!("typed {} ago", age(Some(at))));
    let who = format!("{} ({}) for {}", session.user, seat(&session.role).is, age(session.since.as_ref()));
    clean(&joined([Some(who), typed]))
}

/// What follows when its executor stays away, where that is not the ordinary.
fn if_lost(spec: &TaskSpec) -> String {
    let (on_lost, after) = (spec.on_lost(), lost_after(spec));
    if matches!(on_lost, OnLost::Unspecified | OnLost::Wait) && after == LOST_AFTER {
        return String::new();
    }
    let then = match on_lost {
        OnLost::Fail => "; the agent ends when its executor is back",
        OnLost::Unspecified | OnLost::Wait | OnLost::Retry => "",
    };
    format!("{} after {}{then}", on_lost_name(on_lost), humantime::format_duration(after))
}

fn attempt_lines(attempt: &Attempt) -> Vec<String> {
    let ran = between(attempt.started_at.as_ref(), attempt.ended_at.as_ref()).map(|span| format!("ran {span}"));
    let how = if attempt.outcome.is_empty() { &attempt.state } else { &attempt.outcome };
    let log = format!("log {}{}", size(attempt.log_bytes), extent(attempt));
    let on = (!attempt.executor.is_empty()).then(|| format!("on {}", attempt.executor));
    let facts = [Some(clean(how)), on, attempt.exit.as_ref().and_then(ended), ran, Some(log)];
    let mut lines = vec![String::new(), format!("attempt {}  {}", attempt.number, clean(&joined(facts)))];
    if let Some(failure) = &attempt.failure {
        lines.push(format!("  {:<12}{}", "failure", clean(&format!("{}: {}", failure.cause, failure.message))));
    }
    lines.extend(attempt.notes.iter().map(|note| format!("  {:<12}{}", "note", clean(note))));
    lines
}

/// How much of a log that is.
fn extent(attempt: &Attempt) -> &'static str {
    let given_up = attempt.failure.as_ref().is_some_and(|failure| failure.cause == "executor_lost");
    match (attempt.log_complete, given_up) {
        (true, _) => "",
        (false, true) => ", which lacks its end",
        (false, false) => " so far",
    }
}

fn ended(exit: &ProcessExit) -> Option<String> {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => Some(format!("ended by signal {signal}")),
        (Some(code), None) => Some(format!("exit code {code}")),
        (None, None) => None,
    }
}

/// What a person can do now.
fn next_steps(task: &Task) -> Vec<(String, &'static str)> {
    let number = task.number;
    let command = |verb: &str| format!("sculpt {verb} {number}");
    let terminal = task.spec.as_ref().is_some_and(|spec| spec.tty);
    let mut steps = Vec::new();
    match task.state() {
        TaskState::Queued | TaskState::Paused | TaskState::Limited => {
            if task.waiting.is_some() {
                steps.push(("sculpt executor ls".to_owned(), "what executors there are, with pools, labels and slots"));
            }
            steps.push((command("stop"), "do not run it"));
        }
        TaskState::Unspecified | TaskState::Starting | TaskState::Running | TaskState::Waiting | TaskState::Idle => {
            steps.push((command("logs -f"), "follow its output"));
            if terminal {
                steps.push((command("pair"), "sit down at its terminal"));
            }
            steps.push((command("stop"), "end it"));
        }
        TaskState::NeedsReview | TaskState::Accepted | TaskState::Merged | TaskState::Rejected => {
            if !task.project_removed {
                steps.push((command("diff"), "what it changed"));
                steps.push((command("fetch"), "bring its branch into this repository"));
            }
            steps.push((command("logs"), "what it printed"));
        }
        TaskState::Completed | TaskState::Failed | TaskState::Lost | TaskState::Cancelled => {
            steps.push((command("logs"), "what it printed"));
            if !task.head.is_empty() && !task.project_removed {
                steps.push((command("diff"), "what it changed"));
            }
            if task.state() != TaskState::Completed {
                steps.push((command("retry"), "run it again"));
            }
        }
    }
    steps
}

fn shortened(prompt: &str) -> String {
    let short: String = prompt.chars().take(PROMPT_SHOWN).collect();
    let dots = if short.len() < prompt.len() { " …" } else { "" };
    format!("{}{dots}", clean(short.trim()))
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| clean(&format!("{key}={value}"))).collect::<Vec<_>>().join(" ")
}

fn by(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| format!("by {}", clean(name)))
}

fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

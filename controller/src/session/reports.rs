//! Reports: each applied once, in order, in one transaction with what it moves; acknowledged only after the commit.

use std::time::Duration;

use sculpt_core::{
    attempt::Step,
    outcome::{Cause, Exit, Failure, Outcome},
    task::Event,
};
use sculpt_proto::{
    FieldError, commit_id, duration,
    executor::v1::{self as wire, ended, report, report_ack::Refusal},
    id::{AttemptId, ExecutorId},
    required,
};

use super::{
    deeds::{self, Deed},
    milestones,
};
use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    store::{
        Connection, StoreError, attempts, sessions,
        sessions::Epoch,
        task_state::{self, Locked},
    },
};

/// Longest remark that is kept, in characters.
const MAX_NOTE: usize = 1000;

/// A step of an attempt's life, as its executor tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of which attempt.
    pub attempt: AttemptId,
    /// 1, 2, 3, … per attempt.
    pub sequence: u64,
    /// How long ago it happened.
    pub age: Duration,
    /// What happened.
    pub told: Told,
}

/// What a report tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The spec is on its disk.
    Accepted,
    /// The workspace is being made.
    Preparing,
    /// The agent runs.
    Running {
        /// Its process.
        pid: u32,
        /// Where people attach; empty without a terminal.
        tmux_socket: String,
    },
    /// The main process has ended.
    Finalizing {
        /// How.
        exit: Option<Exit>,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// How the main process ended.
        exit: Option<Exit>,
        /// Length of the log, in bytes.
        log_length: u64,
        /// What it has published.
        head: Option<String>,
    },
    /// A remark for people.
    Note(String),
    /// How far it has come, as somebody within it says.
    Milestone(String),
    /// Somebody does something beside it.
    Deed(Deed),
}

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of which attempt.
    pub attempt: AttemptId,
    /// Everything up to this sequence needs no sending again.
    pub through: u64,
    /// Why it was not applied.
    pub refusal: Option<(Refusal, String)>,
}

impl Answer {
    /// Asks for the reports of `attempt` from the one behind `through` on.
    pub fn missing(attempt: AttemptId, through: u64) -> Self {
        Self { attempt, through, refusal: Some((Refusal::Gap, format!("reports from {} on are missing", through + 1))) }
    }
}

/// Why a report could not be dealt with now.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A newer session has this executor.
    #[error("a newer session has this executor")]
    Superseded,
    /// The task could not be moved.
    #[error("apply a report")]
    Dispatch(#[from] DispatchError),
    /// The database did not take it.
    #[error("apply a report in the database")]
    Store(#[from] StoreError),
}

impl TryFrom<wire::Report> for Report {
    type Error = FieldError;

    fn try_from(report: wire::Report) -> Result<Self, FieldError> {
        let told = match required(report.step, "report.step")? {
            report::Step::Accepted(_) => Told::Accepted,
            report::Step::Preparing(_) => Told::Preparing,
            report::Step::Running(running) => {
                if running.tmux_socket.len() > 200 {
                    return Err(FieldError::new("report.running.tmux_socket", "is longer than any socket's path"));
                }
                Told::Running { pid: running.pid, tmux_socket: running.tmux_socket }
            }
            report::Step::Finalizing(step) => Told::Finalizing { exit: exit(step.exit, "report.finalizing.exit")? },
            report::Step::Ended(step) => ended(step)?,
            report::Step::Note(note) => Told::Note(note.text.chars().take(MAX_NOTE).collect()),
            report::Step::Milestone(milestone) => Told::Milestone(milestone.text),
            report::Step::Attached(attached) => Told::Deed(attached.try_into()?),
            report::Step::Typed(typed) => Told::Deed(typed.try_into()?),
            report::Step::Detached(detached) => Told::Deed(detached.try_into()?),
        };
        if report.sequence == 0 || i64::try_from(report.sequence).is_err() {
            return Err(FieldError::new("report.sequence", format!("{} is not a sequence number", report.sequence)));
        }
        Ok(Self {
            attempt: FieldError::parse(&report.attempt_id, "report.attempt_id")?,
            sequence: report.sequence,
            age: report.age.map(|age| duration(age, "report.age")).transpose()?.unwrap_or_default(),
            told,
        })
    }
}

fn exit(exit: Option<sculpt_proto::v1::Exit>, field: &'static str) -> Result<Option<Exit>, FieldError> {
    let Some(exit) = exit else { return Ok(None) };
    match (exit.code, exit.signal) {
        (Some(code), None) => Ok(Some(Exit::Code(code))),
        (None, Some(signal)) => Ok(Some(Exit::Signal(signal))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(FieldError::new(field, "has both a code and a signal")),
    }
}

fn ended(step: wire::Ended) -> Result<Told, FieldError> {
    let outcome = match step.outcome() {
        ended::Outcome::Completed => Outcome::Completed,
        ended::Outcome::Cancelled => Outcome::Cancelled,
        ended::Outcome::Fenced => Outcome::Fenced,
        ended::Outcome::Failed => {
            let failure = required(step.failure, "report.ended.failure")?;
            let cause = if failure.cause.is_empty() { Cause::Internal } else { Cause::from(failure.cause) };
            Outcome::Failed(Failure { cause, message: failure.message.chars().take(MAX_NOTE).collect() })
        }
        ended::Outcome::Unspecified => return Err(FieldError::new("report.ended.outcome", "is not set")),
    };
    if i64::try_from(step.log_length).is_err() {
        return Err(FieldError::new("report.ended.log_length", "is longer than any log"));
    }
    let head = if step.head.is_empty() { None } else { Some(commit_id(&step.head, "report.ended.head")?) };
    let exit = exit(step.exit, "report.ended.exit")?;
    Ok(Told::Ended { outcome, exit, log_length: step.log_length, head })
}

impl Told {
    fn step(&self) -> Option<Step> {
        match self {
            Self::Accepted => Some(Step::Accepted),
            Self::Preparing => Some(Step::Preparing),
            Self::Running { .. } => Some(Step::Running),
            Self::Finalizing { exit } => Some(Step::Finalizing { exit: *exit }),
            Self::Ended { outcome, .. } => Some(Step::Ended { outcome: outcome.clone() }),
            Self::Note(_) | Self::Milestone(_) | Self::Deed(_) => None,
        }
    }
}

/// Applies `report` in a transaction of its own, sends the effects, and says what to answer.
pub async fn apply(dispatch: &Dispatch, epoch: Epoch, report: Report) -> Result<Answer, ReportError> {
    let steps = report.told.step().is_some();
    let (answer, moved) =
        dispatch.store().write(move |conn| Box::pin(async move { apply_in(conn, epoch, &report).await })).await?;
    if matches!(answer.refusal, Some((Refusal::Fenced, _))) {
        // It may have stopped by now, and then need not be kept.
        dispatch.bus().tell(epoch.executor);
    }
    if let Some(moved) = moved {
        dispatch.after_commit(&moved);
        if steps {
            // An end closes the log of what was complete before it; a follower waits for that.
            dispatch.bus().log_grew(answer.attempt);
        }
    }
    Ok(answer)
}

async fn apply_in(
    conn: &mut Connection,
    epoch: Epoch,
    report: &Report,
) -> Result<(Answer, Option<Moved>), ReportError> {
    let attempt = report.attempt;
    let answer = |through: u64, refusal: Option<(Refusal, String)>| (Answer { attempt, through, refusal }, None);
    let unknown = || {
        let text = "this controller's database does not know the attempt".to_owned();
        answer(0, Some((Refusal::UnknownAttempt, text)))
    };
    if !sessions::holds(conn, epoch).await? {
        return Err(ReportError::Superseded);
    }
    let Some(task) = attempts::task_of(conn, attempt, epoch.executor).await? else { return Ok(unknown()) };
    let Some(locked) = task_state::lock(conn, task).await? else { return Ok(unknown()) };
    let Some(ledger) = attempts::lock(conn, attempt).await? else { return Ok(unknown()) };
    let moved = match rule(report, &ledger) {
        Ruling::Again => return Ok(answer(ledger.through, None)),
        Ruling::Refused(refusal, text) => return Ok(answer(ledger.through, Some((refusal, text)))),
        Ruling::Fenced(text) => {
            let moved = match &report.told {
                Told::Ended { .. } => {
                    attempts::end_fenced(conn, &[attempt]).await?;
                    None
                }
                // What people did and what was said there happened all the same, while the executor was out of reach.
                Told::Deed(_) | Told::Milestone(_) if report.sequence > ledger.through => {
                    attempts::advance(conn, attempt, report.sequence).await?;
                    keep(conn, &locked, &ledger, epoch.executor, report).await?
                }
                Told::Accepted
                | Told::Preparing
                | Told::Running { .. }
                | Told::Finalizing { .. }
                | Told::Note(_)
                | Told::Deed(_)
                | Told::Milestone(_) => None,
            };
            let (answer, _) = answer(report.sequence, Some((Refusal::Fenced, text)));
            return Ok((answer, moved));
        }
        Ruling::Taken(None) => keep(conn, &locked, &ledger, epoch.executor, report).await?,
        Ruling::Taken(Some(step)) => {
            let event = Event::Stepped { fence: ledger.fence, step };
            match Dispatch::move_locked(conn, &locked, &event, &Actor::system(), report.age).await {
                Ok(moved) => Some(moved),
                Err(DispatchError::Illegal(illegal)) => {
                    // Applied as nothing: what follows it, an end above all, must not wait behind it for ever.
                    attempts::advance(conn, attempt, report.sequence).await?;
                    return Ok(answer(report.sequence, Some((Refusal::Illegal, illegal.to_string()))));
                }
                Err(other) => return Err(other.into()),
            }
        }
    };
    write_details(conn, attempt, &report.told).await?;
    attempts::advance(conn, attempt, report.sequence).await?;
    sculpt_failpoints::pass("report.before_commit");
    let (answer, _) = answer(report.sequence, None);
    Ok((answer, moved))
}

/// Keeps what moves no attempt: what people do beside it, and what is said within it.
async fn keep(
    conn: &mut Connection,
    locked: &Locked,
    ledger: &attempts::Ledger,
    executor: ExecutorId,
    report: &Report,
) -> Result<Option<Moved>, StoreError> {
    match &report.told {
        Told::Deed(deed) => deeds::apply(conn, locked, ledger, executor, report.age, deed).await,
        Told::Milestone(text) => milestones::apply(conn, locked, ledger, executor, report.age, text).await,
        Told::Accepted
        | Told::Preparing
        | Told::Running { .. }
        | Told::Finalizing { .. }
        | Told::Ended { .. }
        | Told::Note(_) => Ok(None),
    }
}

/// What is to be done with a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing: it was applied before.
    Again,
    /// Nothing, and it may come again.
    Refused(Refusal, String),
    /// The task has gone on without its attempt: it moves nothing. What people did and what was said there is kept all the same.
    Fenced(String),
    /// It is taken, with the step that it is; a remark, and what people do, is none.
    Taken(Option<Step>),
}

/// PURE: what is to be done with a report that finds its attempt's rows as they are.
pub fn rule(report: &Report, ledger: &attempts::Ledger) -> Ruling {
    if ledger.fenced {
        return Ruling::Fenced("the task has gone on without this attempt".to_owned());
    }
    // An end is the last report there is. One under a number that was taken before comes from a journal that a damaged disk
    // cut short: without it the task would run for ever.
    let last_word = matches!(report.told, Told::Ended { .. }) && !ledger.ended;
    if report.sequence <= ledger.through && !last_word {
        return Ruling::Again;
    }
    if report.sequence > ledger.through + 1 {
        return Ruling::Refused(Refusal::Gap, format!("reports from {} on are missing", ledger.through + 1));
    }
    match contradiction(&report.told, ledger) {
        Some(text) => Ruling::Refused(Refusal::Illegal, text),
        None => Ruling::Taken(report.told.step()),
    }
}

/// What an end says that cannot be: it is refused and may be sent again once it has become true.
fn contradiction(told: &Told, ledger: &attempts::Ledger) -> Option<String> {
    let Told::Ended { log_length, head, .. } = told else { return None };
    if *log_length < ledger.log_bytes {
        return Some(format!("the log is said to have {log_length} bytes, but {} are held", ledger.log_bytes));
    }
    match (head, &ledger.head) {
        (Some(said), published) if published.as_ref() != Some(said) => {
            let published = published.as_deref().unwrap_or("nothing");
            Some(format!("the head is said to be {said}, but {published} is published; publish it first"))
        }
        (Some(_) | None, _) => None,
    }
}

async fn write_details(conn: &mut Connection, attempt: AttemptId, told: &Told) -> Result<(), StoreError> {
    match told {
        Told::Accepted | Told::Preparing | Told::Finalizing { .. } => Ok(()),
        Told::Running { pid, tmux_socket } => attempts::set_process(conn, attempt, *pid, tmux_socket).await,
        Told::Ended { exit, log_length, .. } => {
            attempts::set_end(conn, attempt, *exit, *log_length).await?;
            attempts::release_complete(conn, &[attempt]).await.map(drop)
        }
        Told::Note(text) => attempts::add_note(conn, attempt, text).await,
        Told::Milestone(_) | Told::Deed(_) => Ok(()),
    }
}

impl From<Answer> for wire::ReportAck {
    fn from(answer: Answer) -> Self {
        let (refusal, text) = answer.refusal.unwrap_or((Refusal::Unspecified, String::new()));
        Self { attempt_id: answer.attempt.to_string(), through: answer.through, refusal: refusal.into(), text }
    }
}

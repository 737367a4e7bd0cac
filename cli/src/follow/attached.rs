//! An attached `run`: the log on standard output, everything else on standard error, until the turn ends.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sculpt_proto::v1::{Attempt, LogEnd, Task, TaskState};
use tokio::time::Instant;

use super::{Absence, LogReader, Sink, Watch, sink::Screens};
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    output::{note, progress::MOMENT, tasks::current},
};

/// How long the rest of a log may take to arrive after the turn is over, counted from its last byte.
const REST: Duration = Duration::from_secs(10);

/// Whether notes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    Yes,
    No,
}

type Pump = Pin<Box<dyn Future<Output = Result<(Sink, LogEnd), Failure>>>>;

/// Follows until the turn ends or Ctrl-C; gives the task as it was then.
pub(crate) async fn attached(client: &Client, task: Task, sink: Sink, quiet: Quiet) -> Result<(Exit, Task), Failure> {
    let number = task.number;
    let mut following = Following::new(client, task, sink, quiet);
    let mut watch = Watch::new(client, number, &following.task.uuid, quiet == Quiet::Yes);
    loop {
        let wake = following.wake();
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, "listen for Ctrl-C", error.to_string()))?;
                following.restore()?;
                note(format!("\ndetached: task {number} goes on"));
                note(format!("  sculpt logs -f {number}   follow it again"));
                note(format!("  sculpt pair {number}      sit down at its terminal"));
                note(format!("  sculpt stop {number}      stop it"));
                return Ok((Exit::Detached, following.task));
            }
            task = watch.next(), if following.over.is_none() => following.update(task?),
            ended = async { match &mut following.pump { Some(pump) => pump.await, None => std::future::pending().await } } => {
                let (sink, end) = ended?;
                following.log_ended(sink, &end);
            }
            () = tokio::time::sleep_until(wake) => following.woke(),
        }
        if let Some(exit) = following.finished() {
            following.restore()?;
            return Ok((exit, following.task));
        }
    }
}

struct Following {
    client: Client,
    task: Task,
    quiet: Quiet,
    sink: Option<Sink>,
    screens: Option<Screens>,
    pump: Option<Pump>,
    /// Number of the attempt whose log is or was followed.
    followed: u32,
    reached: Arc<AtomicU64>,
    over: Option<Exit>,
    /// When to look whether the task still waits, or whether the log still moves.
    deadline: Instant,
    seen: u64,
    /// It has waited for longer than a moment.
    waited: bool,
    said: String,
    absence: Absence,
    /// How many remarks of which attempt were said.
    remarks: (u32, usize),
    cut: bool,
}

impl Following {
    fn new(client: &Client, task: Task, sink: Sink, quiet: Quiet) -> Self {
        Self {
            client: client.clone(),
            task,
            quiet,
            screens: sink.screens(),
            sink: Some(sink),
            pump: None,
            followed: 0,
            reached: Arc::default(),
            over: None,
            deadline: Instant::now() + MOMENT,
            seen: 0,
            waited: false,
            said: String::new(),
            absence: Absence::default(),
            remarks: (0, 0),
            cut: false,
        }
    }

    fn wake(&self) -> Instant {
        self.deadline
    }

    fn update(&mut self, task: Task) {
        self.task = task;
        if self.task.state() == TaskState::Queued && self.waited {
            self.say_why();
        }
        if let Some(news) = self.absence.news(&self.task).filter(|_| self.quiet == Quiet::No) {
            note(news);
        }
        self.say_remarks();
        self.start_pump();
        self.over = Exit::of_state(self.task.state());
        if self.over.is_some() {
            self.deadline = Instant::now() + REST;
        }
    }

    /// Follows the log of the newest attempt once there can be one.
    fn start_pump(&mut self) {
        let Some(attempt) = current(&self.task).filter(|attempt| has_log(attempt)) else { return };
        if attempt.number <= self.followed {
            return;
        }
        let Some(sink) = self.sink.take() else { return };
        if self.quiet == Quiet::No {
            let again = if attempt.number > 1 { format!(", attempt {}", attempt.number) } else { String::new() };
            note(format!("task {} runs on {}{again}", self.task.number, attempt.executor));
        }
        self.followed = attempt.number;
        self.reached = Arc::default();
        let reader = LogReader {
            client: self.client.clone(),
            task: self.task.uuid.clone(),
            number: self.task.number,
            attempt: attempt.number,
            offset: 0,
            follow: true,
            // The watch speaks of outages already.
            quiet: true,
            sink,
            reached: Arc::clone(&self.reached),
        };
        self.pump = Some(Box::pin(reader.pump()));
    }

    fn log_ended(&mut self, sink: Sink, _end: &LogEnd) {
        self.sink = Some(sink);
        self.pump = None;
        self.start_pump();
    }

    fn woke(&mut self) {
        if self.over.is_some() {
            let reached = self.reached.load(Ordering::Relaxed);
            self.cut = reached == self.seen;
            self.seen = reached;
            self.deadline = Instant::now() + REST;
        } else {
            self.waited = true;
            if self.task.state() == TaskState::Queued {
                self.say_why();
            }
            self.deadline = Instant::now() + Duration::from_secs(3600);
        }
    }

    /// Why the task waits: once, and again when the reason changes.
    fn say_why(&mut self) {
        let Some(waiting) = &self.task.waiting else { return };
        if self.quiet == Quiet::No && !waiting.text.is_empty() && waiting.text != self.said {
            note(format!("task {} waits: {}", self.task.number, waiting.text));
            self.said.clone_from(&waiting.text);
        }
    }

    /// What the executor remarks on the attempt, each remark once.
    fn say_remarks(&mut self) {
        let Some(attempt) = current(&self.task) else { return };
        let said = if self.remarks.0 == attempt.number { self.remarks.1 } else { 0 };
        if self.quiet == Quiet::No {
            attempt.notes.iter().skip(said).for_each(note);
        }
        self.remarks = (attempt.number, attempt.notes.len());
    }

    /// The turn is over and its log was written, or does not move any more.
    fn finished(&self) -> Option<Exit> {
        let exit = self.over?;
        if self.pump.is_none() {
            return Some(exit);
        }
        // An agent that lives on between turns has a log that is not complete: what there was is enough.
        let known = current(&self.task).map_or(0, |attempt| attempt.log_bytes);
        let lives_on =
            self.task.live || matches!(self.task.state(), TaskState::Idle | TaskState::Waiting | TaskState::Limited);
        let enough = lives_on && self.reached.load(Ordering::Relaxed) >= known;
        if self.cut && !lives_on && self.quiet == Quiet::No {
            note(format!("the end of the log has not arrived yet: `sculpt logs -f {}`", self.task.number));
        }
        (enough || self.cut).then_some(exit)
    }

    fn restore(&self) -> Result<(), Failure> {
        self.screens.as_ref().map_or(Ok(()), Screens::restore)
    }
}

/// Whether an agent ran: one that failed before that has no log to wait for.
fn has_log(attempt: &Attempt) -> bool {
    attempt.started_at.is_some() || attempt.log_bytes > 0 || matches!(attempt.state.as_str(), "running" | "finalizing")
}

/// One line on how a task stands, and what can be done now.
pub(crate) fn outcome(task: &Task) -> String {
    let number = task.number;
    let state = state_name(task.state()).replace('_', " ");
    match task.state() {
        TaskState::NeedsReview => {
            format!(
                "task {number} needs review: branch {} (`sculpt diff {number}`, `sculpt fetch {number}`)",
                task.branch
            )
        }
        TaskState::Failed | TaskState::Lost => {
            let failure = task.failure.as_ref();
            let cause = failure.map(|failure| format!(" ({})", failure.cause)).unwrap_or_default();
            let message = failure.map(|failure| failure.message.as_str()).unwrap_or_default();
            let colon = if message.is_empty() { "" } else { ": " };
            // What was committed before it failed is kept.
            let kept = if task.head.is_empty() { String::new() } else { format!(" (`sculpt diff {number}`)") };
            format!("task {number} {state}{cause}{colon}{message}{kept}")
        }
        TaskState::Unspecified
        | TaskState::Queued
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Idle
        | TaskState::Paused
        | TaskState::Limited
        | TaskState::Accepted
        | TaskState::Merged
        | TaskState::Rejected
        | TaskState::Completed
        | TaskState::Cancelled => format!("task {number} is {state}"),
    }
}

//! The rows of the simulated database, moved by the machines of the core as the real ones are.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sculpt_controller::session::spec::Sealed;
use sculpt_core::{
    attempt::{Attempt, AttemptState, Fence},
    outcome::Outcome,
    review::Review,
    task::{Effect, Event, IllegalTransition, Intent, Policy, Run, Task},
};
use sculpt_proto::id::{AttemptId, ExecutorId, TaskId};

/// An executor, as its sessions describe it.
#[derive(Clone, Debug)]
pub struct ExecutorRow {
    /// Its newest session.
    pub epoch: u64,
    /// When it was last heard of.
    pub last_seen: DateTime<Utc>,
    /// Why it takes no new work.
    pub closed: Option<String>,
    /// How many attempts it runs at a time.
    pub slots: u32,
}

/// A task.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its number.
    pub number: u64,
    /// What people want.
    pub intent: Intent,
    /// What they think of the result.
    pub review: Review,
    /// Its settings.
    pub policy: Policy,
    /// The number of the attempt to come, or the newest one.
    pub run: Next,
    /// What was published last: by which attempt.
    pub published: Option<(u32, String)>,
}

/// Which attempt a task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for its next one.
    Queued(u32),
    /// Its newest.
    Newest(AttemptId),
}

/// An attempt.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    /// Its task.
    pub task: TaskId,
    /// As its machine has it.
    pub attempt: Attempt,
    /// When it was claimed.
    pub offered_at: DateTime<Utc>,
    /// The task was taken from it.
    pub fenced: bool,
    /// Its executor owes nothing more for it.
    pub released: bool,
    /// What it is to do.
    pub spec: Sealed,
    /// Reports applied, 1 to this.
    pub through: u64,
    /// Its log.
    pub log: Vec<u8>,
    /// The length that its executor says the log has.
    pub log_final: Option<u64>,
}

impl AttemptRow {
    /// Whether its executor has said that it has the spec.
    pub fn begun(&self) -> bool {
        !matches!(self.attempt.state, AttemptState::Offered { .. })
    }

    /// Nothing more is to come of it. An offer that was withdrawn before anybody read it may stay until its executor's next
    /// session: nobody waits for it.
    pub fn settled(&self) -> bool {
        self.released || (self.fenced && !self.begun())
    }

    /// Released as soon as it is over and its log is complete.
    pub fn release_complete(&mut self) -> bool {
        let complete = self.attempt.ended() && self.log_final == Some(self.log.len() as u64) && !self.released;
        self.released |= complete;
        complete
    }

    /// A fenced attempt has stopped: nothing more is owed for it.
    pub fn end_fenced(&mut self, at: DateTime<Utc>) {
        if self.fenced {
            if !self.attempt.ended() {
                self.attempt.state = AttemptState::Ended { outcome: Outcome::Fenced, at };
            }
            self.released = true;
        }
    }
}

/// Everything that is durable in the controller.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Executors.
    pub executors: BTreeMap<ExecutorId, ExecutorRow>,
    /// Tasks.
    pub tasks: BTreeMap<TaskId, TaskRow>,
    /// Attempts.
    pub attempts: BTreeMap<AttemptId, AttemptRow>,
    /// Older sessions may write too.
    pub any_epoch: bool,
}

impl Rows {
    /// A task as its machines see it.
    pub fn task(&self, id: TaskId) -> Option<Task> {
        let row = self.tasks.get(&id)?;
        let run = match row.run {
            Next::Queued(next) => Run::Queued { next },
            Next::Newest(attempt) => Run::Attempt(self.attempts.get(&attempt)?.attempt.clone()),
        };
        Some(Task { intent: row.intent, review: row.review.clone(), run, surviving: None, policy: row.policy })
    }

    /// The token of the newest attempt of `task`, as one would have it who did not look at his own.
    pub fn stolen_fence(&self, task: TaskId) -> Option<Fence> {
        match self.tasks.get(&task)?.run {
            Next::Newest(attempt) => Some(self.attempts.get(&attempt)?.attempt.fence),
            Next::Queued(_) => None,
        }
    }

    /// Whether `attempt` is the newest of its task.
    pub fn newest(&self, attempt: AttemptId) -> bool {
        let task = self.attempts.get(&attempt).and_then(|row| self.tasks.get(&row.task));
        task.is_some_and(|task| task.run == Next::Newest(attempt))
    }

    /// Moves `task` by `event`, and by what follows from it.
    pub fn apply(&mut self, id: TaskId, event: &Event, now: DateTime<Utc>) -> Result<Vec<Effect>, IllegalTransition> {
        self.apply_late(id, event, now, now)
    }

    /// The same by an event that happened at `at`, and is heard of `now`.
    pub fn apply_late(
        &mut self,
        id: TaskId,
        event: &Event,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let Some(before) = self.task(id) else { return Ok(Vec::new()) };
        let mut effects = self.step(id, &before, event, at)?;
        if let Some(after) = self.task(id)
            && let Some(next) = after.follow_up(&before, event, now)
        {
            effects.extend(self.step(id, &after, &next, now)?);
        }
        Ok(effects)
    }

    /// A claim's attempt has been put among the attempts before.
    fn step(
        &mut self,
        id: TaskId,
        before: &Task,
        event: &Event,
        at: DateTime<Utc>,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let mut after = before.clone();
        let effects = after.apply(event, at)?;
        if let Some(left) = before.attempt()
            && !left.ended()
            && (matches!(event, Event::Expired { .. }) || after.attempt().is_none_or(|now| now.fence != left.fence))
            && let Some(row) = self.attempts.get_mut(&AttemptId(left.fence.id))
        {
            row.fenced = true;
        }
        let run = match after.run {
            Run::Queued { next } => Next::Queued(next),
            Run::Attempt(attempt) => {
                let id = AttemptId(attempt.fence.id);
                if let Some(row) = self.attempts.get_mut(&id) {
                    row.attempt = attempt;
                }
                Next::Newest(id)
            }
        };
        if let Some(row) = self.tasks.get_mut(&id) {
            (row.intent, row.review, row.run) = (after.intent, after.review, run);
        }
        Ok(effects)
    }
}

//! The task: five machines and the one function that moves them.

mod attempts;
mod event;
mod follow;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    attempt::{Attempt, AttemptState, Fence, Step},
    liveness::Liveness,
    outcome::Outcome,
    review::{Commit, NotReviewable, Review, Verdict},
    shown::{Shown, shown},
    turn::TurnStep,
};

pub use event::Event;

/// What people want of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Go on.
    #[default]
    Run,
    /// Stand still.
    Hold,
    /// Stop for good.
    Cancel,
}

impl Intent {
    /// Its name in the database and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Hold => "hold",
            Self::Cancel => "cancel",
        }
    }
}

/// What happens when the executor stays away longer than `lost_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// Nothing; the task goes on when its executor is back.
    #[default]
    Wait,
    /// Another attempt starts.
    Retry,
    /// The task fails.
    Fail,
}

impl OnLost {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Retry => "retry",
            Self::Fail => "fail",
        }
    }
}

/// The settings of a task that its machines read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What follows when the executor stays away.
    pub on_lost: OnLost,
    /// How long it may stay away.
    pub lost_after: TimeDelta,
}

/// Which attempt a task has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// It waits to be placed.
    Queued {
        /// Number of the attempt to come.
        next: u32,
    },
    /// Its newest attempt, ended or not.
    Attempt(Attempt),
}

/// A workspace that outlived its attempt, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surviving {
    /// The attempt that it was made for.
    pub attempt: Uuid,
    /// The only executor that has it.
    pub executor: Uuid,
}

/// A task as its machines see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What people want.
    pub intent: Intent,
    /// What people think of the result.
    pub review: Review,
    /// Where its work stands.
    pub run: Run,
    /// What the attempt to come, or the newest one, goes on in instead of a fresh clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surviving: Option<Surviving>,
    /// Its settings.
    pub policy: Policy,
}

/// What is to be done once the new state is committed. Idempotent: a lost effect is repaired by a reconciler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The queue has changed: try to place tasks.
    Place,
    /// What this executor should have has changed: tell it.
    Tell(Uuid),
}

/// Why an event cannot move the task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// The attempt is not the task's newest one: the task has gone on without it.
    #[error("attempt {} is fenced: the task has gone on without it", fence.number)]
    Fenced {
        /// The token that was shown.
        fence: Fence,
    },
    /// The event does not fit the state.
    #[error("a task that is {state} {refusal}")]
    Unfit {
        /// What was to happen, as [`Event::kind`] names it.
        event: &'static str,
        /// The same for people, as [`Event::refusal`] says it.
        refusal: &'static str,
        /// The shown state.
        state: Shown,
    },
    /// Another attempt must not start yet.
    #[error("its executor is lost, and its attempt may still run; another may start from {until}")]
    TooEarly {
        /// When it may.
        until: DateTime<Utc>,
    },
    /// The verdict does not fit the result.
    #[error(transparent)]
    Review(#[from] NotReviewable),
}

impl Task {
    /// A task that has just been created.
    pub fn new(policy: Policy) -> Self {
        Self { intent: Intent::Run, review: Review::None, run: Run::Queued { next: 1 }, surviving: None, policy }
    }

    /// The newest attempt.
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.run {
            Run::Attempt(attempt) => Some(attempt),
            Run::Queued { .. } => None,
        }
    }

    /// Moves the task by `event`, which happened at `now` by the database's clock. On an error nothing has changed.
    pub fn apply(&mut self, event: &Event, now: DateTime<Utc>) -> Result<Vec<Effect>, IllegalTransition> {
        if let Some(fence) = event.fence()
            && self.attempt().is_none_or(|attempt| attempt.fence != fence)
        {
            return Err(IllegalTransition::Fenced { fence });
        }
        let unfit = IllegalTransition::Unfit { event: event.kind(), refusal: event.refusal(), state: shown(self) };
        match event {
            Event::Stop => self.set_intent(Intent::Cancel, unfit),
            Event::Hold => self.set_intent(Intent::Hold, unfit),
            Event::Resume => self.set_intent(Intent::Run, unfit),
            Event::Retry => self.retry(now, unfit).inspect(|_| self.surviving = None),
            Event::RetryInWorkspace => self.retry_in_workspace(now, unfit),
            Event::Reviewed(verdict) => self.review(verdict, unfit),
            Event::Claimed { fence, executor } => self.claim(*fence, *executor, unfit),
            Event::Adopted { fence, executor } => self.adopt(*fence, *executor, unfit),
            Event::SpecRead { .. } => self.read_spec(unfit),
            Event::Withdrawn { fence } => self.withdraw(*fence, unfit),
            Event::Stepped { step, .. } => self.step(step, now, unfit),
            Event::Turned { step, .. } => self.turn(step, unfit),
            Event::Published { head, .. } => self.publish(head, unfit),
            Event::Liveness { liveness, .. } => self.liveness(*liveness, unfit),
            Event::Expired { .. } => self.expire(now, unfit),
            Event::Replaced { .. } => self.replace(unfit),
        }
    }

    /// The newest attempt while it has not ended.
    fn live(&mut self) -> Option<&mut Attempt> {
        match &mut self.run {
            Run::Attempt(attempt) if !attempt.ended() => Some(attempt),
            Run::Attempt(_) | Run::Queued { .. } => None,
        }
    }

    fn set_intent(&mut self, intent: Intent, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let over = match &self.run {
            Run::Queued { .. } => self.intent == Intent::Cancel,
            Run::Attempt(attempt) => attempt.ended(),
        };
        // Nothing that is shown tells that a stop is on its way, so a second one is no mistake.
        let again = intent == Intent::Cancel && self.intent == Intent::Cancel;
        if over || !again && (self.intent == intent || self.intent == Intent::Cancel) {
            return Err(unfit);
        }
        self.intent = intent;
        Ok(match &self.run {
            Run::Queued { .. } => vec![Effect::Place],
            Run::Attempt(attempt) => vec![Effect::Tell(attempt.executor)],
        })
    }

    fn review(&mut self, verdict: &Verdict, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let Run::Attempt(attempt) = &self.run else { return Err(unfit) };
        if !(attempt.ended() || attempt.at_rest()) {
            return Err(unfit);
        }
        self.review = self.review.after(verdict, attempt.head.as_ref())?;
        Ok(Vec::new())
    }

    fn step(
        &mut self,
        step: &Step,
        now: DateTime<Utc>,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let Run::Attempt(attempt) = &mut self.run else { return Err(unfit) };
        attempt.state = attempt.after(step, now).ok_or(unfit)?;
        // Who reports is heard of.
        attempt.liveness = Liveness::Connected;
        if let AttemptState::Ended { outcome, .. } = &attempt.state {
            if let (Outcome::Completed, Some(head), Review::None) = (outcome, &attempt.head, &self.review) {
                self.review = Review::Needed { head: head.clone() };
            }
            return Ok(vec![Effect::Place, Effect::Tell(attempt.executor)]);
        }
        Ok(Vec::new())
    }

    fn turn(&mut self, step: &TurnStep, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let Run::Attempt(Attempt { state: AttemptState::Running { turn, .. }, head, .. }) = &mut self.run else {
            return Err(unfit);
        };
        let held = turn.takes_slot();
        *turn = turn.after(step).ok_or(unfit)?;
        match (step, head) {
            // What was merged stays merged, also when someone goes on talking.
            (TurnStep::Began, _) if matches!(self.review, Review::Merged { .. }) => {}
            (TurnStep::Began, _) => self.review = Review::None,
            (TurnStep::Over, Some(head)) if self.review == Review::None => {
                self.review = Review::Needed { head: head.clone() };
            }
            (TurnStep::Over | TurnStep::Asked { .. } | TurnStep::Limited { .. } | TurnStep::Parked, _) => {}
        }
        Ok(if held && !turn.takes_slot() { vec![Effect::Place] } else { Vec::new() })
    }

    fn publish(&mut self, head: &Commit, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let Run::Attempt(attempt) = &mut self.run else { return Err(unfit) };
        match attempt.state {
            AttemptState::Preparing | AttemptState::Running { .. } | AttemptState::Finalizing { .. } => {}
            AttemptState::Offered { .. } | AttemptState::Accepted | AttemptState::Ended { .. } => return Err(unfit),
        }
        if attempt.head.as_ref() != Some(head) {
            attempt.head = Some(head.clone());
            // Nobody has judged what stands now. While the agent works there is nothing to judge yet.
            match &self.review {
                Review::Merged { .. } => {}
                Review::None if !attempt.at_rest() => {}
                Review::None | Review::Needed { .. } | Review::Accepted { .. } | Review::Rejected { .. } => {
                    self.review = Review::Needed { head: head.clone() };
                }
            }
        }
        Ok(Vec::new())
    }

    fn liveness(&mut self, liveness: Liveness, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        self.live().ok_or(unfit)?.liveness = liveness;
        Ok(Vec::new())
    }
}

//! What people see: a projection of the machines.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::{
    attempt::{Attempt, AttemptState},
    liveness::Liveness,
    outcome::{Failure, Outcome},
    review::{Commit, Review},
    task::{Intent, Run, Task},
    turn::Turn,
};

/// A task's state as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Waits to be placed; why is a matter of placement.
    Queued,
    /// Placed; the agent does not run yet.
    Starting,
    /// The agent works.
    Running,
    /// The agent asks.
    Waiting {
        /// In its own words.
        question: String,
    },
    /// Answered, nothing to review; takes a message.
    Idle,
    /// A person holds it.
    Paused,
    /// The provider's limit.
    Limited {
        /// When it ends, if known.
        until: Option<DateTime<Utc>>,
    },
    /// New commits wait for a person.
    NeedsReview {
        /// What is to be looked at.
        head: Commit,
    },
    /// Found good.
    Accepted,
    /// On its target branch.
    Merged,
    /// Found bad.
    Rejected,
    /// Ended well, nothing to review.
    Completed,
    /// Did not end well.
    Failed(Failure),
    /// Its executor has been away for longer than the task allows.
    Lost,
    /// Stopped by a person.
    Cancelled,
}

impl Shown {
    /// Its name in the database, in JSON and on screens.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting { .. } => "waiting",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Limited { .. } => "limited",
            Self::NeedsReview { .. } => "needs_review",
            Self::Accepted => "accepted",
            Self::Merged => "merged",
            Self::Rejected => "rejected",
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What people see of `task`.
pub fn shown(task: &Task) -> Shown {
    match (&task.run, task.intent) {
        (Run::Queued { .. }, Intent::Run) => Shown::Queued,
        (Run::Queued { .. }, Intent::Hold) => Shown::Paused,
        (Run::Queued { .. }, Intent::Cancel) => Shown::Cancelled,
        (Run::Attempt(attempt), intent) => match (&attempt.state, &attempt.liveness) {
            (AttemptState::Ended { outcome, .. }, _) => over(outcome, &task.review),
            // A published result outlives its executor; that the session is gone is told by the flag.
            (_, Liveness::Lost { .. }) => judged(&task.review).unwrap_or(Shown::Lost),
            (state, Liveness::Connected | Liveness::Unreachable { .. }) => match intent {
                Intent::Hold => Shown::Paused,
                Intent::Run | Intent::Cancel => alive(state, &task.review),
            },
        },
    }
}

/// The agent can take a message now: it is neither frozen nor being stopped, and its executor is heard of.
pub fn live(task: &Task) -> bool {
    let running = |attempt: &Attempt| matches!(attempt.state, AttemptState::Running { .. });
    task.intent == Intent::Run
        && task.attempt().is_some_and(|attempt| running(attempt) && attempt.liveness == Liveness::Connected)
}

/// Its executor has not been heard of for a while, so what is shown may be old.
pub fn unreachable(task: &Task) -> bool {
    task.attempt().is_some_and(|attempt| !attempt.ended() && attempt.liveness != Liveness::Connected)
}

fn alive(state: &AttemptState, review: &Review) -> Shown {
    match state {
        AttemptState::Offered { .. } | AttemptState::Accepted | AttemptState::Preparing => Shown::Starting,
        AttemptState::Running { turn, .. } => match turn {
            Turn::Working => Shown::Running,
            Turn::Asking { text, .. } => Shown::Waiting { question: text.clone() },
            Turn::Limited { until } => Shown::Limited { until: *until },
            Turn::Idle | Turn::Parked => judged(review).unwrap_or(Shown::Idle),
        },
        // Its agent is gone, its outcome is not known yet.
        AttemptState::Finalizing { .. } | AttemptState::Ended { .. } => Shown::Running,
    }
}

fn over(outcome: &Outcome, review: &Review) -> Shown {
    if let Some(state) = judged(review) {
        return state;
    }
    match outcome {
        Outcome::Completed => Shown::Completed,
        Outcome::Failed(failure) => Shown::Failed(failure.clone()),
        Outcome::Cancelled => Shown::Cancelled,
        Outcome::Fenced => Shown::Lost,
    }
}

fn judged(review: &Review) -> Option<Shown> {
    match review {
        Review::None => None,
        Review::Needed { head } => Some(Shown::NeedsReview { head: head.clone() }),
        Review::Accepted { .. } => Some(Shown::Accepted),
        Review::Merged { .. } => Some(Shown::Merged),
        Review::Rejected { .. } => Some(Shown::Rejected),
    }
}

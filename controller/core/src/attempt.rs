//! One run of a task on one executor. It ends exactly once.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    liveness::Liveness,
    outcome::{Exit, Outcome},
    review::Commit,
    turn::Turn,
};

/// The fencing token: who may move the task. Minted in the claim's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// 1, 2, 3, … per task.
    pub number: u32,
    /// Tells apart two attempts of one number, when a database lost its last seconds.
    pub id: Uuid,
}

/// Whether the executor can have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// The spec was never handed out: the executor cannot have begun.
    Unread,
    /// The spec was handed out: it may have.
    Read,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AttemptState {
    /// Claimed for the executor.
    Offered {
        /// Whether the executor can have begun.
        offer: Offer,
    },
    /// The spec is on the executor's disk.
    Accepted,
    /// The workspace is being made.
    Preparing,
    /// The agent's process lives, or its session is parked.
    Running {
        /// Start of the agent.
        since: DateTime<Utc>,
        /// The session.
        turn: Turn,
    },
    /// The main process has ended; the result is being gathered and published.
    Finalizing {
        /// How it ended; `None` when that is not known.
        exit: Option<Exit>,
    },
    /// Over.
    Ended {
        /// How.
        outcome: Outcome,
        /// When.
        at: DateTime<Utc>,
    },
}

impl AttemptState {
    /// Its name in the database and on screens.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Offered { .. } => "offered",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Running { .. } => "running",
            Self::Finalizing { .. } => "finalizing",
            Self::Ended { .. } => "ended",
        }
    }
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its token.
    pub fence: Fence,
    /// Who runs it.
    pub executor: Uuid,
    /// Where it stands.
    pub state: AttemptState,
    /// What was published; `None` while there is nothing beyond the base.
    pub head: Option<Commit>,
    /// Whether its executor is heard of.
    pub liveness: Liveness,
}

/// A step of an attempt's life, reported by its executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// The spec is on the executor's disk.
    Accepted,
    /// The workspace is being made.
    Preparing,
    /// The agent's process lives.
    Running,
    /// The main process has ended.
    Finalizing {
        /// How; `None` when that is not known.
        exit: Option<Exit>,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

impl Step {
    /// Its name in the journal and in messages.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Finalizing { .. } => "finalizing",
            Self::Ended { .. } => "ended",
        }
    }
}

impl Attempt {
    /// A fresh claim.
    pub fn offered(fence: Fence, executor: Uuid) -> Self {
        Self {
            fence,
            executor,
            state: AttemptState::Offered { offer: Offer::Unread },
            head: None,
            liveness: Liveness::Connected,
        }
    }

    /// Whether it is over.
    pub fn ended(&self) -> bool {
        matches!(self.state, AttemptState::Ended { .. })
    }

    /// Whether its session lives and waits for a person's next word: the agent has answered.
    pub fn at_rest(&self) -> bool {
        match &self.state {
            AttemptState::Running { turn, .. } => turn.at_rest(),
            AttemptState::Offered { .. }
            | AttemptState::Accepted
            | AttemptState::Preparing
            | AttemptState::Finalizing { .. }
            | AttemptState::Ended { .. } => false,
        }
    }

    /// Whether it needs one of its executor's slots.
    pub fn takes_slot(&self) -> bool {
        match &self.state {
            AttemptState::Offered { .. }
            | AttemptState::Accepted
            | AttemptState::Preparing
            | AttemptState::Finalizing { .. } => true,
            AttemptState::Running { turn, .. } => turn.takes_slot(),
            AttemptState::Ended { .. } => false,
        }
    }

    /// The state after `step` at `at`, or `None` where the step cannot follow. An end may follow everything but an end.
    pub fn after(&self, step: &Step, at: DateTime<Utc>) -> Option<AttemptState> {
        use AttemptState as S;
        match (&self.state, step) {
            (S::Ended { .. }, _) => None,
            (
                S::Offered { .. } | S::Accepted | S::Preparing | S::Running { .. } | S::Finalizing { .. },
                Step::Ended { outcome },
            ) => Some(S::Ended { outcome: outcome.clone(), at }),
            (S::Offered { .. }, Step::Accepted) => Some(S::Accepted),
            (S::Accepted, Step::Preparing) => Some(S::Preparing),
            (S::Preparing, Step::Running) => Some(S::Running { since: at, turn: Turn::Working }),
            (S::Running { .. }, Step::Finalizing { exit }) => Some(S::Finalizing { exit: *exit }),
            (S::Offered { .. }, Step::Preparing | Step::Running | Step::Finalizing { .. })
            | (S::Accepted, Step::Accepted | Step::Running | Step::Finalizing { .. })
            | (S::Preparing, Step::Accepted | Step::Preparing | Step::Finalizing { .. })
            | (S::Running { .. }, Step::Accepted | Step::Preparing | Step::Running)
            | (S::Finalizing { .. }, Step::Accepted | Step::Preparing | Step::Running | Step::Finalizing { .. }) => {
                None
            }
        }
    }
}

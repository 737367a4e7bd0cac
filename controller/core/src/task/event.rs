//! What can happen to a task.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    attempt::{Fence, Step},
    liveness::Liveness,
    review::{Commit, Verdict},
    turn::TurnStep,
};

/// Everything that can move a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A person stops it.
    Stop,
    /// A person pauses it.
    Hold,
    /// A person lets it go on.
    Resume,
    /// A person wants another attempt.
    Retry,
    /// A person wants another attempt, in the workspace of the newest one.
    RetryInWorkspace,
    /// A person or a merge judges the result.
    Reviewed(Verdict),
    /// It was placed.
    Claimed {
        /// The token of the new attempt.
        fence: Fence,
        /// Who is to run it.
        executor: Uuid,
    },
    /// A person took over an attempt that its executor has and this database had lost.
    Adopted {
        /// The token of the attempt, as it was minted before.
        fence: Fence,
        /// Who runs it.
        executor: Uuid,
    },
    /// The spec was handed to the executor.
    SpecRead {
        /// Whose.
        fence: Fence,
    },
    /// The executor is gone and never read the spec: the task goes back to the queue.
    Withdrawn {
        /// Whose.
        fence: Fence,
    },
    /// The executor reports.
    Stepped {
        /// Of which attempt.
        fence: Fence,
        /// What.
        step: Step,
    },
    /// The adapter reports on the session.
    Turned {
        /// Of which attempt.
        fence: Fence,
        /// What.
        step: TurnStep,
    },
    /// Commits of the attempt stand in the project's repository.
    Published {
        /// Of which attempt.
        fence: Fence,
        /// The newest of them.
        head: Commit,
    },
    /// The executor was heard of, or not.
    Liveness {
        /// Of which attempt.
        fence: Fence,
        /// What is known now.
        liveness: Liveness,
    },
    /// The executor stayed away beyond what the task allows. Where another attempt is to start, the margin has passed too: the
    /// attempt's shim has ended it by its own clock.
    Expired {
        /// Of which attempt.
        fence: Fence,
    },
    /// The attempt's shim had ended it by its own clock, and the executor came back to tell: another one takes its place.
    Replaced {
        /// Of which attempt.
        fence: Fence,
    },
}

impl Event {
    /// Its name in the journal: resource, dot, what happened.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stop => "task.stop",
            Self::Hold => "task.hold",
            Self::Resume => "task.resume",
            Self::Retry | Self::RetryInWorkspace => "task.retry",
            Self::Reviewed(Verdict::Accept { .. }) => "task.accepted",
            Self::Reviewed(Verdict::Reject { .. }) => "task.rejected",
            Self::Reviewed(Verdict::Merge { .. }) => "task.merged",
            Self::Claimed { .. } => "attempt.offered",
            Self::Adopted { .. } => "attempt.adopted",
            Self::SpecRead { .. } => "attempt.spec_read",
            Self::Withdrawn { .. } => "attempt.withdrawn",
            Self::Stepped { step, .. } => match step {
                Step::Accepted => "attempt.accepted",
                Step::Preparing => "attempt.preparing",
                Step::Running => "attempt.running",
                Step::Finalizing { .. } => "attempt.finalizing",
                Step::Ended { .. } => "attempt.ended",
            },
            Self::Turned { step, .. } => match step {
                TurnStep::Began => "turn.began",
                TurnStep::Over => "turn.over",
                TurnStep::Asked { .. } => "turn.asked",
                TurnStep::Limited { .. } => "turn.limited",
                TurnStep::Parked => "turn.parked",
            },
            Self::Published { .. } => "attempt.published",
            Self::Liveness { liveness, .. } => match liveness {
                Liveness::Connected => "attempt.reachable",
                Liveness::Unreachable { .. } => "attempt.unreachable",
                Liveness::Lost { .. } => "attempt.lost",
            },
            Self::Expired { .. } => "attempt.expired",
            Self::Replaced { .. } => "attempt.replaced",
        }
    }

    /// How a sentence about a task goes on that this event does not fit.
    pub(super) fn refusal(&self) -> &'static str {
        match self {
            Self::Stop => "cannot be stopped",
            Self::Hold => "cannot be paused",
            Self::Resume => "cannot be resumed",
            Self::Retry => "cannot be retried",
            Self::RetryInWorkspace => "cannot be retried in its workspace",
            Self::Reviewed(Verdict::Accept { .. }) => "cannot be accepted",
            Self::Reviewed(Verdict::Reject { .. }) => "cannot be rejected",
            Self::Reviewed(Verdict::Merge { .. }) => "cannot be merged",
            Self::Claimed { .. } => "cannot be placed",
            Self::Adopted { .. } => "does not wait for this attempt",
            Self::SpecRead { .. }
            | Self::Withdrawn { .. }
            | Self::Stepped { .. }
            | Self::Turned { .. }
            | Self::Published { .. }
            | Self::Liveness { .. }
            | Self::Expired { .. }
            | Self::Replaced { .. } => "does not take this step of its attempt",
        }
    }

    /// The attempt that it is about, for what comes from or concerns one.
    pub(super) fn fence(&self) -> Option<Fence> {
        match self {
            Self::Stop
            | Self::Hold
            | Self::Resume
            | Self::Retry
            | Self::RetryInWorkspace
            | Self::Reviewed(_)
            | Self::Claimed { .. }
            | Self::Adopted { .. } => None,
            Self::SpecRead { fence }
            | Self::Withdrawn { fence }
            | Self::Stepped { fence, .. }
            | Self::Turned { fence, .. }
            | Self::Published { fence, .. }
            | Self::Liveness { fence, .. }
            | Self::Expired { fence }
            | Self::Replaced { fence } => Some(*fence),
        }
    }
}

//! The steps of an attempt's life as this crate holds them.

mod seat;

use serde::{Deserialize, Serialize};

pub use seat::{Seat, taken};

/// How a main process ended; both absent when nobody saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
}

/// Which part of an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The agent cannot be started.
    Setup,
    /// The workspace cannot be made.
    Workspace,
    /// The agent ended with an error.
    AgentExit,
    /// The kernel ended the agent for lack of memory.
    Oom,
    /// The agent ran longer than the task allows.
    Timeout,
    /// What was made cannot be handed over.
    Publish,
    /// Nobody heard of the executor for longer than the task allows.
    ExecutorLost,
    /// The host was rebooted.
    Interrupted,
    /// A fault of the executor itself.
    Internal,
}

impl Cause {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Workspace => "workspace",
            Self::AgentExit => "agent_exit",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Publish => "publish",
            Self::ExecutorLost => "executor_lost",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which part.
    pub cause: Cause,
    /// One sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure with one sentence for people.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// The main process ended with code 0.
    Completed,
    /// It did not, or something around it failed.
    Failed(Failure),
    /// A person stopped it.
    Cancelled,
    /// A newer attempt holds the task: nothing was published.
    Fenced,
}

/// The last report of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What became of it.
    pub outcome: Outcome,
    /// How the main process ended.
    pub exit: Exit,
    /// Final length of the log in bytes.
    pub log_length: u64,
    /// The published commit; none when there is nothing beyond the base.
    pub head: Option<String>,
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The spec is on disk.
    Accepted,
    /// The workspace is being made.
    Preparing,
    /// The agent has been started.
    Running {
        /// The main process.
        pid: u32,
        /// Socket of the attempt's terminal server; empty without a terminal.
        tmux_socket: String,
    },
    /// The main process and all that it left behind are gone.
    Finalizing {
        /// How the main process ended.
        exit: Exit,
    },
    /// Nothing follows.
    Ended(Ended),
    /// A remark for people that moves nothing.
    Note {
        /// One sentence.
        text: String,
    },
    /// How far it has come, as somebody within it says; it moves nothing.
    Milestone {
        /// One line.
        text: String,
    },
    /// A person beside the agent; it moves nothing.
    Seat(Seat),
}

impl Step {
    /// Whether the attempt goes on somewhere else after it.
    pub fn moves(&self) -> bool {
        match self {
            Self::Note { .. } | Self::Milestone { .. } | Self::Seat(_) => false,
            Self::Accepted | Self::Preparing | Self::Running { .. } | Self::Finalizing { .. } | Self::Ended(_) => true,
        }
    }

    /// The same where the controller does not have what was published, and `why` it will not get it.
    #[must_use]
    pub fn unpublished(self, why: &str) -> Self {
        match self {
            Self::Ended(ended) if ended.head.is_some() => {
                let outcome = Outcome::Failed(Failure::new(Cause::Publish, why));
                Self::Ended(Ended { outcome, head: None, ..ended })
            }
            step => step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_whose_head_is_lost_failed_to_publish_and_says_why() {
        let ended = |outcome, head: Option<&str>| {
            let head = head.map(str::to_owned);
            Step::Ended(Ended { outcome, exit: Exit::default(), log_length: 7, head })
        };
        let failed = Outcome::Failed(Failure::new(Cause::Publish, "gone"));
        for outcome in [Outcome::Completed, Outcome::Cancelled] {
            assert_eq!(ended(outcome.clone(), Some("a")).unpublished("gone"), ended(failed.clone(), None));
            assert_eq!(ended(outcome.clone(), None).unpublished("gone"), ended(outcome, None), "nothing is missed");
        }
        assert_eq!(Step::Accepted.unpublished("gone"), Step::Accepted);
    }
}

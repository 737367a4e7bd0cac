//! The turn of an agent's session: from a prompt until the agent stops.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the agent waits for when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// An answer in words.
    Question,
    /// Leave to use a tool.
    Permission,
}

/// Where the session stands while the attempt runs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "turn")]
pub enum Turn {
    /// The agent works; a plain command always does.
    #[default]
    Working,
    /// The turn is over; the agent takes a message.
    Idle,
    /// The agent waits for a person.
    Asking {
        /// What for.
        ask: Ask,
        /// In the agent's words.
        text: String,
    },
    /// The provider's limit; goes on by itself.
    Limited {
        /// When the limit ends, if the provider said so.
        until: Option<DateTime<Utc>>,
    },
    /// No process; conversation and workspace are kept, a message resumes it.
    Parked,
}

/// What moves a turn; the adapter's evidence, or the parking of an idle session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum TurnStep {
    /// A prompt was taken up, a question was answered, or a limit has passed.
    Began,
    /// The agent stopped.
    Over,
    /// The agent asks.
    Asked {
        /// What for.
        ask: Ask,
        /// In the agent's words.
        text: String,
    },
    /// The provider refuses for now.
    Limited {
        /// When the limit ends, if the provider said so.
        until: Option<DateTime<Utc>>,
    },
    /// The process was let go.
    Parked,
}

impl Turn {
    /// The turn after `step`, or `None` where the step cannot follow.
    pub fn after(&self, step: &TurnStep) -> Option<Self> {
        match (self, step) {
            // Evidence may be read twice after a restart: what is already so stays so.
            (Self::Working, TurnStep::Began) => Some(Self::Working),
            (Self::Idle, TurnStep::Over) => Some(Self::Idle),
            (Self::Parked, TurnStep::Parked) => Some(Self::Parked),
            (Self::Idle | Self::Asking { .. } | Self::Limited { .. } | Self::Parked, TurnStep::Began) => {
                Some(Self::Working)
            }
            (Self::Working | Self::Asking { .. } | Self::Limited { .. }, TurnStep::Over) => Some(Self::Idle),
            (Self::Working | Self::Asking { .. } | Self::Limited { .. }, TurnStep::Asked { ask, text }) => {
                Some(Self::Asking { ask: *ask, text: text.clone() })
            }
            (Self::Working | Self::Asking { .. } | Self::Limited { .. }, TurnStep::Limited { until }) => {
                Some(Self::Limited { until: *until })
            }
            (Self::Idle, TurnStep::Parked) => Some(Self::Parked),
            // It goes on by itself at the reset, with or without a process till then.
            (Self::Limited { until }, TurnStep::Parked) => Some(Self::Limited { until: *until }),
            (Self::Idle | Self::Parked, TurnStep::Asked { .. } | TurnStep::Limited { .. })
            | (Self::Working | Self::Asking { .. }, TurnStep::Parked)
            | (Self::Parked, TurnStep::Over) => None,
        }
    }

    /// Whether the agent has answered and waits for the next word.
    pub fn at_rest(&self) -> bool {
        match self {
            Self::Idle | Self::Parked => true,
            Self::Working | Self::Asking { .. } | Self::Limited { .. } => false,
        }
    }

    /// Whether the session needs one of its executor's slots; an idle one counts against `max_idle` instead.
    pub fn takes_slot(&self) -> bool {
        match self {
            Self::Working | Self::Asking { .. } => true,
            Self::Idle | Self::Limited { .. } | Self::Parked => false,
        }
    }

    /// Its name in the database.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Asking { .. } => "asking",
            Self::Limited { .. } => "limited",
            Self::Parked => "parked",
        }
    }
}

//! How things end.

use serde::{Deserialize, Serialize};

/// How the main process of an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

/// Why an attempt failed. A cause that this build does not know is carried as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Cause {
    /// The agent returned another code than 0 or was ended by a signal.
    AgentExit,
    /// The agent could not be started.
    Setup,
    /// The workspace could not be made.
    Workspace,
    /// The result could not be published.
    Publish,
    /// The task's own time limit.
    Timeout,
    /// Out of memory.
    Oom,
    /// The host was restarted.
    Interrupted,
    /// The provider asks to slow down.
    ProviderRateLimit,
    /// The provider's quota is used up.
    ProviderQuota,
    /// The provider refuses the login.
    ProviderAuth,
    /// The conversation no longer fits the model.
    ContextOverflow,
    /// The task's budget is used up.
    Budget,
    /// The executor stayed away beyond the task's limit.
    ExecutorLost,
    /// A fault of sculpt itself.
    Internal,
    /// Said by a newer executor.
    Other(String),
}

impl Cause {
    /// The causes that have a name here, with that name.
    pub const NAMED: [(Self, &'static str); 14] = [
        (Self::AgentExit, "agent_exit"),
        (Self::Setup, "setup"),
        (Self::Workspace, "workspace"),
        (Self::Publish, "publish"),
        (Self::Timeout, "timeout"),
        (Self::Oom, "oom"),
        (Self::Interrupted, "interrupted"),
        (Self::ProviderRateLimit, "provider_rate_limit"),
        (Self::ProviderQuota, "provider_quota"),
        (Self::ProviderAuth, "provider_auth"),
        (Self::ContextOverflow, "context_overflow"),
        (Self::Budget, "budget"),
        (Self::ExecutorLost, "executor_lost"),
        (Self::Internal, "internal"),
    ];

    /// Its name on the wire, in the database and on screens.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            named => Self::NAMED.iter().find(|(cause, _)| cause == named).map_or("internal", |(_, name)| name),
        }
    }
}

impl From<String> for Cause {
    fn from(name: String) -> Self {
        match Self::NAMED.iter().find(|(_, known)| *known == name) {
            Some((cause, _)) => cause.clone(),
            None => Self::Other(name),
        }
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.as_str().to_owned()
    }
}

/// Why an attempt failed, with a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub cause: Cause,
    /// One sentence.
    pub message: String,
}

/// The one end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The agent did what it was asked.
    Completed,
    /// It did not.
    Failed(Failure),
    /// A person stopped it.
    Cancelled,
    /// Another attempt took its place, or none is to; it has published nothing since.
    Fenced,
}

impl Outcome {
    /// Its name on the wire, in the database and on screens.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Fenced => "fenced",
        }
    }
}

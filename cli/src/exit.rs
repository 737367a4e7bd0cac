//! Exit codes: scripts rely on them, so they stand in one place.

use sculpt_proto::v1::TaskState;
use tonic::Code;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked; of a task: completed, idle, needs review, accepted or merged.
    Done,
    /// The task failed, also because its executor stayed away; of other commands: something is broken.
    Failed,
    /// The command line was not understood.
    Usage,
    /// The agent waits for an answer.
    Waiting,
    /// The task was cancelled.
    Cancelled,
    /// The task's result was rejected.
    Rejected,
    /// There is no such task, project or executor.
    NotFound,
    /// Not possible in the present state, or taken.
    Conflict,
    /// Bad input, found before anything was changed.
    BadInput,
    /// The controller cannot be reached.
    OutOfReach,
    /// The agent's provider lets it go on later.
    Limited,
    /// No credential, or not the right one.
    NotAllowed,
    /// The command's own `--timeout` ran out.
    TimedOut,
    /// Ctrl-C while following: the task goes on.
    Detached,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Waiting => 3,
            Self::Cancelled => 4,
            Self::Rejected => 5,
            Self::NotFound => 6,
            Self::Conflict => 7,
            Self::BadInput => 64,
            Self::OutOfReach => 69,
            Self::Limited => 75,
            Self::NotAllowed => 77,
            Self::TimedOut => 124,
            Self::Detached => 130,
        }
    }

    /// What `run` and `wait` say about a task in this state; `None` while its turn goes on.
    pub const fn of_state(state: TaskState) -> Option<Self> {
        match state {
            TaskState::Unspecified
            | TaskState::Queued
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Paused
            // It goes on, starts anew or fails by itself; what is lost for good is shown as failed.
            | TaskState::Lost => None,
            TaskState::Idle
            | TaskState::NeedsReview
            | TaskState::Accepted
            | TaskState::Merged
            | TaskState::Completed => Some(Self::Done),
            TaskState::Failed => Some(Self::Failed),
            TaskState::Waiting => Some(Self::Waiting),
            TaskState::Cancelled => Some(Self::Cancelled),
            TaskState::Rejected => Some(Self::Rejected),
            TaskState::Limited => Some(Self::Limited),
        }
    }

    /// What a refusal of the controller means for the caller's script.
    pub const fn of_status(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::OutOfRange => Self::Conflict,
            Code::InvalidArgument => Self::BadInput,
            Code::Unavailable | Code::DeadlineExceeded => Self::OutOfReach,
            Code::Unauthenticated | Code::PermissionDenied => Self::NotAllowed,
            Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A state's name in JSON, in `--state` and in `--for`.
pub const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unknown",
        TaskState::Queued => "queued",
        TaskState::Starting => "starting",
        TaskState::Running => "running",
        TaskState::Waiting => "waiting",
        TaskState::Idle => "idle",
        TaskState::Paused => "paused",
        TaskState::Limited => "limited",
        TaskState::NeedsReview => "needs_review",
        TaskState::Accepted => "accepted",
        TaskState::Merged => "merged",
        TaskState::Rejected => "rejected",
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
        TaskState::Lost => "lost",
        TaskState::Cancelled => "cancelled",
    }
}

/// All states that a task can be shown in.
pub const STATES: [TaskState; 15] = [
    TaskState::Queued,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Waiting,
    TaskState::Idle,
    TaskState::Paused,
    TaskState::Limited,
    TaskState::NeedsReview,
    TaskState::Accepted,
    TaskState::Merged,
    TaskState::Rejected,
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Lost,
    TaskState::Cancelled,
];

//! What a failure is on the wire: the one place where domain errors become gRPC statuses.

use sculpt_core::task::IllegalTransition;
use tonic::Status;

use crate::{
    dispatch::DispatchError,
    relay::{Cut, RelayError},
    session::Undialled,
    store::{
        StoreError,
        events::JournalError,
        executors::RemoveError,
        locks::LockError,
        pools::PoolError,
        projects::ProjectError,
        requests::RequestError,
        tasks::{CreateError, LookupError},
        tokens::TokenError,
        users::UserError,
    },
};

/// One word for programs that says why not, beside the sentence for people.
pub(super) const REASON: &str = "sculpt-reason";

/// A fault of ours: the details go to the log, the caller learns only that it happened.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!(error = text, "a call failed by a fault of the controller");
    Status::internal("internal error")
}

/// What every stream ends with when the controller does.
pub fn shutting_down() -> Status {
    Status::unavailable("the controller is shutting down; call again in a moment")
}

/// `status` with its one word for programs.
pub(super) fn because(mut status: Status, reason: &'static str) -> Status {
    status.metadata_mut().insert(REASON, tonic::metadata::MetadataValue::from_static(reason));
    status
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "a call failed because the database is out of reach");
                Self::unavailable("the database is out of reach for the moment; call again")
            }
            StoreError::Full(source) => {
                tracing::error!(error = %source, "a call failed because the disk of the database is full");
                Self::resource_exhausted(
                    "the disk of the controller's database is full; make room on it, then call again",
                )
            }
            StoreError::Nul(_) => Self::invalid_argument(error.to_string()),
            StoreError::Interrupted(_) => shutting_down(),
            StoreError::Conflict { .. } | StoreError::Unreadable { .. } | StoreError::Sqlx(_) => internal(&error),
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Reused(_) => Self::already_exists(error.to_string()),
            RequestError::Store(error) => error.into(),
        }
    }
}

impl From<LookupError> for Status {
    fn from(error: LookupError) -> Self {
        match error {
            // What cannot name a task names none.
            LookupError::Unknown(_) | LookupError::Malformed(_) => Self::not_found(error.to_string()),
            LookupError::Ambiguous { .. } => Self::invalid_argument(error.to_string()),
            LookupError::Store(error) => error.into(),
        }
    }
}

impl From<ProjectError> for Status {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Unknown(_) => Self::not_found(error.to_string()),
            ProjectError::NameTaken(_) => Self::already_exists(error.to_string()),
            ProjectError::Busy { .. } | ProjectError::Unreviewed { .. } => Self::failed_precondition(error.to_string()),
            ProjectError::Denied(denied) => denied.into(),
            ProjectError::Request(error) => error.into(),
            ProjectError::Store(error) => error.into(),
        }
    }
}

impl From<JournalError> for Status {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Expired => Self::out_of_range(error.to_string()),
            JournalError::Store(error) => error.into(),
        }
    }
}

impl From<DispatchError> for Status {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::NotFound(_) => Self::not_found(error.to_string()),
            DispatchError::Revision { .. } => Self::aborted(error.to_string()),
            DispatchError::Illegal(illegal) => match illegal {
                IllegalTransition::Fenced { .. }
                | IllegalTransition::Unfit { .. }
                | IllegalTransition::TooEarly { .. }
                | IllegalTransition::Review(_) => Self::failed_precondition(illegal.to_string()),
            },
            DispatchError::Store(error) => error.into(),
        }
    }
}

impl From<CreateError> for Status {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Pool(_) => Self::permission_denied(error.to_string()),
            CreateError::Request(error) => error.into(),
            CreateError::Store(error) => error.into(),
        }
    }
}

impl From<RemoveError> for Status {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Unknown(_) => Self::not_found(error.to_string()),
            RemoveError::Busy { .. } => Self::failed_precondition(error.to_string()),
            RemoveError::Dispatch(error) => error.into(),
            RemoveError::Request(error) => error.into(),
            RemoveError::Store(error) => error.into(),
        }
    }
}

impl From<UserError> for Status {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Unknown(_) => Self::not_found(error.to_string()),
            UserError::NameTaken(_) => Self::already_exists(error.to_string()),
            UserError::BadName(_) => Self::invalid_argument(error.to_string()),
            UserError::LastAdmin => Self::failed_precondition(error.to_string()),
            UserError::Project(error) => (*error).into(),
            UserError::Lost(unknown) => unknown.into(),
            UserError::Request(error) => error.into(),
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unknown(_) => Self::not_found(error.to_string()),
            TokenError::Ambiguous(_) => Self::invalid_argument(error.to_string()),
            TokenError::Repeated(_) => Self::already_exists(error.to_string()),
            TokenError::Limited | TokenError::Wider { .. } => Self::permission_denied(error.to_string()),
            TokenError::User(error) => error.into(),
            TokenError::Lost(unknown) => unknown.into(),
            TokenError::Request(error) => error.into(),
            TokenError::Store(error) => error.into(),
        }
    }
}

impl From<LockError> for Status {
    fn from(error: LockError) -> Self {
        match error {
            LockError::UnknownExecutor(_) => Self::not_found(error.to_string()),
            LockError::Ambiguous(_) => Self::invalid_argument(error.to_string()),
            LockError::Oneself => Self::failed_precondition(error.to_string()),
            LockError::User(error) => error.into(),
            LockError::Token(error) => error.into(),
            LockError::Lost(unknown) => unknown.into(),
            LockError::Request(error) => error.into(),
            LockError::Store(error) => error.into(),
        }
    }
}

impl From<PoolError> for Status {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Unknown(_) => Self::not_found(error.to_string()),
            PoolError::Inhabited { .. } | PoolError::Invited { .. } => Self::failed_precondition(error.to_string()),
            PoolError::Project(error) => error.into(),
            PoolError::User(error) => error.into(),
            PoolError::Lost(unknown) => unknown.into(),
            PoolError::Request(error) => error.into(),
            PoolError::Store(error) => error.into(),
        }
    }
}

impl From<Undialled> for Status {
    fn from(error: Undialled) -> Self {
        match error {
            Undialled::Elsewhere => because(Self::unavailable(error.to_string()), "elsewhere"),
            Undialled::Busy => because(Self::resource_exhausted(error.to_string()), "too_many"),
        }
    }
}

impl From<RelayError> for Status {
    fn from(error: RelayError) -> Self {
        let text = error.to_string();
        match error {
            RelayError::Yours | RelayError::Often | RelayError::Full => {
                because(Self::resource_exhausted(text), "too_many")
            }
            RelayError::Silent => because(Self::unavailable(text), "silent"),
            RelayError::Nobody => Self::not_found(text),
        }
    }
}

impl From<Cut> for Status {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Alone(_) | Cut::Ending => Self::unavailable(cut.to_string()),
            Cut::Broken => Self::cancelled(cut.to_string()),
        }
    }
}

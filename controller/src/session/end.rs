//! How a session ends, and what the executor is told of it.

use std::time::Duration;

use sculpt_proto::{
    FieldError,
    executor::v1::{ControlResponse, Reject, control_response, reject},
};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::{
    session::{hello, state::WATCHDOG},
    store::sessions::Epoch,
};

/// What is said to an executor.
pub(super) type Responses = mpsc::Sender<Result<ControlResponse, Status>>;

/// Why a session is over.
#[derive(Debug)]
pub(super) enum End {
    /// The executor has gone, or the stream is broken.
    Gone,
    /// It is told why, and whether to come back.
    Reject(Reject),
    /// It did what no executor does.
    Fault(Status),
}

impl From<FieldError> for End {
    fn from(error: FieldError) -> Self {
        Self::Fault(error.into())
    }
}

impl End {
    /// Why, for the journal.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Gone => "its connection is gone".to_owned(),
            Self::Reject(reject) => reject.text.clone(),
            Self::Fault(status) => status.message().to_owned(),
        }
    }

    /// Says it to the executor, whose stream may be gone already.
    pub(super) async fn tell(self, out: Responses) {
        let last = match self {
            Self::Gone => return,
            Self::Reject(reject) => Ok(say(control_response::Part::Reject(reject))),
            Self::Fault(status) => Err(status),
        };
        let _ = tokio::time::timeout(WATCHDOG, out.send(last)).await;
    }

    /// A message could not be read: one that is too large or makes no sense is the executor's fault, all else the line's.
    pub(super) fn unread(status: Status) -> Self {
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Self::Fault(status),
            _ => Self::Gone,
        }
    }

    /// The controller ends.
    pub(super) fn leaving() -> Self {
        Self::Reject(hello::for_now("the controller is shutting down", Duration::from_secs(1)))
    }

    /// What the executor was told may no longer be so.
    pub(super) fn recalled() -> Self {
        let text = "the controller's database was promoted or set back; what it may lack is sent again";
        Self::Reject(hello::for_now(text, Duration::from_millis(100)))
    }

    /// A newer session has the executor.
    pub(super) fn superseded() -> Self {
        let text = "another process has connected with this executor's identity; only one may run on a data directory";
        Self::Reject(hello::permanent(reject::Code::Superseded, text))
    }

    /// Without the database there is no session: the executor keeps what it has and comes back.
    pub(super) fn broken(epoch: Epoch, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(executor = %epoch.executor, error, "the session's work in the database failed");
        Self::Reject(hello::for_now("the controller's database is out of reach", Duration::from_secs(2)))
    }
}

/// A message to an executor.
pub(super) fn say(part: control_response::Part) -> ControlResponse {
    ControlResponse { part: Some(part) }
}

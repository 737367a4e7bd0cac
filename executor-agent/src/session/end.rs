//! How a session ends, and whether the executor may come back by itself.

use std::time::Duration;

use sculpt_proto::{
    FieldError, duration,
    executor::v1::{Reject, reject},
    id::ClusterId,
};

use crate::{connect::ConnectError, identity::Standing};

/// The executor must not go on by itself.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The controller refuses this executor for good.
    #[error("the controller refused this executor: {text} ({code}); it does not come back by itself")]
    Rejected {
        /// In words.
        text: String,
        /// By name.
        code: &'static str,
        /// It may not connect: it was removed, or is not who it says. No change of its settings helps.
        barred: bool,
    },
    /// Another process has this executor's id.
    #[error(
        "another process has connected with this executor's id: {0}; end one of the two, or give one another --data-dir. If \
         you know of no other, its key was copied: `sculpt lock executor` keeps both out"
    )]
    Superseded(String),
    /// The controller belongs to another cluster than this executor's attempts.
    #[error(
        "the controller belongs to cluster {theirs}, and this executor to {ours}; point it at its own controller, or, where \
         this controller has taken that one's place, let `sculpt-executor rebind --data-dir DIR` forget the old one"
    )]
    OtherCluster {
        /// That of the data directory.
        ours: ClusterId,
        /// That of the controller.
        theirs: ClusterId,
    },
    /// The cluster could not be noted.
    #[error("could not write down which cluster this executor belongs to: {0}")]
    Note(std::io::Error),
}

/// Why a session ended without harm.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller ended the session: {} ({:?})", .0.message(), .0.code())]
    Status(#[from] tonic::Status),
    #[error("the controller closed the session")]
    Closed,
    #[error("the controller was silent for {0:?}")]
    Silent(Duration),
    #[error("the controller said something that makes no sense: {0}")]
    Nonsense(#[from] FieldError),
    #[error("the controller asks to come back in {0:?}: {1}")]
    Later(Duration, String),
    #[error("the controller does not let this executor in: {1}; it is asked again in {0:?}")]
    Barred(Duration, String),
    #[error(
        "the controller wants a newer certificate first: {1}; it is renewed now, and the controller asked again in {0:?}"
    )]
    Stale(Duration, String),
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl Ended {
    /// Hands on what it says of how we stand with the controller.
    pub(super) fn tell(&self, standing: &Standing) {
        match self {
            Self::Status(status) => standing.told(status),
            Self::Connect(error @ ConnectError::Distrust { .. }) => standing.refused(&error.to_string()),
            Self::Barred(_, why) | Self::Fatal(Fatal::Rejected { text: why, .. }) => standing.refused(why),
            Self::Stale(..) => standing.mark_stale(),
            Self::Connect(_)
            | Self::Closed
            | Self::Silent(_)
            | Self::Nonsense(_)
            | Self::Later(..)
            | Self::Fatal(Fatal::Superseded(_) | Fatal::OtherCluster { .. } | Fatal::Note(_)) => {}
        }
    }
}

/// The end that the controller asks for.
pub(super) fn rejected(reject: Reject) -> Ended {
    let code = reject.code();
    if code == reject::Code::Superseded {
        return Fatal::Superseded(reject.text).into();
    }
    let later = reject.retry_after.and_then(|span| duration(span, "reject.retry_after").ok());
    match later.map(|pause| pause.min(Duration::from_secs(300))) {
        // It is not the controller that is not ready.
        Some(pause) if matches!(code, reject::Code::Invalid | reject::Code::Barred) => {
            Ended::Barred(pause, reject.text)
        }
        Some(pause) if code == reject::Code::Renew => Ended::Stale(pause, reject.text),
        Some(pause) => Ended::Later(pause, reject.text),
        None => {
            let barred = code == reject::Code::Barred;
            Fatal::Rejected { text: reject.text, code: code.as_str_name(), barred }.into()
        }
    }
}

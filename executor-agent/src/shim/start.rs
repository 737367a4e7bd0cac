//! Starting, finding and burying shims.

use std::{io, path::Path};

use super::{
    client::{Client, ClientError},
    launch::Launch,
    record::ExitRecord,
    wire::Status,
};
use crate::spool::{self, Recovered};

/// A shim that did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or process could not be made.
    #[error("cannot {attempt}: {source}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the shim of this attempt did not come up: {text}")]
    Died {
        /// What it said last.
        text: String,
    },
    /// It does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Whether an attempt has a shim.
#[derive(Clone, Debug)]
pub enum Liveness {
    /// It answers.
    Present(Box<Status>),
    /// It is gone, or never was; with the end that it recorded.
    Absent(Option<ExitRecord>),
    /// It cannot be said now, and why: it may be stopped or very busy. Ask again.
    Unknown(String),
}

/// Writes `launch` into `attempt_dir` and starts a shim from `program` (the executor's own binary), detached; returns
/// when it answers and the agent was started (or has failed to: see its status).
pub async fn start(program: &Path, attempt_dir: &Path, launch: &Launch) -> Result<Client, StartError> {
    let _ = (program, attempt_dir, launch);
    unimplemented!()
}

/// Whether the attempt in `attempt_dir` has a living shim, by its lock, its pid with start time, and its socket.
pub async fn probe(attempt_dir: &Path) -> Liveness {
    let _ = attempt_dir;
    unimplemented!()
}

/// The end that a shim has recorded, if any.
pub fn exit_record(attempt_dir: &Path) -> io::Result<Option<ExitRecord>> {
    let _ = attempt_dir;
    unimplemented!()
}

/// What a shim that died has left.
#[derive(Clone, Copy, Debug)]
pub struct Remains {
    /// The spool to its last whole frame.
    pub spool: Recovered,
    /// Whether processes of the agent are left that could not be killed.
    pub left_over: bool,
}

/// After a shim's death: ends what is left of the agent's tree and repairs the spool. Only after [`probe`] said
/// absent without an exit record. Blocks for some seconds at most.
pub fn bury(attempt_dir: &Path) -> Result<Remains, spool::Error> {
    let _ = attempt_dir;
    unimplemented!()
}

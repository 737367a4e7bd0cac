//! The small process that owns an attempt's agent: its terminal or pipes, its process tree, its recording and the
//! record of its end. It survives the executor and everything else.

mod client;
mod launch;
mod record;
mod start;
pub mod view;
mod wire;

use std::path::Path;

pub use client::{Client, ClientError, Subscription};
pub use launch::{Launch, Mode};
pub use record::{EndedBy, ExitRecord, Outcome};
pub use start::{Liveness, Remains, StartError, bury, exit_record, probe, start};
pub use wire::{Phase, Progress, Status};

/// Names of the files in an attempt's directory that the shim reads and writes.
pub mod files {
    /// What to run: a [`super::Launch`].
    pub const LAUNCH: &str = "launch.json";
    /// The recording.
    pub const SPOOL: &str = "spool";
    /// How it ended: a [`super::ExitRecord`].
    pub const EXIT: &str = "exit.json";
    /// Which process the shim is.
    pub const SHIM: &str = "shim.json";
    /// Held by the living shim.
    pub const LOCK: &str = "shim.lock";
    /// What the shim itself had to say.
    pub const LOG: &str = "shim.log";
    /// Why the agent's program could not be run.
    pub const STAGE: &str = "stage.err";
}

/// A shim that could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Error {
    /// What was attempted.
    pub attempt: String,
    /// Why it failed.
    pub source: std::io::Error,
}

/// Entry of `sculpt-executor shim run ATTEMPT_DIR`: returns when the agent has ended, the shim has been released and
/// nobody is attached.
pub fn main(attempt_dir: &Path) -> Result<(), Error> {
    let _ = attempt_dir;
    unimplemented!()
}

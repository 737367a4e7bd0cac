//! How an attempt's agent ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the system says about the end of the main process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It never ran; why not, for people.
    NotStarted(String),
}

/// Who wanted the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The agent itself.
    Itself,
    /// A stop through the control socket.
    Stop,
    /// The launch's timeout.
    Timeout,
    /// A SIGTERM to the shim, while the host goes down.
    Host,
    /// A SIGTERM to the shim, from a person or a program.
    Signal,
    /// The attempt's directory is gone, so nothing can be recorded any more.
    Removed,
    /// The launch's lease, which nobody renewed in time.
    Lease,
}

/// The end of an attempt's agent, written once when all its output is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The attempt.
    pub attempt: Uuid,
    /// How the main process ended.
    pub outcome: Outcome,
    /// Who wanted it.
    pub ended_by: EndedBy,
    /// The kernel killed a process of it for lack of memory.
    pub out_of_memory: bool,
    /// Processes were left that could not be killed.
    pub left_over: bool,
    /// Length of the spool in bytes.
    pub log_length: u64,
    /// CLOCK_BOOTTIME at the agent's start.
    pub started: Duration,
    /// CLOCK_BOOTTIME at the end of the main process.
    pub ended: Duration,
    /// The kernel's boot id, without which the times mean nothing.
    pub boot_id: String,
}

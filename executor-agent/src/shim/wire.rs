//! What is said on a shim's sockets.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::ExitRecord;
use crate::tree::ProcessId;

/// Where the agent is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It runs.
    Running,
    /// Its tree is frozen.
    Held,
    /// Its end was asked for, or its main process has ended and the rest is being ended.
    Ending,
    /// The exit record is written.
    Ended(ExitRecord),
}

/// A shim's answer about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the control protocol that the shim speaks.
    pub version: u32,
    /// Its attempt.
    pub attempt: Uuid,
    /// The shim itself.
    pub shim: ProcessId,
    /// The agent's main process, once it was started.
    pub agent: Option<ProcessId>,
    /// Where the agent is in its life.
    pub phase: Phase,
    /// Length of the spool in bytes.
    pub log_end: u64,
    /// How many views are connected.
    pub views: u32,
    /// Why output cannot be written to disk now.
    pub blocked: Option<String>,
}

/// News of a subscription; several changes may come as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Length of the spool in bytes.
    pub log_end: u64,
    /// Where the agent is in its life.
    pub phase: Phase,
}

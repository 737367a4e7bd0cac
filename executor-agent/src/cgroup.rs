//! A cgroup per attempt, with a leaf for the agent and one for its view, in whatever hierarchies this host offers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The leaves of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The agent's tree: frozen, limited, killed.
    Agent,
    /// tmux and people's shells: only killed.
    View,
    /// The shim, so that it is outside the executor's service.
    Shim,
}

/// What an attempt may use; absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Number of tasks (threads and processes).
    pub pids: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

/// The cgroup directories of one attempt; empty where none could be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// In the v2 hierarchy: freezes and kills.
    pub unified: Option<PathBuf>,
    /// In v1 hierarchies, one each for memory, pids and cpu: limits.
    pub limits: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates what can be created for `attempt` on this host; as an ordinary user that is nothing. Blocks briefly.
    pub fn prepare(attempt: Uuid, limits: Limits) -> Self {
        let _ = (attempt, limits);
        unimplemented!()
    }

    /// The `cgroup.procs` files through which a process enters `leaf`.
    pub fn procs_files(&self, leaf: Leaf) -> Vec<PathBuf> {
        let _ = leaf;
        unimplemented!()
    }

    /// Kills everything in `leaf` at once; false when there is no hierarchy that can.
    pub fn kill(&self, leaf: Leaf) -> bool {
        let _ = leaf;
        unimplemented!()
    }

    /// Removes the directories; processes that are left keep theirs. True when all are gone.
    pub fn remove(&self) -> bool {
        unimplemented!()
    }
}

//! Process trees: who descends from whom, and ending all of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: u32,
    /// Start in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start: u64,
}

impl ProcessId {
    /// The process that has `pid` now; none when there is none or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let _ = pid;
        unimplemented!()
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Living processes that carry `SCULPT_ATTEMPT=<attempt>` in their environment, without the caller.
pub fn carriers(attempt: Uuid) -> Vec<ProcessId> {
    let _ = attempt;
    unimplemented!()
}

/// Living descendants of `pid`, without itself.
pub fn descendants(pid: u32) -> Vec<ProcessId> {
    let _ = pid;
    unimplemented!()
}

/// Ends what `list` gives, again and again until it gives nothing: TERM, `grace`, KILL. True when nothing is left.
pub fn end(list: impl Fn() -> Vec<ProcessId>, grace: Duration) -> bool {
    let _ = (list, grace);
    unimplemented!()
}

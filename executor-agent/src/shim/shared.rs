//! What the shim's threads know in common.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use uuid::Uuid;

use super::{
    launch::Launch,
    lease::Lease,
    lock,
    wire::{Phase, Progress, Said, Status, VERSION},
};
use crate::{host, tree::ProcessId};

/// What happens to the supervisor.
pub(super) enum Event {
    /// A child has changed its state.
    Child,
    /// The host wants the shim to end.
    Terminate,
    /// Somebody wants the agent to end, killed after this time at the latest.
    Stop(Duration),
    /// Freeze or thaw; the answer says why not.
    Hold(bool, mpsc::Sender<Result<(), String>>),
    /// All output is on disk.
    OutputEnded,
    /// The attempt's directory is gone.
    Removed,
    /// A reason to linger may be gone.
    Look,
}

/// The state that others ask for.
pub(super) struct Shared {
    attempt: Uuid,
    shim: ProcessId,
    state: Mutex<State>,
    changed: Condvar,
    pub(super) events: mpsc::Sender<Event>,
}

pub(super) struct State {
    pub(super) agent: Option<ProcessId>,
    pub(super) phase: Phase,
    pub(super) log_end: u64,
    pub(super) views: u32,
    pub(super) blocked: Option<String>,
    pub(super) released: bool,
    pub(super) lease: Option<Lease>,
    /// Messages that wait, and the last ones that were typed.
    pub(super) said: Vec<Said>,
    /// How many milestones were said.
    pub(super) milestones: u64,
}

impl Shared {
    pub(super) fn new(launch: &Launch, shim: ProcessId, events: mpsc::Sender<Event>) -> Self {
        let state = State {
            agent: None,
            phase: Phase::Running,
            log_end: 0,
            views: 0,
            blocked: None,
            released: false,
            lease: launch.lease,
            said: Vec::new(),
            milestones: 0,
        };
        Self { attempt: launch.attempt, shim, state: Mutex::new(state), changed: Condvar::new(), events }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and wakes who waits for a change.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    pub(super) fn tell(&self, event: Event) {
        // The supervisor is gone only when the process is about to be.
        let _ = self.events.send(event);
    }

    /// The controller is known to have heard of the executor at `confirmed`. The supervisor sees it when it looks for
    /// the end of the lease.
    pub(super) fn renew(&self, confirmed: Duration) {
        let mut state = self.state();
        state.lease = state.lease.map(|lease| lease.renewed(confirmed, host::boottime()));
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        Status {
            version: VERSION,
            attempt: self.attempt,
            shim: self.shim,
            agent: state.agent,
            phase: state.phase.clone(),
            log_end: state.log_end,
            views: state.views,
            blocked: state.blocked.clone(),
            lease: state.lease,
        }
    }

    /// How it stands, as soon as that is not `known`; none when nothing has changed for `patience`.
    pub(super) fn progress(&self, known: Option<&Progress>, patience: Duration) -> Option<Progress> {
        let same = |state: &mut State| {
            known.is_some_and(|known| {
                known.log_end == state.log_end
                    && known.phase == state.phase
                    && known.said == state.said
                    && known.milestones == state.milestones
            })
        };
        let waited = self.changed.wait_timeout_while(self.state(), patience, same);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if same(&mut state) {
            return None;
        }
        Some(Progress {
            log_end: state.log_end,
            phase: state.phase.clone(),
            said: state.said.clone(),
            milestones: state.milestones,
        })
    }
}

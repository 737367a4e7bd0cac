//! The sessions that this replica holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sculpt_proto::id::{ExecutorId, PairingId, TunnelId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    errands::{Call, Desk, Errands, Invited, errands},
    garbage::Ask,
};
use crate::store::{pairings::Guest, sessions::Epoch};

/// The sessions that this replica holds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    held: Arc<Mutex<BTreeMap<ExecutorId, Entry>>>,
    /// Counts those that began.
    begun: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    superseded: CancellationToken,
    recalled: CancellationToken,
    desk: Desk,
}

/// That a session has its executor, until a newer one does; over when dropped.
#[derive(Debug)]
pub struct Tenure {
    sessions: Sessions,
    epoch: Epoch,
    superseded: CancellationToken,
    recalled: CancellationToken,
    errands: Option<Errands>,
}

/// Why an executor does not hear that it is to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undialled {
    /// This replica does not hold its session.
    #[error("the executor is not connected at the moment, or to another replica of the controller; try again")]
    Elsewhere,
    /// Too many people wait for it.
    #[error("too many people wait for the executor to dial back at the moment; try again")]
    Busy,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The executors whose tasks this replica places.
    pub fn held(&self) -> Vec<Epoch> {
        self.lock().iter().map(|(executor, entry)| Epoch { executor: *executor, number: entry.epoch }).collect()
    }

    /// The session has the executor from now on; an older one is told to leave. One that is older itself is told so at once.
    pub fn enter(&self, epoch: Epoch) -> Tenure {
        let (superseded, recalled) = (CancellationToken::new(), CancellationToken::new());
        let (desk, errands) = errands();
        let mut held = self.lock();
        match held.get(&epoch.executor) {
            Some(entry) if entry.epoch > epoch.number => superseded.cancel(),
            Some(_) | None => {
                let (superseded, recalled) = (superseded.clone(), recalled.clone());
                let entry = Entry { epoch: epoch.number, superseded, recalled, desk };
                if let Some(older) = held.insert(epoch.executor, entry) {
                    older.superseded.cancel();
                }
            }
        }
        drop(held);
        self.begun.send_modify(|count| *count = count.wrapping_add(1));
        Tenure { sessions: self.clone(), epoch, superseded, recalled, errands: Some(errands) }
    }

    /// Ends every session; executors come back at once and say anew what they have.
    pub fn recall(&self) {
        self.lock().values().for_each(|entry| entry.recalled.cancel());
    }

    /// Puts a question to the executor; false when this replica does not hold its session, or too many wait already.
    pub fn ask(&self, executor: ExecutorId, ask: Ask) -> bool {
        self.lock().get(&executor).is_some_and(|entry| entry.desk.ask(ask))
    }

    /// Has the executor dial for a person who comes by `pairing`.
    pub fn dial(&self, executor: ExecutorId, tunnel: TunnelId, pairing: PairingId) -> Result<(), Undialled> {
        match self.lock().get(&executor) {
            None => Err(Undialled::Elsewhere),
            Some(entry) if entry.desk.dial(Call { tunnel, pairing }) => Ok(()),
            Some(_) => Err(Undialled::Busy),
        }
    }

    /// Tells the executor whom to let in, and who certifies them, if that is news to its session.
    pub fn invite(&self, executor: ExecutorId, guests: Vec<Guest>, authorities: &Arc<[String]>) {
        let desk = self.lock().get(&executor).map(|entry| entry.desk.clone());
        if let Some(desk) = desk {
            desk.invite(Invited { guests, authorities: Arc::clone(authorities) });
        }
    }

    /// Changes whenever a session begins. Register before looking which there are.
    pub fn begun(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutorId, Entry>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenure {
    /// Whose it is.
    pub fn executor(&self) -> ExecutorId {
        self.epoch.executor
    }

    /// The session's errands, once.
    pub fn take_errands(&mut self) -> Errands {
        self.errands.take().unwrap_or_else(|| errands().1)
    }

    /// Waits until a newer session has the executor.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// Waits until the session is to be begun anew.
    pub async fn recalled(&self) {
        self.recalled.cancelled().await;
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        let mut held = self.sessions.lock();
        if held.get(&self.epoch.executor).is_some_and(|entry| entry.epoch == self.epoch.number) {
            held.remove(&self.epoch.executor);
        }
    }
}

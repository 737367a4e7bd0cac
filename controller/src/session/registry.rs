//! The sessions that this replica holds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sculpt_proto::id::ExecutorId;
use tokio_util::sync::CancellationToken;

use crate::store::sessions::Epoch;

/// The sessions that this replica holds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    held: Arc<Mutex<HashMap<ExecutorId, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    superseded: CancellationToken,
}

/// A place among the sessions; left when dropped.
#[derive(Debug)]
pub struct Seat {
    sessions: Sessions,
    epoch: Epoch,
    superseded: CancellationToken,
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

    /// Takes the executor's seat; an older session is told to leave. One that is older itself is told so at once.
    pub fn enter(&self, epoch: Epoch) -> Seat {
        let superseded = CancellationToken::new();
        let mut held = self.lock();
        match held.get(&epoch.executor) {
            Some(entry) if entry.epoch > epoch.number => superseded.cancel(),
            Some(_) | None => {
                let entry = Entry { epoch: epoch.number, superseded: superseded.clone() };
                if let Some(older) = held.insert(epoch.executor, entry) {
                    older.superseded.cancel();
                }
            }
        }
        drop(held);
        Seat { sessions: self.clone(), epoch, superseded }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutorId, Entry>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until a newer session has the executor.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.sessions.lock();
        if held.get(&self.epoch.executor).is_some_and(|entry| entry.epoch == self.epoch.number) {
            held.remove(&self.epoch.executor);
        }
    }
}

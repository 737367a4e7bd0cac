//! The executors that are here, so that those are sent away that may do nothing any more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sculpt_proto::id::ExecutorId;
use tokio::sync::watch;

use crate::store::locks::Bar;

/// The executors that have a call open on this replica. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Present {
    here: Arc<Mutex<HashMap<ExecutorId, watch::Sender<Option<Bar>>>>>,
}

/// A call of an executor that is here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stay(watch::Receiver<Option<Bar>>);

impl Present {
    /// `executor` is here for as long as what is returned, and its clones. To be called before it is asked whether it may
    /// be: of a change in between it is told.
    pub fn enter(&self, executor: ExecutorId) -> Stay {
        Stay(self.here().entry(executor).or_default().subscribe())
    }

    /// Who is here.
    pub fn all(&self) -> Vec<ExecutorId> {
        let mut here = self.here();
        here.retain(|_, sender| sender.receiver_count() > 0);
        here.keys().copied().collect()
    }

    /// Ends whatever `executor` has open. Who comes again is judged anew.
    pub fn send_away(&self, executor: ExecutorId, bar: Bar) {
        if let Some(sender) = self.here().remove(&executor) {
            sender.send_replace(Some(bar));
        }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<ExecutorId, watch::Sender<Option<Bar>>>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    /// Waits until its executor is sent away.
    pub async fn over(mut self) -> Bar {
        let bar = self.0.wait_for(Option::is_some).await.ok().and_then(|bar| bar.clone());
        match bar {
            Some(bar) => bar,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_sent_away_may_come_again() {
        let present = Present::default();
        let (one, two) = (ExecutorId::fresh(), ExecutorId::fresh());
        let (control, logs, other) = (present.enter(one), present.enter(one), present.enter(two));
        present.send_away(one, Bar::Removed);
        assert_eq!((control.over().await, logs.over().await), (Bar::Removed, Bar::Removed));
        assert_eq!(present.all(), [two]);
        drop(other);
        let again = present.enter(one);
        assert_eq!(present.all(), [one]);
        present.send_away(one, Bar::Lapsed);
        assert_eq!(again.over().await, Bar::Lapsed, "what it was told before is forgotten");
    }
}

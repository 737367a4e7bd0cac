//! Signals between the parts of one replica, and between replicas by NOTIFY. They carry no truth: a lost one is repaired by a poll.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sculpt_proto::id::{AttemptId, ExecutorId, PairingId};
use tokio::sync::{Notify, broadcast, watch};

/// Signals that wait in a receiver before it is told to read everything anew.
const TELLS: usize = 1024;

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The queue or the free slots have changed.
    Place,
    /// What this executor should have has changed.
    Tell(ExecutorId),
    /// Events were written.
    Journal,
    /// This attempt's log grew or was completed.
    Log(AttemptId),
    /// Somebody may more, or less, than before.
    Access,
    /// Acts were added to the record.
    Audit,
    /// Somebody was let sit beside an agent, or is let no more.
    Guests,
    /// This pairing was taken back.
    Closed(PairingId),
}

/// The signals of one replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: watch::Sender<u64>,
    tell: broadcast::Sender<ExecutorId>,
    journal: watch::Sender<u64>,
    access: watch::Sender<u64>,
    audit: watch::Sender<u64>,
    guests: watch::Sender<u64>,
    closed: broadcast::Sender<PairingId>,
    /// Only logs that somebody follows here.
    logs: Mutex<HashMap<AttemptId, watch::Sender<u64>>>,
    outbox: Mutex<BTreeSet<Signal>>,
    bridged: AtomicBool,
    posted: Notify,
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus {
    /// A bus that nobody listens to yet.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                place: watch::Sender::new(0),
                tell: broadcast::Sender::new(TELLS),
                journal: watch::Sender::new(0),
                access: watch::Sender::new(0),
                audit: watch::Sender::new(0),
                guests: watch::Sender::new(0),
                closed: broadcast::Sender::new(TELLS),
                logs: Mutex::default(),
                outbox: Mutex::default(),
                bridged: AtomicBool::new(false),
                posted: Notify::new(),
            }),
        }
    }

    /// The queue or the free slots have changed.
    pub fn place(&self) {
        self.post(Signal::Place);
    }

    /// Changes whenever the queue may have changed. Register before reading the queue.
    pub fn placed(&self) -> watch::Receiver<u64> {
        self.inner.place.subscribe()
    }

    /// What `executor` should have has changed.
    pub fn tell(&self, executor: ExecutorId) {
        self.post(Signal::Tell(executor));
    }

    /// Whom to tell. A receiver that lagged reads everything anew.
    pub fn told(&self) -> broadcast::Receiver<ExecutorId> {
        self.inner.tell.subscribe()
    }

    /// Events were written.
    pub fn journal(&self) {
        self.post(Signal::Journal);
    }

    /// Changes whenever events were written. Register before reading the journal.
    pub fn journal_moved(&self) -> watch::Receiver<u64> {
        self.inner.journal.subscribe()
    }

    /// Somebody may more, or less, than before.
    pub fn access(&self) {
        self.post(Signal::Access);
    }

    /// Changes whenever somebody may more or less than before. Register before looking what they may.
    pub fn access_changed(&self) -> watch::Receiver<u64> {
        self.inner.access.subscribe()
    }

    /// Acts were added to the record.
    pub fn audit(&self) {
        self.post(Signal::Audit);
    }

    /// Changes whenever acts were added to the record. Register before reading it.
    pub fn audited(&self) -> watch::Receiver<u64> {
        self.inner.audit.subscribe()
    }

    /// Somebody was let sit beside an agent.
    pub fn guests(&self) {
        self.post(Signal::Guests);
    }

    /// Changes whenever somebody may have been let sit beside an agent, or is let no more. Register before looking who is.
    pub fn guests_changed(&self) -> watch::Receiver<u64> {
        self.inner.guests.subscribe()
    }

    /// This pairing was taken back.
    pub fn closed(&self, pairing: PairingId) {
        self.post(Signal::Closed(pairing));
        self.guests();
    }

    /// Which pairings are taken back. A receiver that lagged looks at its own.
    pub fn closings(&self) -> broadcast::Receiver<PairingId> {
        self.inner.closed.subscribe()
    }

    /// The log of `attempt` grew or was completed.
    pub fn log_grew(&self, attempt: AttemptId) {
        self.post(Signal::Log(attempt));
    }

    /// Changes whenever the log of `attempt` may have grown. Register before reading the log.
    pub fn subscribe_log(&self, attempt: AttemptId) -> watch::Receiver<u64> {
        let mut logs = self.logs();
        logs.retain(|_, sender| sender.receiver_count() > 0);
        logs.entry(attempt).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Sends `signal` to this replica's parts and to the bridge.
    pub fn post(&self, signal: Signal) {
        self.deliver(signal);
        if self.inner.bridged.load(Ordering::Acquire) {
            self.outbox().insert(signal);
            self.inner.posted.notify_one();
        }
    }

    /// Sends `signal` to this replica's parts only: it came from another replica.
    pub fn deliver(&self, signal: Signal) {
        let count = |n: &mut u64| *n = n.wrapping_add(1);
        match signal {
            Signal::Place => self.inner.place.send_modify(count),
            Signal::Journal => self.inner.journal.send_modify(count),
            Signal::Access => self.inner.access.send_modify(count),
            Signal::Audit => self.inner.audit.send_modify(count),
            Signal::Guests => self.inner.guests.send_modify(count),
            Signal::Closed(pairing) => {
                // Without a receiver nobody sits there through this replica.
                let _ = self.inner.closed.send(pairing);
            }
            Signal::Tell(executor) => {
                // Without a receiver there is nobody to tell.
                let _ = self.inner.tell.send(executor);
            }
            Signal::Log(attempt) => {
                if let Some(sender) = self.logs().get(&attempt) {
                    sender.send_modify(count);
                }
            }
        }
    }

    /// From now on signals are kept for [`Bus::outgoing`]; each at most once.
    pub fn bridge(&self) {
        self.inner.bridged.store(true, Ordering::Release);
    }

    /// Waits for signals that other replicas should hear of, and takes them.
    pub async fn outgoing(&self) -> BTreeSet<Signal> {
        loop {
            let taken = std::mem::take(&mut *self.outbox());
            if !taken.is_empty() {
                return taken;
            }
            self.inner.posted.notified().await;
        }
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<AttemptId, watch::Sender<u64>>> {
        self.inner.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, BTreeSet<Signal>> {
        self.inner.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

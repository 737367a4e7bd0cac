//! How far an attempt's log goes, how far it can be read, and how much of it the controller holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How far an attempt's log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// Length in bytes so far.
    pub length: u64,
    /// Nothing will be added.
    pub finished: bool,
}

/// Where the recording is damaged on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The log is whole up to this byte.
    pub at: u64,
    /// What is damaged, and where.
    pub why: String,
}

impl Break {
    /// For people.
    pub fn note(&self) -> String {
        let Self { at, why } = self;
        format!("the recording was damaged on the executor's disk, and the log is complete up to byte {at}: {why}")
    }
}

/// What is known of one log.
#[derive(Debug, Default)]
pub(super) struct LogState {
    end: watch::Sender<LogEnd>,
    broken: Mutex<Option<Break>>,
    /// None while that is not known or about to change.
    held: watch::Sender<Option<u64>>,
}

impl LogState {
    /// How far it goes and can be read.
    pub(super) fn end(&self) -> LogEnd {
        let LogEnd { length, finished } = *self.end.borrow();
        let readable = self.broken().as_ref().map_or(length, |broken| broken.at.min(length));
        LogEnd { length: readable, finished: finished || readable < length }
    }

    /// True when that is news.
    pub(super) fn set_end(&self, end: LogEnd) -> bool {
        self.end.send_replace(end) != end
    }

    /// Where it is damaged.
    pub(super) fn broken(&self) -> MutexGuard<'_, Option<Break>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It cannot be read on from there. The first break counts: nothing behind it can be given out.
    pub(super) fn break_at(&self, found: Break) {
        let mut broken = self.broken();
        if broken.as_ref().is_none_or(|known| found.at < known.at) {
            *broken = Some(found);
        }
    }

    pub(super) fn set_held(&self, bytes: Option<u64>) {
        self.held.send_replace(bytes);
    }

    /// How much of it the controller holds, as far as that is known.
    pub(super) fn held(&self) -> Option<u64> {
        *self.held.borrow()
    }

    /// The same, as soon as it is known.
    pub(super) async fn known_to_be_held(&self) -> u64 {
        let mut held = self.held.subscribe();
        // The sender lives in `self`.
        held.wait_for(Option::is_some).await.map_or(0, |held| held.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_at_its_first_break() {
        let log = LogState::default();
        assert!(log.set_end(LogEnd { length: 100, finished: false }));
        for (at, length, what) in [
            (150, 100, "behind what has been written so far"),
            (80, 80, "in the middle"),
            (90, 80, "a later one changes nothing"),
            (30, 30, "an earlier one was found when the controller had lost its tail"),
            (0, 0, "at the beginning"),
        ] {
            log.break_at(Break { at, why: String::new() });
            assert_eq!(log.end(), LogEnd { length, finished: length < 100 }, "{what}");
        }
    }
}

//! What is recorded and not yet on the headless terminal. The emulator needs many times as long for a byte as the
//! recording, and must see each: it may lag behind by so much, and beyond that the agent waits for it as for any terminal.

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Bytes that wait for the emulator, which works on as many.
const LAG: usize = 512 << 10;

/// Bytes in order, from one thread to another.
#[derive(Default)]
pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// What was taken last is being worked on.
    working: bool,
    finished: bool,
}

impl Backlog {
    /// Adds `bytes`; waits while there is no room for them.
    pub(super) fn put(&self, bytes: &[u8]) {
        let full = |state: &mut State| !state.waiting.is_empty() && state.waiting.len() + bytes.len() > LAG;
        let waited = self.changed.wait_while(lock(&self.state), full);
        waited.unwrap_or_else(PoisonError::into_inner).waiting.extend_from_slice(bytes);
        self.changed.notify_all();
    }

    /// Whether everything that was added has been worked on.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.state).is_idle()
    }

    /// Waits for bytes and exchanges them for `taken`, which is done with; false when nothing will come any more.
    pub(super) fn take(&self, taken: &mut Vec<u8>) -> bool {
        taken.clear();
        let mut state = lock(&self.state);
        state.working = false;
        if state.waiting.is_empty() {
            // What a flood took is given back.
            *taken = Vec::new();
        }
        self.changed.notify_all();
        let idle = |state: &mut State| state.waiting.is_empty() && !state.finished;
        let waited = self.changed.wait_while(state, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, taken);
        state.working = !taken.is_empty();
        self.changed.notify_all();
        state.working
    }

    /// Nothing will be added; returns when everything has been worked on.
    pub(super) fn finish(&self) {
        let mut state = lock(&self.state);
        state.finished = true;
        self.changed.notify_all();
        let busy = |state: &mut State| !state.is_idle();
        let _done = self.changed.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner);
    }
}

impl State {
    fn is_idle(&self) -> bool {
        !self.working && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn the_writer_waits_only_for_a_reader_that_is_too_far_behind() {
        let backlog = Backlog::default();
        let (told, written) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                for piece in 0..4_u8 {
                    backlog.put(&vec![piece; LAG / 2]);
                    told.send(piece).unwrap();
                }
                backlog.finish();
                told.send(9).unwrap();
            });
            let next = || written.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!((next(), next()), (0, 1), "nobody reads yet");
            assert!(written.recv_timeout(Duration::from_millis(100)).is_err(), "the rest has no room");
            let (mut taken, mut all) = (Vec::new(), Vec::new());
            while backlog.take(&mut taken) {
                assert!(taken.len() <= LAG && !backlog.is_idle());
                all.extend_from_slice(&taken);
                assert!(!written.try_iter().any(|told| told == 9), "this is being worked on");
            }
            let expected: Vec<u8> = (0..4).flat_map(|piece| vec![piece; LAG / 2]).collect();
            assert!(all == expected && backlog.is_idle(), "{} bytes", all.len());
            assert!(written.iter().take(3).any(|told| told == 9));
        });
    }
}

//! What peers send into channels, between its receipt and its taking. A channel's window is given back as its data is taken, so
//! that a program which reads nothing holds back its own channel and no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use russh::{ChannelId, server::Handle};
use tokio::sync::Notify;

/// How much of what it has sent a peer may have in a channel that nobody has taken: all that a channel holds.
pub(super) const WINDOW: u32 = 1 << 20;

/// What is taken at once.
const PIECE: usize = 32 * 1024;

/// The window is given back in parts of at least this size: small enough that a peer far away never waits, large enough that
/// few messages are spent on it.
const GIVES_BACK: u32 = WINDOW / 8;

/// The channels of a connection that take something.
#[derive(Clone, Debug, Default)]
pub(super) struct Intakes(Arc<Mutex<HashMap<ChannelId, Arc<Inbox>>>>);

/// A channel's data that was not taken yet.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    /// For the one who takes.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: BytesMut,
    /// Nothing more comes.
    ended: bool,
    /// Taken, and not given back to the window.
    owed: u32,
}

/// Where one channel's data is taken. Who drops it wants no more of it.
#[derive(Debug)]
pub(super) struct Intake {
    channel: ChannelId,
    inbox: Arc<Inbox>,
    all: Intakes,
    handle: Handle,
}

impl Intakes {
    /// Begins to hold what comes on a channel, if that has not begun.
    pub(super) fn open(&self, channel: ChannelId) {
        self.inbox(channel);
    }

    /// Takes a channel's data from now on, and what was held before.
    pub(super) fn take(&self, channel: ChannelId, handle: Handle) -> Intake {
        Intake { channel, inbox: self.inbox(channel), all: self.clone(), handle }
    }

    /// Something was received. It is within the window: a connection ends whose peer goes beyond.
    pub(super) fn received(&self, channel: ChannelId, data: &[u8]) {
        self.tell(channel, |state| state.held.extend_from_slice(data));
    }

    /// Nothing more is received on a channel.
    pub(super) fn ended(&self, channel: ChannelId) {
        self.tell(channel, |state| state.ended = true);
    }

    fn tell(&self, channel: ChannelId, what: impl FnOnce(&mut State)) {
        // Who has left a channel misses nothing.
        let inbox = lock(&self.0).get(&channel).cloned();
        if let Some(inbox) = inbox {
            what(&mut lock(&inbox.state));
            inbox.changed.notify_one();
        }
    }

    fn inbox(&self, channel: ChannelId) -> Arc<Inbox> {
        Arc::clone(lock(&self.0).entry(channel).or_default())
    }
}

impl Intake {
    /// The next piece, once there is one; none at the end. A piece that is taken makes room for another.
    pub(super) async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let (piece, due) = lock(&self.inbox.state).piece();
            if due > 0 {
                // Without a connection there is nobody to tell.
                let _gone = self.handle.adjust_window(self.channel, due);
            }
            match piece {
                Piece::Some(piece) => return Some(piece),
                Piece::Last => return None,
                Piece::Later => self.inbox.changed.notified().await,
            }
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.channel);
    }
}

#[derive(Debug, PartialEq)]
enum Piece {
    Some(Bytes),
    Last,
    Later,
}

impl State {
    /// What comes next, and how much of the window is due.
    fn piece(&mut self) -> (Piece, u32) {
        if self.held.is_empty() {
            return (if self.ended { Piece::Last } else { Piece::Later }, 0);
        }
        let piece = self.held.split_to(self.held.len().min(PIECE)).freeze();
        // No more than the window is ever held.
        self.owed += u32::try_from(piece.len()).unwrap_or(WINDOW);
        let due = if self.owed >= GIVES_BACK && !self.ended { std::mem::take(&mut self.owed) } else { 0 };
        (Piece::Some(piece), due)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_given_back_as_its_data_is_taken() {
        let mut state = State::default();
        assert_eq!(state.piece(), (Piece::Later, 0));
        let sent: Vec<u8> = (0..WINDOW).map(|n| (n % 251) as u8).collect();
        state.held.extend_from_slice(&sent);
        let (mut taken, mut given) = (Vec::new(), 0);
        while let (Piece::Some(piece), due) = state.piece() {
            assert!(piece.len() <= PIECE);
            taken.extend_from_slice(&piece);
            given += due;
            assert!(taken.len() as u32 - given < GIVES_BACK && given <= taken.len() as u32);
        }
        assert!(taken == sent && given == WINDOW);
        // What is small waits for more, and the end needs no window.
        state.held.extend_from_slice(b"last");
        state.ended = true;
        assert_eq!(state.piece(), (Piece::Some(Bytes::from_static(b"last")), 0));
        assert_eq!(state.piece(), (Piece::Last, 0));
    }
}

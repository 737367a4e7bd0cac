//! The two ends of a tunnel.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that wait for a reader, each at most [`LARGEST`]: more wait in the network, at whoever sends them.
const WAITING: usize = 4;

/// Largest piece, in bytes.
pub(super) const LARGEST: usize = 64 << 10;

/// What goes through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, in order.
    Data(Bytes),
    /// Nothing more comes from that side; the other one goes on.
    End,
}

/// One end. When it is dropped the other one is told, and ends, too.
#[derive(Debug)]
pub struct End {
    /// What the other side sends. None: the other side has gone.
    pub(super) from: mpsc::Receiver<Piece>,
    /// What the other side is to get; waits as long as that does not read.
    pub(super) to: mpsc::Sender<Piece>,
    /// What is said at this end when the other one goes without a word.
    pub(super) alone: &'static str,
}

/// Two ends of one tunnel: the person's and the executor's.
pub(super) fn pair() -> (End, End) {
    let ((to_far, from_near), (to_near, from_far)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
    let person = End {
        from: from_far,
        to: to_far,
        alone: "the executor's end of the tunnel broke off; what runs there goes on: connect again",
    };
    let executor = End { from: from_near, to: to_near, alone: "the person's end of the tunnel broke off" };
    (person, executor)
}

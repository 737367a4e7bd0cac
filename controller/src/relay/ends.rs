//! The two ends of a tunnel.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that wait for a reader, each at most 64 KiB: more wait in the network, at whoever sends them.
const WAITING: usize = 4;

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
    pub from: mpsc::Receiver<Piece>,
    /// What the other side is to get; waits as long as that does not read.
    pub to: mpsc::Sender<Piece>,
}

/// Two ends of one tunnel.
pub(super) fn pair() -> (End, End) {
    let ((to_far, from_near), (to_near, from_far)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
    (End { from: from_far, to: to_far }, End { from: from_near, to: to_near })
}

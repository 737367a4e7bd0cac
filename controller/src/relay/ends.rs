//! The two ends of a tunnel.

use bytes::Bytes;
use sculpt_proto::FieldError;
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

/// Who is left at an end whose other one went without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alone {
    /// The person.
    #[error("the executor's end of the tunnel broke off; what runs there goes on: connect again")]
    Person,
    /// The executor.
    #[error("the person's end of the tunnel broke off")]
    Executor,
}

impl Piece {
    /// Bytes of a message, unless they are too many.
    pub fn data(bytes: Bytes) -> Result<Self, FieldError> {
        if bytes.len() > LARGEST {
            let text = format!("has {} bytes; at most {LARGEST} are taken", bytes.len());
            return Err(FieldError::new("data", text));
        }
        Ok(Self::Data(bytes))
    }

    /// What is wrong with a message that names a tunnel once it is open.
    pub fn named_again() -> FieldError {
        FieldError::new("part", "names a tunnel that is open already")
    }
}

/// One end. When it is dropped the other one is told, and ends, too.
#[derive(Debug)]
pub struct End {
    /// What the other side sends. None: the other side has gone.
    pub(super) from: mpsc::Receiver<Piece>,
    /// What the other side is to get; waits as long as that does not read.
    pub(super) to: mpsc::Sender<Piece>,
    /// Who is here.
    pub(super) alone: Alone,
}

/// Two ends of one tunnel: the person's and the executor's.
pub(super) fn pair() -> (End, End) {
    let ((to_far, from_near), (to_near, from_far)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
    let person = End { from: from_far, to: to_far, alone: Alone::Person };
    (person, End { from: from_near, to: to_near, alone: Alone::Executor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_no_larger_than_the_largest() {
        let data = |length: usize| Piece::data(vec![7; length].into());
        assert_eq!(data(LARGEST), Ok(Piece::Data(vec![7; LARGEST].into())));
        assert_eq!(data(LARGEST + 1).unwrap_err().field, "data");
    }
}

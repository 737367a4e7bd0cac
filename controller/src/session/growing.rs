//! One log in the middle of a batch of appends.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use sculpt_proto::{executor::v1::log_refusal::Code, id::AttemptId, v1::LogFrame};

use crate::{
    session::{frames, held::HeldError},
    store::logs::{Chunk, Extent},
};

/// Largest row, in bytes.
const ROW: usize = 256 << 10;

/// A checked append.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// To whose log.
    pub attempt: AttemptId,
    /// Offset of its first byte.
    pub start: u64,
    /// The bytes.
    pub data: Bytes,
    /// What they are made of.
    pub frames: Vec<LogFrame>,
}

/// What is held of logs, to compare appends with.
pub trait Held: Send {
    /// The held bytes from `from` up to `to`.
    fn bytes(
        &mut self,
        attempt: AttemptId,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Vec<u8>, HeldError>> + Send;
}

/// What becomes of one log in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is held ends here.
    Stands(u64),
    /// Nothing of it was taken.
    Refused(Code, String),
}

/// A row to be.
#[derive(Debug, Default)]
struct Row {
    start: u64,
    data: BytesMut,
    frames: Vec<LogFrame>,
}

impl From<Row> for Chunk {
    fn from(row: Row) -> Self {
        Self { start: row.start, data: row.data.freeze(), frames: frames::encode(&row.frames) }
    }
}

/// One log in the middle of a batch.
#[derive(Debug)]
pub(super) struct Growing {
    /// What stands in the database.
    held: u64,
    end: u64,
    final_length: Option<u64>,
    rows: Vec<Row>,
    refused: Option<String>,
}

impl Growing {
    /// A log as it stands before the batch.
    pub(super) fn new(extent: Extent) -> Self {
        Self { held: extent.end, end: extent.end, final_length: extent.final_length, rows: Vec::new(), refused: None }
    }

    /// What is to be added, in order.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = Chunk> {
        self.rows.into_iter().map(Chunk::from)
    }

    /// What to answer.
    pub(super) fn verdict(&self) -> Verdict {
        match &self.refused {
            Some(text) => Verdict::Refused(Code::Differs, text.clone()),
            None => Verdict::Stands(self.end),
        }
    }

    /// Takes what `piece` adds, or finds that it does not fit.
    pub(super) async fn take(&mut self, held: &mut impl Held, piece: Piece) -> Result<(), HeldError> {
        let length = piece.data.len() as u64;
        let known = match place(self.end, piece.start, length) {
            Place::Above => return Ok(()),
            Place::Held => length,
            Place::Adds { known } => known,
        };
        if known > 0 && !self.agrees(held, &piece, known).await? {
            let text = format!("the bytes from offset {} differ from those that are held", piece.start);
            self.refused.get_or_insert(text);
            return Ok(());
        }
        if known == length || self.refused.is_some() {
            return Ok(());
        }
        if let Some(last) = self.final_length
            && piece.start + length > last
        {
            self.refused = Some(format!("the log was said to end at {last}, but bytes follow"));
            return Ok(());
        }
        let frames = frames::cut(&piece.frames, known, length - known);
        let data = piece.data.slice(usize::try_from(known).unwrap_or(usize::MAX)..);
        match self.rows.last_mut() {
            Some(row) if row.data.len() + data.len() <= ROW => {
                row.data.extend_from_slice(&data);
                row.frames.extend(frames);
            }
            Some(_) | None => self.rows.push(Row { start: self.end, data: BytesMut::from(data.as_ref()), frames }),
        }
        self.end += data.len() as u64;
        Ok(())
    }

    /// Whether the first `known` bytes of `piece` are those that are held, in the database or in this batch.
    async fn agrees(&self, held: &mut impl Held, piece: &Piece, known: u64) -> Result<bool, HeldError> {
        let (from, to) = (piece.start, piece.start + known);
        let mut expected = Vec::new();
        if from < self.held {
            expected = held.bytes(piece.attempt, from, to.min(self.held)).await?;
        }
        for row in &self.rows {
            let (start, end) = (row.start.max(from), (row.start + row.data.len() as u64).min(to));
            if start < end {
                let offset = |at: u64| usize::try_from(at - row.start).unwrap_or(usize::MAX);
                expected.extend_from_slice(&row.data[offset(start)..offset(end)]);
            }
        }
        Ok(piece.data.starts_with(&expected) && expected.len() as u64 == known)
    }
}

/// Where an append stands against the end of what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It adds bytes from this many of its own on; those before are held already.
    Adds { known: u64 },
    /// It adds nothing: all of it is held already, or it asks where the end is.
    Held,
    /// It starts above the end.
    Above,
}

fn place(end: u64, start: u64, length: u64) -> Place {
    match end.checked_sub(start) {
        None => Place::Above,
        Some(known) if known >= length => Place::Held,
        Some(known) => Place::Adds { known },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sculpt_proto::v1::LogSize;

    use super::*;

    /// No append of a test reaches below what its own batch holds.
    struct Nothing;

    impl Held for Nothing {
        async fn bytes(&mut self, _: AttemptId, from: u64, to: u64) -> Result<Vec<u8>, HeldError> {
            panic!("nobody holds the bytes from {from} to {to}");
        }
    }

    /// A log of `x` whose terminal changed its size at some bytes.
    fn recorded() -> Vec<LogFrame> {
        let frame = |length, columns| {
            let size = (columns > 0).then_some(LogSize { columns, rows: 50 });
            LogFrame { length, stream: 1, time_ms: 7, size }
        };
        vec![frame(3, 200), frame(4, 0), frame(1, 80), frame(2, 81), frame(5, 0), frame(5, 80)]
    }

    /// Where the terminal changed its size, and to how many columns.
    fn sizes(start: u64, frames: &[LogFrame]) -> Vec<(u64, u32)> {
        let mut at = start;
        let mut sizes = Vec::new();
        for frame in frames {
            sizes.extend(frame.size.map(|size| (at, size.columns)));
            at += u64::from(frame.length);
        }
        sizes
    }

    proptest! {
        #[test]
        fn a_size_is_held_once_however_its_bytes_are_sent(sent in prop::collection::vec((0_u64..20, 1_u64..9), 0..60)) {
            let (frames, attempt) = (recorded(), AttemptId::fresh());
            let mut log = Growing::new(Extent { fenced: false, end: 0, final_length: None });
            // The last makes it whole.
            for (start, length) in sent.into_iter().chain([(0, 20)]) {
                let length = length.min(20 - start);
                let data = Bytes::from(vec![b'x'; usize::try_from(length).unwrap()]);
                let piece = Piece { attempt, start, data, frames: frames::cut(&frames, start, length) };
                let taken = tokio::runtime::Builder::new_current_thread().build().unwrap();
                taken.block_on(log.take(&mut Nothing, piece)).unwrap();
            }
            prop_assert_eq!(log.verdict(), Verdict::Stands(20));
            let held = log.into_chunks().flat_map(|chunk| sizes(chunk.start, &frames::decode(&chunk.frames).unwrap()));
            prop_assert_eq!(held.collect::<Vec<_>>(), sizes(0, &frames));
        }
    }

    #[test]
    fn an_append_is_placed_against_the_end() {
        for (end, start, length, expected) in [
            (0, 0, 5, Place::Adds { known: 0 }),
            (5, 5, 5, Place::Adds { known: 0 }),
            (5, 3, 5, Place::Adds { known: 2 }),
            (5, 0, 5, Place::Held),
            (5, 1, 2, Place::Held),
            (5, 5, 0, Place::Held),
            (5, 6, 0, Place::Above),
            (5, 6, 1, Place::Above),
            (0, u64::MAX, 0, Place::Above),
        ] {
            assert_eq!(place(end, start, length), expected, "end {end}, start {start}, length {length}");
        }
    }
}

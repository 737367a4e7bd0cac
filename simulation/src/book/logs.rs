//! Logs, kept as `session::shelf` of the controller does in the database.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use sculpt_controller::{
    session::{
        growing::{Held, Piece, Verdict},
        held::HeldError,
        shelf::{Shelf, ShelfError, grow},
    },
    store::{logs::Extent, sessions::Epoch},
};
use sculpt_proto::id::AttemptId;

use super::{Book, rows::Rows};
use crate::guard::Guard;

impl Shelf for Book {
    async fn put(&self, epoch: Epoch, pieces: Vec<Piece>) -> Result<BTreeMap<AttemptId, Verdict>, ShelfError> {
        let witness = self.witness.clone();
        let anywhere = self.world.lacks(Guard::Offset);
        let put = self.transact(move |rows| {
            let put = if anywhere { put_anywhere(rows, pieces) } else { put(rows, epoch, pieces) };
            put.inspect(|_| {
                witness.wrote(rows, epoch);
                witness.logged(rows);
            })
        });
        let (verdicts, released) = put.await??;
        if released {
            self.bus.tell(epoch.executor);
        }
        self.world.tell(format_args!("book: appended {verdicts:?}"));
        Ok(verdicts)
    }
}

type Put = (BTreeMap<AttemptId, Verdict>, bool);

fn put(rows: &mut Rows, epoch: Epoch, pieces: Vec<Piece>) -> Result<Put, ShelfError> {
    if !rows.holds(epoch) {
        return Err(ShelfError::Superseded);
    }
    let named = pieces.iter().map(|piece| piece.attempt);
    let extents: BTreeMap<AttemptId, Extent> = named
        .filter_map(|attempt| {
            let row = rows.attempts.get(&attempt).filter(|row| row.attempt.executor == epoch.executor.0)?;
            let extent = Extent { fenced: row.fenced, end: row.log.len() as u64, final_length: row.log_final };
            Some((attempt, extent))
        })
        .collect();
    // Nothing in it waits: what is held is in memory.
    let grown = grow(&extents, pieces, &mut InMemory(rows)).now_or_never();
    let Some(grown) = grown.transpose()? else { return Err(ShelfError::Superseded) };
    let mut released = false;
    for (attempt, chunk) in grown.chunks {
        if let Some(row) = rows.attempts.get_mut(&attempt) {
            row.log.extend_from_slice(&chunk.data);
            released |= row.release_complete();
        }
    }
    Ok((grown.verdicts, released))
}

/// Without a look at the offset.
fn put_anywhere(rows: &mut Rows, pieces: Vec<Piece>) -> Result<Put, ShelfError> {
    let mut verdicts = BTreeMap::new();
    for piece in pieces {
        if let Some(row) = rows.attempts.get_mut(&piece.attempt) {
            row.log.extend_from_slice(&piece.data);
            verdicts.insert(piece.attempt, Verdict::Stands(row.log.len() as u64));
        }
    }
    Ok((verdicts, false))
}

struct InMemory<'a>(&'a Rows);

impl Held for InMemory<'_> {
    async fn bytes(&mut self, attempt: AttemptId, from: u64, to: u64) -> Result<Vec<u8>, HeldError> {
        let held = self
            .0
            .attempts
            .get(&attempt)
            .and_then(|row| row.log.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?));
        held.map(<[u8]>::to_vec).ok_or(HeldError::Hole { attempt, at: from })
    }
}

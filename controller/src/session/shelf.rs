//! Where appends go: many of them in one transaction, checked against epoch, fence and what is held.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use sculpt_proto::{executor::v1::log_refusal::Code, id::AttemptId};

use crate::{
    blobs::{BlobError, Blobs},
    dispatch::Dispatch,
    session::{
        growing::{Growing, Held, Piece, Verdict},
        held::{HeldError, HeldLog},
    },
    store::{
        Connection, StoreError, attempts,
        logs::{self, Chunk, Extent},
        sessions::{self, Epoch},
    },
};

/// Why bytes cannot be taken now.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// A newer session has this executor.
    #[error("a newer session has this executor")]
    Superseded,
    /// The database did not take them.
    #[error("append to logs in the database")]
    Store(#[from] StoreError),
    /// They wait on their executor's disk, unacknowledged.
    #[error("there is no room for logs")]
    Full(#[source] BlobError),
    /// What is held cannot be read.
    #[error("compare with what is held")]
    Held(#[from] HeldError),
}

/// Where logs are kept, as their sessions use it. The simulation has another one.
pub trait Shelf: Clone + Send + Sync + 'static {
    /// Takes `pieces` in one transaction, wakes those who follow, and says what to answer.
    fn put(
        &self,
        epoch: Epoch,
        pieces: Vec<Piece>,
    ) -> impl Future<Output = Result<BTreeMap<AttemptId, Verdict>, ShelfError>> + Send;
}

/// Logs in the database and in the blob store.
#[derive(Clone, Debug)]
pub struct StoredLogs {
    /// Moves tasks.
    pub dispatch: Dispatch,
    /// Holds what is sealed.
    pub blobs: Blobs,
}

impl Shelf for StoredLogs {
    async fn put(&self, epoch: Epoch, pieces: Vec<Piece>) -> Result<BTreeMap<AttemptId, Verdict>, ShelfError> {
        self.blobs.has_room().map_err(ShelfError::Full)?;
        let blobs = self.blobs.clone();
        let work = self.dispatch.store().write(move |conn| Box::pin(put_in(conn, blobs, epoch, pieces)));
        let (verdicts, grown, released) = work.await?;
        for attempt in grown {
            self.dispatch.bus().log_grew(attempt);
        }
        if released {
            self.dispatch.bus().tell(epoch.executor);
        }
        Ok(verdicts)
    }
}

type Put = (BTreeMap<AttemptId, Verdict>, BTreeSet<AttemptId>, bool);

async fn put_in(conn: &mut Connection, blobs: Blobs, epoch: Epoch, pieces: Vec<Piece>) -> Result<Put, ShelfError> {
    if !sessions::holds(conn, epoch).await? {
        return Err(ShelfError::Superseded);
    }
    let named: BTreeSet<AttemptId> = pieces.iter().map(|piece| piece.attempt).collect();
    let ids: Vec<AttemptId> = named.iter().copied().collect();
    let extents = logs::lock_extents(conn, epoch.executor, &ids).await?;
    let Grown { verdicts, chunks } = grow(&extents, pieces, &mut InStore { conn, blobs: &blobs }).await?;
    logs::append(conn, &chunks).await?;
    let grown: BTreeSet<AttemptId> = chunks.iter().map(|(attempt, _)| *attempt).collect();
    let ids: Vec<AttemptId> = grown.iter().copied().collect();
    let released = attempts::release_complete(conn, &ids).await?;
    sculpt_failpoints::pass("log.before_commit");
    Ok((verdicts, grown, !released.is_empty()))
}

/// What becomes of a batch.
#[derive(Debug)]
pub struct Grown {
    /// What to answer, for each attempt that the batch names.
    pub verdicts: BTreeMap<AttemptId, Verdict>,
    /// What is to be added at the ends of logs, in order.
    pub chunks: Vec<(AttemptId, Chunk)>,
}

/// What `pieces` add to logs that stand at `extents`; one that is not among them is not known.
pub async fn grow(
    extents: &BTreeMap<AttemptId, Extent>,
    pieces: Vec<Piece>,
    held: &mut impl Held,
) -> Result<Grown, HeldError> {
    let mut logs_of: BTreeMap<AttemptId, Growing> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for attempt in pieces.iter().map(|piece| piece.attempt) {
        match extents.get(&attempt) {
            None => {
                let text = "this controller's database does not know the attempt".to_owned();
                verdicts.insert(attempt, Verdict::Refused(Code::UnknownAttempt, text));
            }
            Some(extent) if extent.fenced => {
                let text = "the task has gone on without this attempt".to_owned();
                verdicts.insert(attempt, Verdict::Refused(Code::Fenced, text));
            }
            Some(extent) => {
                logs_of.entry(attempt).or_insert_with(|| Growing::new(*extent));
            }
        }
    }
    for piece in pieces {
        if let Some(log) = logs_of.get_mut(&piece.attempt) {
            log.take(held, piece).await?;
        }
    }
    let mut chunks = Vec::new();
    for (attempt, log) in logs_of {
        verdicts.insert(attempt, log.verdict());
        chunks.extend(log.into_chunks().map(|chunk| (attempt, chunk)));
    }
    Ok(Grown { verdicts, chunks })
}

/// What the database and the blob store hold.
struct InStore<'a> {
    conn: &'a mut Connection,
    blobs: &'a Blobs,
}

impl Held for InStore<'_> {
    async fn bytes(&mut self, attempt: AttemptId, from: u64, to: u64) -> Result<Vec<u8>, HeldError> {
        HeldLog::new(self.blobs.clone(), attempt).bytes(self.conn, from, to).await
    }
}

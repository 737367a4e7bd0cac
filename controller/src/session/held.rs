//! What is held of a log: read from sealed segments and the live tail as if they were one, and sealed piece by piece.
//!
//! A segment is zstd over `sculpt.v1.LogChunk` messages in order, each preceded by its length.

use bytes::Bytes;
use prost::Message as _;
use sculpt_proto::{id::AttemptId, v1::LogChunk};

use crate::{
    blobs::{BlobError, BlobKey, Blobs},
    session::frames::{self, FrameError},
    store::{
        Connection, Store, StoreError,
        logs::{self, Chunk, Sealable, Segment},
    },
};

/// Largest piece of a log in one message to a reader, in bytes.
pub const PIECE: usize = 256 << 10;

/// What one read of the live tail brings, in bytes.
const READ: u64 = 1 << 20;

/// Raw size of a sealed segment, in bytes.
pub const SEGMENT: u64 = 4 << 20;

/// Compression level: log text compresses well at once, and sealing shares two cores with everything else.
const LEVEL: i32 = 3;

/// Why what is held of a log cannot be read or sealed.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The database.
    #[error("read a log from the database")]
    Store(#[from] StoreError),
    /// The blob store.
    #[error("read a sealed log")]
    Blob(#[from] BlobError),
    /// A segment is not what was sealed.
    #[error("the sealed log {blob} is damaged: {problem}; restore it from a backup of the blob store")]
    Damaged {
        /// Its blob.
        blob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Stored frames cannot be read.
    #[error("read the frames of a log")]
    Frames(#[from] FrameError),
    /// Rows are missing.
    #[error("the log of attempt {attempt} has a hole at offset {at}")]
    Hole {
        /// Whose log.
        attempt: AttemptId,
        /// Where.
        at: u64,
    },
}

/// Reads one log. Keeps the segment it is in.
#[derive(Debug)]
pub struct HeldLog {
    blobs: Blobs,
    attempt: AttemptId,
    open: Option<(Segment, Vec<LogChunk>)>,
}

impl HeldLog {
    /// A reader of the log of `attempt`.
    pub fn new(blobs: Blobs, attempt: AttemptId) -> Self {
        Self { blobs, attempt, open: None }
    }

    /// The pieces from `from` on, some of those that are held; none when nothing is held from there.
    pub async fn read(&mut self, conn: &mut Connection, from: u64) -> Result<Vec<LogChunk>, HeldError> {
        // A part may be sealed between the two looks; then it stands in a segment at the next one.
        for _ in 0..3 {
            if let Some(pieces) = self.sealed(conn, from).await? {
                return Ok(pieces);
            }
            let tail = logs::tail(conn, self.attempt, from, READ).await?;
            match tail.first() {
                None if logs::state(conn, self.attempt).await?.is_none_or(|state| state.end <= from) => {
                    return Ok(Vec::new());
                }
                Some(first) if first.start <= from => {
                    let mut pieces = Vec::new();
                    for chunk in tail {
                        let frames = frames::decode(&chunk.frames)?;
                        split(&LogChunk { offset: chunk.start, data: chunk.data, frames }, from, &mut pieces);
                    }
                    return Ok(pieces);
                }
                None | Some(_) => {}
            }
        }
        Err(HeldError::Hole { attempt: self.attempt, at: from })
    }

    /// The held bytes from `from` up to `to`.
    pub async fn bytes(&mut self, conn: &mut Connection, from: u64, to: u64) -> Result<Vec<u8>, HeldError> {
        let mut held = Vec::new();
        let mut at = from;
        while at < to {
            let pieces = self.read(conn, at).await?;
            if pieces.is_empty() {
                return Err(HeldError::Hole { attempt: self.attempt, at });
            }
            for piece in pieces {
                let wanted = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX);
                let data = piece.data.slice(..piece.data.len().min(wanted));
                at += data.len() as u64;
                held.extend_from_slice(&data);
            }
        }
        Ok(held)
    }

    async fn sealed(&mut self, conn: &mut Connection, from: u64) -> Result<Option<Vec<LogChunk>>, HeldError> {
        let open = match self.open.take() {
            Some(open) if (open.0.start..open.0.finish).contains(&from) => open,
            Some(_) | None => {
                let Some(segment) = logs::segment(conn, self.attempt, from).await? else { return Ok(None) };
                let chunks = open_segment(&self.blobs, &segment).await?;
                (segment, chunks)
            }
        };
        let mut pieces = Vec::new();
        for chunk in open.1.iter().filter(|chunk| chunk.offset + chunk.data.len() as u64 > from).take(64) {
            split(chunk, from, &mut pieces);
        }
        self.open = Some(open);
        Ok(Some(pieces))
    }
}

/// The parts of `chunk` from `from` on, none larger than [`PIECE`].
fn split(chunk: &LogChunk, from: u64, pieces: &mut Vec<LogChunk>) {
    let mut skip = usize::try_from(from.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
    while skip < chunk.data.len() {
        let take = (chunk.data.len() - skip).min(PIECE);
        pieces.push(LogChunk {
            offset: chunk.offset + skip as u64,
            data: chunk.data.slice(skip..skip + take),
            frames: frames::cut(&chunk.frames, skip as u64, take as u64),
        });
        skip += take;
    }
}

async fn open_segment(blobs: &Blobs, segment: &Segment) -> Result<Vec<LogChunk>, HeldError> {
    let body = blobs.get(&segment.blob.parse::<BlobKey>()?).await?;
    let damaged = |problem: String| HeldError::Damaged { blob: segment.blob.clone(), problem };
    let unpacked = tokio::task::spawn_blocking(move || zstd::decode_all(body.as_ref())).await;
    let mut rest = Bytes::from(unpacked.map_err(|e| damaged(e.to_string()))?.map_err(|e| damaged(e.to_string()))?);
    let mut chunks = Vec::new();
    let mut at = segment.start;
    while !rest.is_empty() {
        let chunk = LogChunk::decode_length_delimited(&mut rest).map_err(|error| damaged(error.to_string()))?;
        if chunk.offset != at {
            return Err(damaged(format!("offset {} where {at} should be", chunk.offset)));
        }
        at += chunk.data.len() as u64;
        chunks.push(chunk);
    }
    if at != segment.finish {
        return Err(damaged(format!("ends at {at} instead of {}", segment.finish)));
    }
    Ok(chunks)
}

/// Seals the next part of a log: about [`SEGMENT`] bytes, or all that is left of one that is closed. Returns the offset
/// that everything below of is sealed now; `None` when there is nothing to seal or another replica was first.
pub async fn seal_next(store: &Store, blobs: &Blobs, log: Sealable) -> Result<Option<u64>, HeldError> {
    let mut conn = store.read().await?;
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut at = log.sealed;
    while at < log.end && at - log.sealed < SEGMENT {
        let more = logs::tail(&mut conn, log.attempt, at, READ).await?;
        if more.first().is_none_or(|first| first.start != at) {
            return Ok(None);
        }
        at = more.last().map_or(at, Chunk::end);
        chunks.extend(more);
    }
    if chunks.is_empty() || (at - log.sealed < SEGMENT && !log.closed) {
        return Ok(None);
    }
    let packed = tokio::task::spawn_blocking(move || pack(chunks)).await;
    let packed = packed.map_err(|error| HeldError::Damaged { blob: String::new(), problem: error.to_string() })??;
    // Its own name: two replicas that seal the same part must not write over each other's end.
    let key: BlobKey = format!("logs/{}/{:020}-{}.zst", log.attempt, log.sealed, uuid::Uuid::now_v7()).parse()?;
    let segment = Segment { start: log.sealed, finish: at, blob: key.to_string() };
    logs::announce_blob(&mut conn, &segment.blob).await?;
    drop(conn);
    blobs.put(&key, packed).await?;
    let attempt = log.attempt;
    let sealed = store.write(move |conn| Box::pin(async move { logs::seal(conn, attempt, &segment).await })).await?;
    Ok(sealed.then_some(at))
}

fn pack(chunks: Vec<Chunk>) -> Result<Vec<u8>, HeldError> {
    let mut body = Vec::new();
    for chunk in chunks {
        let frames = frames::decode(&chunk.frames)?;
        let message = LogChunk { offset: chunk.start, data: chunk.data, frames };
        body.extend(message.encode_length_delimited_to_vec());
    }
    zstd::encode_all(body.as_slice(), LEVEL)
        .map_err(|error| HeldError::Damaged { blob: String::new(), problem: error.to_string() })
}

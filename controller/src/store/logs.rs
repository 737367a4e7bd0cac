//! Logs: the live tail in rows, older parts sealed in blobs. What frames look like inside is not known here.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use sculpt_proto::id::{AttemptId, ExecutorId};
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    access::{On, Read},
    store::{Connection, StoreError, Time},
};

/// A log under its attempt's lock. Lengths and offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The task was taken from its attempt.
    pub fenced: bool,
    /// What is held.
    pub end: u64,
    /// What the executor said its length is.
    pub final_length: Option<u64>,
}

/// Locks the logs of those of `attempts` that `executor` has.
pub async fn lock_extents(
    conn: &mut Connection,
    executor: ExecutorId,
    attempts: &[AttemptId],
) -> Result<BTreeMap<AttemptId, Extent>, StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    let rows = sqlx::query(
        "SELECT id, fenced_at IS NOT NULL AS fenced, log_bytes, log_final FROM attempts \
         WHERE id = ANY ($1) AND executor_id = $2 ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(ids)
    .bind(executor.0)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let extent = Extent {
                fenced: row.try_get("fenced")?,
                end: row.try_get::<i64, _>("log_bytes")?.unsigned_abs(),
                final_length: row.try_get::<Option<i64>, _>("log_final")?.map(i64::unsigned_abs),
            };
            Ok((AttemptId(row.try_get("id")?), extent))
        })
        .collect()
}

/// A run of a log's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of its first byte.
    pub start: u64,
    /// Its bytes.
    pub data: Bytes,
    /// Its frames, encoded.
    pub frames: Vec<u8>,
}

impl Chunk {
    /// The offset after its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

/// Adds chunks at the ends of logs whose attempts are locked, and moves the ends.
pub async fn append(conn: &mut Connection, chunks: &[(AttemptId, Chunk)]) -> Result<(), StoreError> {
    if chunks.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = chunks.iter().map(|(attempt, _)| attempt.0).collect();
    let starts: Vec<i64> = chunks.iter().map(|(_, chunk)| signed(chunk.start)).collect();
    let data: Vec<&[u8]> = chunks.iter().map(|(_, chunk)| chunk.data.as_ref()).collect();
    let frames: Vec<&[u8]> = chunks.iter().map(|(_, chunk)| chunk.frames.as_slice()).collect();
    sqlx::query(
        "INSERT INTO log_chunks (attempt_id, start, data, frames) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[])",
    )
    .bind(ids)
    .bind(starts)
    .bind(data)
    .bind(frames)
    .execute(&mut *conn)
    .await?;
    let mut ends: BTreeMap<Uuid, i64> = BTreeMap::new();
    for (attempt, chunk) in chunks {
        let end = ends.entry(attempt.0).or_default();
        *end = (*end).max(signed(chunk.end()));
    }
    let (ids, ends): (Vec<Uuid>, Vec<i64>) = ends.into_iter().unzip();
    sqlx::query(
        "UPDATE attempts a SET log_bytes = n.log_bytes FROM unnest($1::uuid[], $2::bigint[]) AS n (id, log_bytes) \
         WHERE a.id = n.id",
    )
    .bind(ids)
    .bind(ends)
    .execute(conn)
    .await?;
    Ok(())
}

/// Chunks of the live tail from the one that holds `from`, in order, of about `limit` bytes together.
pub async fn tail(conn: &mut Connection, attempt: AttemptId, from: u64, limit: u64) -> Result<Vec<Chunk>, StoreError> {
    let rows = sqlx::query(
        "SELECT start, data, frames FROM ( \
           SELECT start, data, frames, sum(octet_length(data)) OVER (ORDER BY start) - octet_length(data) AS before \
           FROM log_chunks WHERE attempt_id = $1 AND start >= COALESCE( \
             (SELECT max(start) FROM log_chunks WHERE attempt_id = $1 AND start <= $2), $2) ORDER BY start LIMIT 1024) c \
         WHERE before < $3 ORDER BY start",
    )
    .bind(attempt.0)
    .bind(signed(from))
    .bind(signed(limit))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Chunk {
                start: row.try_get::<i64, _>("start")?.unsigned_abs(),
                data: Bytes::from(row.try_get::<Vec<u8>, _>("data")?),
                frames: row.try_get("frames")?,
            })
        })
        .filter(|chunk: &Result<Chunk, StoreError>| chunk.as_ref().map_or(true, |chunk| chunk.end() > from))
        .collect()
}

/// A sealed part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first byte.
    pub start: u64,
    /// The offset after its last byte.
    pub finish: u64,
    /// Its blob.
    pub blob: String,
}

/// The sealed part that holds the byte at `from`.
pub async fn segment(conn: &mut Connection, attempt: AttemptId, from: u64) -> Result<Option<Segment>, StoreError> {
    let row: Option<(i64, i64, String)> = sqlx::query_as(
        "SELECT start, finish, blob FROM log_segments WHERE attempt_id = $1 AND start <= $2 AND finish > $2",
    )
    .bind(attempt.0)
    .bind(signed(from))
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(start, finish, blob)| Segment { start: start.unsigned_abs(), finish: finish.unsigned_abs(), blob }))
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// What is held.
    pub end: u64,
    /// Everything below stands in segments.
    pub sealed: u64,
    /// The executor's final length has been reached.
    pub complete: bool,
    /// Nothing will be added: it is complete, or its attempt is fenced or released.
    pub closed: bool,
    /// When retention dropped it.
    pub dropped: Option<Time>,
}

/// Where the log of `attempt` stands.
pub async fn state(conn: &mut Connection, attempt: AttemptId) -> Result<Option<LogState>, StoreError> {
    let row = sqlx::query(
        "SELECT log_bytes, log_sealed, log_final IS NOT DISTINCT FROM log_bytes AS complete, \
         fenced_at IS NOT NULL OR released_at IS NOT NULL OR log_final IS NOT DISTINCT FROM log_bytes AS closed, \
         log_dropped_at FROM attempts WHERE id = $1",
    )
    .bind(attempt.0)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(LogState {
            end: row.try_get::<i64, _>("log_bytes")?.unsigned_abs(),
            sealed: row.try_get::<i64, _>("log_sealed")?.unsigned_abs(),
            complete: row.try_get("complete")?,
            closed: row.try_get("closed")?,
            dropped: row.try_get("log_dropped_at")?,
        })
    })
    .transpose()
}

/// The attempt of a task with this number; 0: its newest.
pub async fn attempt_of(
    conn: &mut Connection,
    by: &On<Read>,
    number: u32,
) -> Result<Option<(AttemptId, u32)>, StoreError> {
    let row: Option<(Uuid, i32)> = sqlx::query_as(
        "SELECT id, number FROM attempts WHERE task_id = $1 AND ($2 = 0 OR number = $2) ORDER BY number DESC LIMIT 1",
    )
    .bind(by.task().0)
    .bind(i32::try_from(number).unwrap_or(i32::MAX))
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(id, number)| (AttemptId(id), number.unsigned_abs())))
}

/// Whether a task may still get an attempt without a person's help; `None`: there is no such task.
pub async fn may_begin(conn: &mut Connection, by: &On<Read>) -> Result<Option<bool>, StoreError> {
    Ok(sqlx::query_scalar("SELECT next_attempt IS NOT NULL AND intent <> 'cancel' FROM tasks WHERE id = $1")
        .bind(by.task().0)
        .fetch_optional(conn)
        .await?)
}

/// A log with parts that should be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealable {
    /// Its attempt.
    pub attempt: AttemptId,
    /// Everything below is sealed.
    pub sealed: u64,
    /// What is held.
    pub end: u64,
    /// Nothing will be added.
    pub closed: bool,
}

/// Logs whose unsealed part is over `tail` bytes, and those that were closed `finished_after` ago.
pub async fn sealable(
    conn: &mut Connection,
    tail: u64,
    finished_after: Duration,
    limit: u32,
) -> Result<Vec<Sealable>, StoreError> {
    let rows: Vec<(Uuid, i64, i64, bool)> = sqlx::query_as(
        "SELECT id, log_sealed, log_bytes, closed FROM ( \
           SELECT id, log_sealed, log_bytes, (released_at IS NOT NULL OR fenced_at IS NOT NULL) \
             AND COALESCE(ended_at, fenced_at, released_at) <= clock_timestamp() - make_interval(secs => $2) AS closed \
           FROM attempts WHERE log_sealed < log_bytes) a \
         WHERE closed OR log_bytes - log_sealed > $1 ORDER BY id LIMIT $3",
    )
    .bind(signed(tail))
    .bind(finished_after.as_secs_f64())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, sealed, end, closed)| Sealable {
            attempt: AttemptId(id),
            sealed: sealed.unsigned_abs(),
            end: end.unsigned_abs(),
            closed,
        })
        .collect())
}

/// Says that `blob` is about to be written: should the writer die, it is swept as dead.
pub async fn announce_blob(conn: &mut Connection, blob: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO dead_blobs (blob) VALUES ($1) ON CONFLICT (blob) DO UPDATE SET since = clock_timestamp()")
        .bind(blob)
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets `segment` take the place of the chunks that it holds. False when another replica was first.
pub async fn seal(conn: &mut Connection, attempt: AttemptId, segment: &Segment) -> Result<bool, StoreError> {
    let moved =
        sqlx::query("UPDATE attempts SET log_sealed = $3 WHERE id = $1 AND log_sealed = $2 AND log_bytes >= $3")
            .bind(attempt.0)
            .bind(signed(segment.start))
            .bind(signed(segment.finish))
            .execute(&mut *conn)
            .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    // Swept already: the writer was away for longer than a dead blob is kept.
    let kept = sqlx::query("DELETE FROM dead_blobs WHERE blob = $1").bind(&segment.blob).execute(&mut *conn).await?;
    if kept.rows_affected() == 0 {
        return Err(StoreError::Unreadable { what: "dead_blobs.blob", value: format!("no {}", segment.blob) });
    }
    sqlx::query("INSERT INTO log_segments (attempt_id, start, finish, blob) VALUES ($1, $2, $3, $4)")
        .bind(attempt.0)
        .bind(signed(segment.start))
        .bind(signed(segment.finish))
        .bind(&segment.blob)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM log_chunks WHERE attempt_id = $1 AND start >= $2 AND start < $3")
        .bind(attempt.0)
        .bind(signed(segment.start))
        .bind(signed(segment.finish))
        .execute(conn)
        .await?;
    Ok(true)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

//! Executors as their sessions see them: identity, epoch, what they should have, when they were last heard of.

mod open;

use std::collections::{BTreeMap, BTreeSet};

use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId, TaskId};
use sqlx::Row as _;
use uuid::Uuid;

pub use self::open::{Certified, Introduction, OpenError, open};
use crate::store::{Connection, StoreError};

/// Which session may write for an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The executor.
    pub executor: ExecutorId,
    /// Raised at each connect; the newest wins.
    pub number: u64,
}

/// The id of this database's history.
pub async fn cluster_id(conn: &mut Connection) -> Result<ClusterId, StoreError> {
    Ok(ClusterId(sqlx::query_scalar("SELECT id FROM cluster").fetch_one(conn).await?))
}

/// The directory that speaks for the executor has these attempts of its, wherever they were before.
pub async fn bring(conn: &mut Connection, epoch: Epoch, attempts: &[AttemptId]) -> Result<(), StoreError> {
    let attempts: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    sqlx::query(
        "UPDATE attempts a SET directory = e.directory, last_heard = NULL FROM executors e \
         WHERE e.id = $1 AND e.epoch = $2 AND a.id IN (SELECT id FROM attempts WHERE id = ANY ($3) AND executor_id = $1 \
         AND last_heard IS NOT NULL ORDER BY id FOR UPDATE)",
    )
    .bind(epoch.executor.0)
    .bind(i64::try_from(epoch.number).unwrap_or(i64::MAX))
    .bind(attempts)
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes into the journal that the session is over, and why. False when a newer one has taken its place: then the executor
/// is not gone.
pub async fn close(conn: &mut Connection, epoch: Epoch, reason: &str) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO events (kind, executor_id, data) \
         SELECT 'executor.disconnected', id, jsonb_build_object('name', name, 'reason', $3::text) \
         FROM executors WHERE id = $1 AND epoch = $2 AND removed_at IS NULL FOR SHARE",
    )
    .bind(epoch.executor.0)
    .bind(i64::try_from(epoch.number).unwrap_or(i64::MAX))
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes an entry about an executor into the journal.
pub(super) async fn journal(
    conn: &mut Connection,
    kind: &str,
    executor: ExecutorId,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO events (kind, executor_id, data) VALUES ($1, $2, $3)")
        .bind(kind)
        .bind(executor.0)
        .bind(serde_json::json!({ "name": name }))
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether `epoch` is its executor's newest; holds off a newer one until the transaction ends.
pub async fn holds(conn: &mut Connection, epoch: Epoch) -> Result<bool, StoreError> {
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT epoch FROM executors WHERE id = $1 AND removed_at IS NULL FOR SHARE")
            .bind(epoch.executor.0)
            .fetch_optional(conn)
            .await?;
    Ok(newest.map(i64::unsigned_abs) == Some(epoch.number))
}

/// The executor was heard of now. False when a newer session has taken its place.
pub async fn seen(conn: &mut Connection, epoch: Epoch, closed: Option<&str>) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE executors SET last_seen = clock_timestamp(), liveness = 'connected', closed_reason = $3 \
         WHERE id = $1 AND epoch = $2 AND removed_at IS NULL",
    )
    .bind(epoch.executor.0)
    .bind(i64::try_from(epoch.number).unwrap_or(i64::MAX))
    .bind(closed)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes how full the executor's disk is, in bytes.
pub async fn disk(conn: &mut Connection, epoch: Epoch, used: u64, budget: u64) -> Result<(), StoreError> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query("UPDATE executors SET disk_used = $3, disk_budget = $4 WHERE id = $1 AND epoch = $2")
        .bind(epoch.executor.0)
        .bind(signed(epoch.number))
        .bind(signed(used))
        .bind(signed(budget))
        .execute(conn)
        .await?;
    Ok(())
}

/// Records which attempts the executor has that this database does not know.
pub async fn record_unknown(conn: &mut Connection, epoch: Epoch, unknown: &[AttemptId]) -> Result<(), StoreError> {
    let unknown: Vec<Uuid> = unknown.iter().map(|attempt| attempt.0).collect();
    sqlx::query("UPDATE executors SET unknown = $3 WHERE id = $1 AND epoch = $2 AND unknown IS DISTINCT FROM $3")
        .bind(epoch.executor.0)
        .bind(i64::try_from(epoch.number).unwrap_or(i64::MAX))
        .bind(unknown)
        .execute(conn)
        .await?;
    Ok(())
}

/// What is wished of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It runs.
    Run,
    /// It stands still.
    Hold,
    /// It is ended.
    Stop,
    /// It is ended and publishes nothing.
    Fence,
}

/// An attempt that an executor should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Of which task.
    pub task: TaskId,
    /// That task's number.
    pub task_number: u64,
    /// The attempt's number.
    pub number: u32,
    /// SHA-256 of its spec.
    pub digest: Vec<u8>,
    /// What it should do.
    pub phase: Phase,
    /// What people at its screen are to read.
    pub said: Said,
    /// The executor may still begin it: it has never said that it has the spec.
    pub may_begin: bool,
}

/// What is said of a task, for those who look at its agent; empty where nobody has said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// What it is for, beside its spec.
    pub intent: String,
    /// How far it has come since the attempt began.
    pub milestone: String,
}

impl Wish {
    /// Whether the executor would be told the same.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { may_begin: other.may_begin, ..self.clone() } == *other
    }
}

/// Everything that the executor should have; also what it need not keep, while a task is to go on in its workspace.
pub async fn wishes(conn: &mut Connection, executor: ExecutorId) -> Result<BTreeMap<AttemptId, Wish>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id, a.task_id, t.number AS task_number, a.number, a.spec_digest, t.intent::text, \
         a.fenced_at IS NOT NULL AS fenced, \
         a.state = 'offered' AND a.fenced_at IS NULL AND a.last_heard IS NULL AS may_begin, \
         COALESCE(t.intent_line, '') AS intent_line, COALESCE((SELECT m.text FROM milestones m WHERE m.task_id = t.id \
           AND (m.attempt = a.number OR m.attempt IS NULL AND m.said_at >= a.created_at) \
           ORDER BY m.id DESC LIMIT 1), '') AS milestone \
         FROM (SELECT id FROM attempts WHERE executor_id = $1 AND released_at IS NULL \
           UNION SELECT w.id FROM tasks k JOIN attempts w ON w.id = k.workspace_of \
           WHERE k.ended_at IS NULL AND w.executor_id = $1) held \
         JOIN attempts a ON a.id = held.id JOIN tasks t ON t.id = a.task_id",
    )
    .bind(executor.0)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let phase = match (row.try_get("fenced")?, row.try_get("intent")?) {
                (true, _) => Phase::Fence,
                (false, "cancel") => Phase::Stop,
                (false, "hold") => Phase::Hold,
                (false, _) => Phase::Run,
            };
            let wish = Wish {
                task: TaskId(row.try_get("task_id")?),
                task_number: row.try_get::<i64, _>("task_number")?.unsigned_abs(),
                number: row.try_get::<i32, _>("number")?.unsigned_abs(),
                digest: row.try_get("spec_digest")?,
                phase,
                said: Said { intent: row.try_get("intent_line")?, milestone: row.try_get("milestone")? },
                may_begin: row.try_get("may_begin")?,
            };
            Ok((AttemptId(row.try_get("id")?), wish))
        })
        .collect()
}

/// Where an attempt that an executor may have stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its task.
    pub task: TaskId,
    /// It is over.
    pub ended: bool,
    /// The task was taken from it.
    pub fenced: bool,
    /// The executor owes nothing for it any more.
    pub released: bool,
    /// The executor has said that it has the spec, or has it from another controller.
    pub begun: bool,
    /// Reports applied, 1 to this.
    pub reports: u64,
    /// It went to the directory that speaks for the executor now, or to none yet.
    pub here: bool,
}

/// Where the attempts of `executor` stand that are not released or are among `named`.
pub async fn standings(
    conn: &mut Connection,
    executor: ExecutorId,
    named: &BTreeSet<AttemptId>,
) -> Result<BTreeMap<AttemptId, Standing>, StoreError> {
    let named: Vec<Uuid> = named.iter().map(|attempt| attempt.0).collect();
    let rows = sqlx::query(
        "SELECT id, task_id, state = 'ended' AS ended, fenced_at IS NOT NULL AS fenced, \
         released_at IS NOT NULL AS released, report_sequence, last_heard IS NULL AS here, state <> 'offered' \
         OR NOT EXISTS (SELECT FROM attempt_specs s WHERE s.attempt_id = attempts.id) AS begun \
         FROM attempts WHERE executor_id = $1 AND (released_at IS NULL OR id = ANY ($2))",
    )
    .bind(executor.0)
    .bind(named)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let standing = Standing {
                task: TaskId(row.try_get("task_id")?),
                ended: row.try_get("ended")?,
                fenced: row.try_get("fenced")?,
                released: row.try_get("released")?,
                begun: row.try_get("begun")?,
                reports: row.try_get::<i64, _>("report_sequence")?.unsigned_abs(),
                here: row.try_get("here")?,
            };
            Ok((AttemptId(row.try_get("id")?), standing))
        })
        .collect()
}

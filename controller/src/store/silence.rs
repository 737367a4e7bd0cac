//! Silence: executors and attempts of which nobody has heard for a while.

use chrono::TimeDelta;
use sculpt_core::liveness::{DEFAULT_LOST_AFTER, REPLACEMENT_MARGIN, UNREACHABLE_AFTER};
use sculpt_proto::id::{AttemptId, ExecutorId, TaskId};
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::store::{Connection, StoreError, Time};

fn interval(span: TimeDelta) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: span.num_microseconds().unwrap_or(i64::MAX) }
}

/// The clock that silence is measured by.
pub async fn clock(conn: &mut Connection) -> Result<Time, StoreError> {
    Ok(sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(conn).await?)
}

/// Marks executors that have been silent for long enough to be shown so, each with its entry in the journal; returns who
/// they are.
pub async fn mark_silent(conn: &mut Connection) -> Result<Vec<ExecutorId>, StoreError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "WITH marked AS (UPDATE executors e SET liveness = s.liveness FROM ( \
           SELECT id, (CASE WHEN last_seen < clock_timestamp() - $2 THEN 'lost' ELSE 'unreachable' END)::liveness AS liveness \
           FROM executors WHERE removed_at IS NULL AND last_seen < clock_timestamp() - $1 \
           ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) s \
         WHERE e.id = s.id AND e.liveness < s.liveness RETURNING e.id, e.name, e.liveness::text) \
         INSERT INTO events (kind, executor_id, data) \
         SELECT 'executor.' || liveness, id, jsonb_build_object('name', name) FROM marked RETURNING executor_id",
    )
    .bind(interval(UNREACHABLE_AFTER))
    .bind(interval(DEFAULT_LOST_AFTER))
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(ExecutorId).collect())
}

/// A live attempt whose liveness may have to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Who runs it.
    pub executor: ExecutorId,
}

impl From<(Uuid, Uuid, Uuid)> for Pulse {
    fn from((task, attempt, executor): (Uuid, Uuid, Uuid)) -> Self {
        Self { task: TaskId(task), attempt: AttemptId(attempt), executor: ExecutorId(executor) }
    }
}

/// Live attempts whose liveness may have to move: nobody was heard of where they are, or they are marked silent themselves,
/// or their time is up. The rules are those of `core/liveness.rs` and [`sculpt_core::task::Task::apply`], which decide.
pub async fn pulses(conn: &mut Connection, limit: u32) -> Result<Vec<Pulse>, StoreError> {
    let rows: Vec<(Uuid, Uuid, Uuid)> = sqlx::query_as(
        "SELECT p.task_id, p.id, p.executor_id FROM ( \
           SELECT a.task_id, a.id, a.executor_id, a.liveness, a.state = 'offered' AND NOT a.spec_read AS unread, \
           t.on_lost, t.intent = 'cancel' AS cancelled, GREATEST(t.lost_after, $2) AS lost_after, \
           clock_timestamp() - COALESCE(a.last_heard, e.last_seen) AS silence \
           FROM attempts a JOIN tasks t ON t.id = a.task_id AND t.attempt_id = a.id \
           JOIN executors e ON e.id = a.executor_id \
           WHERE a.state <> 'ended' AND a.fenced_at IS NULL AND a.released_at IS NULL) p \
         WHERE CASE p.liveness \
           WHEN 'connected' THEN p.silence >= $2 \
           WHEN 'unreachable' THEN p.silence < $2 OR p.silence >= p.lost_after OR p.unread \
           WHEN 'lost' THEN p.silence < p.lost_after OR p.on_lost = 'fail' \
             OR (p.on_lost = 'retry' OR p.cancelled) AND p.silence >= p.lost_after + $3 \
           END ORDER BY p.id LIMIT $1",
    )
    .bind(i64::from(limit))
    .bind(interval(UNREACHABLE_AFTER))
    .bind(interval(REPLACEMENT_MARGIN))
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Pulse::from).collect())
}

/// Live attempts of `executor` that are shown as silent, and are where it is.
pub async fn silent_attempts(conn: &mut Connection, executor: ExecutorId) -> Result<Vec<Pulse>, StoreError> {
    let rows: Vec<(Uuid, Uuid, Uuid)> = sqlx::query_as(
        "SELECT a.task_id, a.id, a.executor_id FROM attempts a JOIN tasks t ON t.id = a.task_id AND t.attempt_id = a.id \
         WHERE a.executor_id = $1 AND a.state <> 'ended' AND a.fenced_at IS NULL AND a.last_heard IS NULL \
         AND a.liveness <> 'connected'",
    )
    .bind(executor.0)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Pulse::from).collect())
}

/// When somebody was last heard of where the attempt is. Its executor's row is held until the transaction ends; it has to
/// be locked before the task's.
pub async fn last_heard(conn: &mut Connection, pulse: Pulse) -> Result<Option<Time>, StoreError> {
    let held: Option<Time> = sqlx::query_scalar("SELECT last_seen FROM executors WHERE id = $1 FOR SHARE")
        .bind(pulse.executor.0)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(last_seen) = held else { return Ok(None) };
    Ok(sqlx::query_scalar("SELECT COALESCE(last_heard, $2) FROM attempts WHERE id = $1")
        .bind(pulse.attempt.0)
        .bind(last_seen)
        .fetch_optional(conn)
        .await?)
}

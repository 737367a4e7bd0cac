//! Old logs of tasks that are over.

use std::time::Duration;

use sculpt_proto::id::AttemptId;
use uuid::Uuid;

use super::{Connection, StoreError};

/// Attempts of tasks that ended `age` ago whose logs are all sealed, or empty, and were not dropped yet.
pub async fn old_logs(conn: &mut Connection, age: Duration, limit: u32) -> Result<Vec<AttemptId>, StoreError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT a.id FROM attempts a JOIN tasks t ON t.id = a.task_id \
         WHERE a.log_dropped_at IS NULL AND a.ended_at < clock_timestamp() - make_interval(secs => $1) \
         AND t.ended_at < clock_timestamp() - make_interval(secs => $1) AND a.released_at IS NOT NULL \
         AND a.log_sealed = a.log_bytes ORDER BY a.ended_at LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(AttemptId).collect())
}

/// Drops those logs of `attempts` that are still [`old_logs`]: their blobs are deleted once nobody can be reading them.
/// Returns how many were dropped.
pub async fn drop_logs(conn: &mut Connection, attempts: &[AttemptId], age: Duration) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    // Held until the end: a task that was taken up again since its log was found keeps it, and none is meanwhile.
    let over: Vec<Uuid> = sqlx::query_scalar(
        "SELECT t.id FROM tasks t WHERE t.id IN (SELECT task_id FROM attempts WHERE id = ANY ($1)) \
         AND t.ended_at < clock_timestamp() - make_interval(secs => $2) ORDER BY t.id FOR SHARE",
    )
    .bind(&ids)
    .bind(age.as_secs_f64())
    .fetch_all(&mut *conn)
    .await?;
    let dropped: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE attempts SET log_dropped_at = clock_timestamp() WHERE id IN (SELECT id FROM attempts \
         WHERE id = ANY ($1) AND task_id = ANY ($2) AND log_dropped_at IS NULL AND released_at IS NOT NULL \
         AND log_sealed = log_bytes ORDER BY id FOR NO KEY UPDATE) RETURNING id",
    )
    .bind(ids)
    .bind(over)
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query(
        "WITH gone AS (DELETE FROM log_segments WHERE attempt_id = ANY ($1) RETURNING blob) \
         INSERT INTO dead_blobs (blob) SELECT blob FROM gone ON CONFLICT (blob) DO UPDATE SET since = clock_timestamp()",
    )
    .bind(&dropped)
    .execute(conn)
    .await?;
    Ok(dropped.len() as u64)
}

//! What is kept of an attempt beside the machines: reports, specs, remarks, the release.

use sculpt_core::{attempt::Fence, outcome::Exit};
use sculpt_proto::id::{AttemptId, ExecutorId, ProjectId, TaskId};
use sqlx::Row as _;
use uuid::Uuid;

use crate::store::{Connection, StoreError, sessions::Epoch};

/// Remarks that are kept of one attempt.
const NOTES: i32 = 100;

/// That attempt `a` goes on, and its task with it.
pub(super) const LIVES: &str = "a.state <> 'ended' AND a.fenced_at IS NULL";

/// The task of an attempt of `executor`; `None`: it is not known.
pub async fn task_of(
    conn: &mut Connection,
    attempt: AttemptId,
    executor: ExecutorId,
) -> Result<Option<TaskId>, StoreError> {
    let task: Option<Uuid> = sqlx::query_scalar("SELECT task_id FROM attempts WHERE id = $1 AND executor_id = $2")
        .bind(attempt.0)
        .bind(executor.0)
        .fetch_optional(conn)
        .await?;
    Ok(task.map(TaskId))
}

/// Whether `executor` holds an attempt of `project`.
pub async fn works_in(conn: &mut Connection, executor: ExecutorId, project: ProjectId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM attempts a JOIN tasks t ON t.id = a.task_id \
               WHERE a.executor_id = $1 AND a.released_at IS NULL AND t.project_id = $2)";
    Ok(sqlx::query_scalar(sql).bind(executor.0).bind(project.0).fetch_one(conn).await?)
}

/// The rows that reports move, under their lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Its token.
    pub fence: Fence,
    /// The task was taken from it.
    pub fenced: bool,
    /// It is over.
    pub ended: bool,
    /// Reports applied, 1 to this.
    pub through: u64,
    /// Length of the log that is held, in bytes.
    pub log_bytes: u64,
    /// What was published.
    pub head: Option<String>,
}

/// Locks the attempt's row; the task's row must be locked already.
pub async fn lock(conn: &mut Connection, attempt: AttemptId) -> Result<Option<Ledger>, StoreError> {
    let row = sqlx::query(
        "SELECT number, fenced_at IS NOT NULL AS fenced, state = 'ended' AS ended, report_sequence, log_bytes, head \
         FROM attempts WHERE id = $1 FOR UPDATE",
    )
    .bind(attempt.0)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Ledger {
            fence: Fence { number: row.try_get::<i32, _>("number")?.unsigned_abs(), id: attempt.0 },
            fenced: row.try_get("fenced")?,
            ended: row.try_get("ended")?,
            through: row.try_get::<i64, _>("report_sequence")?.unsigned_abs(),
            log_bytes: row.try_get::<i64, _>("log_bytes")?.unsigned_abs(),
            head: row.try_get("head")?,
        })
    })
    .transpose()
}

/// Reports up to `sequence` are applied.
pub async fn advance(conn: &mut Connection, attempt: AttemptId, sequence: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET report_sequence = GREATEST(report_sequence, $2) WHERE id = $1")
        .bind(attempt.0)
        .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
        .execute(conn)
        .await?;
    Ok(())
}

/// The agent runs as this process.
pub async fn set_process(
    conn: &mut Connection,
    attempt: AttemptId,
    pid: u32,
    tmux_socket: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET pid = $2, tmux_socket = $3 WHERE id = $1")
        .bind(attempt.0)
        .bind(i64::from(pid))
        .bind(tmux_socket)
        .execute(conn)
        .await?;
    Ok(())
}

/// The attempt is over: how its main process ended, and how long its log is, in bytes.
pub async fn set_end(
    conn: &mut Connection,
    attempt: AttemptId,
    exit: Option<Exit>,
    log_length: u64,
) -> Result<(), StoreError> {
    let (code, signal) = match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    sqlx::query(
        "UPDATE attempts SET log_final = $2, pid = 0, \
         exit_code = CASE WHEN $3::integer IS NULL AND $4::integer IS NULL THEN exit_code ELSE $3 END, \
         exit_signal = CASE WHEN $3::integer IS NULL AND $4::integer IS NULL THEN exit_signal ELSE $4 END WHERE id = $1",
    )
    .bind(attempt.0)
    .bind(i64::try_from(log_length).unwrap_or(i64::MAX))
    .bind(code)
    .bind(signal)
    .execute(conn)
    .await?;
    Ok(())
}

/// Fenced attempts have stopped: nothing more is owed for them.
pub async fn end_fenced(conn: &mut Connection, attempts: &[AttemptId]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    sqlx::query(
        "UPDATE attempts SET turn = NULL, ask = NULL, question = NULL, limited_until = NULL, pid = 0, \
         state = 'ended', outcome = COALESCE(outcome, 'fenced'), ended_at = COALESCE(ended_at, clock_timestamp()), \
         liveness = 'connected', silent_since = NULL, \
         released_at = COALESCE(released_at, clock_timestamp()) \
         WHERE id IN (SELECT id FROM attempts WHERE id = ANY ($1) AND fenced_at IS NOT NULL ORDER BY id FOR UPDATE)",
    )
    .bind(ids)
    .execute(conn)
    .await?;
    Ok(())
}

/// The executor no longer has the attempt and the controller ended it: what it may still say counts no more.
pub async fn disown(conn: &mut Connection, attempt: AttemptId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE attempts SET fenced_at = COALESCE(fenced_at, clock_timestamp()), liveness = 'connected', \
         silent_since = NULL, \
         released_at = COALESCE(released_at, clock_timestamp()) WHERE id = $1 AND state = 'ended'",
    )
    .bind(attempt.0)
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a remark; the oldest hundred are kept.
pub async fn add_note(conn: &mut Connection, attempt: AttemptId, text: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET notes = notes || $2::text WHERE id = $1 AND cardinality(notes) < $3")
        .bind(attempt.0)
        .bind(text)
        .bind(NOTES)
        .execute(conn)
        .await?;
    Ok(())
}

/// Releases those of `attempts` that are over and whose log is complete; returns which.
pub async fn release_complete(conn: &mut Connection, attempts: &[AttemptId]) -> Result<Vec<AttemptId>, StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    let released: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE attempts SET released_at = clock_timestamp() WHERE id = ANY ($1) AND state = 'ended' \
         AND log_final = log_bytes AND released_at IS NULL RETURNING id",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(released.into_iter().map(AttemptId).collect())
}

/// Those of `attempts` that are over are no longer on `executor`: nothing more is owed for them.
pub async fn release_gone(
    conn: &mut Connection,
    executor: ExecutorId,
    attempts: &[AttemptId],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    sqlx::query(
        "UPDATE attempts SET released_at = clock_timestamp(), liveness = 'connected', silent_since = NULL WHERE id IN (SELECT id FROM attempts \
         WHERE id = ANY ($1) AND executor_id = $2 AND state = 'ended' AND released_at IS NULL ORDER BY id FOR UPDATE)",
    )
    .bind(ids)
    .bind(executor.0)
    .execute(conn)
    .await?;
    Ok(())
}

/// The executor runs these although they were released before its session began: they are fenced, and their end is owed
/// again. What was released since then has ended after the executor said that it runs.
pub async fn take_back(conn: &mut Connection, epoch: Epoch, attempts: &[AttemptId]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    sqlx::query(
        "UPDATE attempts SET released_at = NULL, fenced_at = COALESCE(fenced_at, clock_timestamp()) \
         WHERE id IN (SELECT a.id FROM attempts a JOIN executors e ON e.id = a.executor_id \
         WHERE a.id = ANY ($1) AND e.id = $2 AND e.epoch = $3 AND a.state = 'ended' AND a.released_at < e.connected_at \
         ORDER BY a.id FOR UPDATE OF a)",
    )
    .bind(ids)
    .bind(epoch.executor.0)
    .bind(i64::try_from(epoch.number).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the encoded spec of a fresh attempt, and its SHA-256.
pub async fn keep_spec(
    conn: &mut Connection,
    attempt: AttemptId,
    spec: &[u8],
    digest: &[u8],
) -> Result<(), StoreError> {
    keep_digest(conn, attempt, digest).await?;
    sqlx::query("INSERT INTO attempt_specs (attempt_id, body) VALUES ($1, $2)")
        .bind(attempt.0)
        .bind(spec)
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps the SHA-256 of an attempt's spec.
pub async fn keep_digest(conn: &mut Connection, attempt: AttemptId, digest: &[u8]) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET spec_digest = $2 WHERE id = $1")
        .bind(attempt.0)
        .bind(digest)
        .execute(conn)
        .await?;
    Ok(())
}

/// The encoded spec of an attempt.
pub async fn spec(conn: &mut Connection, attempt: AttemptId) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("SELECT body FROM attempt_specs WHERE attempt_id = $1")
        .bind(attempt.0)
        .fetch_optional(conn)
        .await?)
}

/// Where an attempt publishes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its task.
    pub task: TaskId,
    /// Its token.
    pub fence: Fence,
    /// The task was taken from it.
    pub fenced: bool,
    /// Project and base commit; `None` without a repository.
    pub repository: Option<(Uuid, String)>,
    /// The task's branch, without `refs/heads/`.
    pub branch: String,
}

/// Where the attempt of `executor` publishes to.
pub async fn target(
    conn: &mut Connection,
    attempt: AttemptId,
    executor: ExecutorId,
) -> Result<Option<Target>, StoreError> {
    let row = sqlx::query(
        "SELECT a.task_id, a.number, a.fenced_at IS NOT NULL AS fenced, t.project_id, t.base, t.branch \
         FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE a.id = $1 AND a.executor_id = $2",
    )
    .bind(attempt.0)
    .bind(executor.0)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let project: Option<Uuid> = row.try_get("project_id")?;
        let base: Option<String> = row.try_get("base")?;
        Ok(Target {
            task: TaskId(row.try_get("task_id")?),
            fence: Fence { number: row.try_get::<i32, _>("number")?.unsigned_abs(), id: attempt.0 },
            fenced: row.try_get("fenced")?,
            repository: project.zip(base),
            branch: row.try_get("branch")?,
        })
    })
    .transpose()
}

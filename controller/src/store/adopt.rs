//! Adoptions: attempts that an executor has, this database does not know, and a person wants taken over.

use std::collections::BTreeSet;

use sculpt_core::naming;
use sculpt_proto::id::{AttemptId, ExecutorId, ProjectId, RequestId, TaskId};
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, attempts,
    audit::{self, Act},
    events::{Entry, record},
    requests::{Request, RequestError, Taken, take_request},
    sessions::Epoch,
    tasks::{self, NewTask},
};
use crate::access::{Fleet, May};

/// Adoptions of one request, and of one message to an executor; the others follow once these are done.
const LISTED: i64 = 1000;

/// The largest task number that is taken over from an executor: one that it made up must not use numbers up.
const HIGHEST_NUMBER: u64 = 1_000_000_000;

/// Numbers that are passed over one by one, so that nobody who takes one meanwhile gets it twice.
const STEPS: i64 = 10_000;

/// What became of a wished adoption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The attempt.
    pub attempt: AttemptId,
    /// Number of the task that has it.
    pub task: Option<u64>,
    /// Why none has.
    pub refusal: Option<String>,
}

impl Adoption {
    /// Whether nothing more will come.
    pub fn settled(&self) -> bool {
        self.task.is_some() || self.refusal.is_some()
    }
}

/// Where a wish stands, as the executor's session finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nobody asked for it.
    No,
    /// This person did.
    By(Asker),
    /// It was taken over before.
    Done,
    /// It was refused.
    Refused(String),
}

/// Who asked, and by which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Their name.
    pub name: String,
    /// What they asked by: one who asks again means what the executor says from then on.
    pub request: RequestId,
}

impl Store {
    /// Notes that who may tend executors wants `attempts` of `executor` taken over, or, where none is named, all that are not known; once per
    /// request.
    pub async fn want_adoptions(
        &self,
        by: May<Fleet>,
        request: Request,
        executor: ExecutorId,
        attempts: BTreeSet<AttemptId>,
    ) -> Result<(), RequestError> {
        self.write(move |conn| {
            Box::pin(async move {
                if let Taken::Fresh = take_request(conn, &request, executor.0).await? {
                    take_on(conn, executor, by.caller().name()).await?;
                    want(conn, request.id.0, executor, &attempts, by.caller().name()).await?;
                    let act = Act::new("executor.adopt", audit::executor_id(executor));
                    audit::append(conn, &by.by(), act.with(json!({ "attempts": attempts }))).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// What became of what `request` asked for.
    pub async fn adoptions(&self, _by: &May<Fleet>, request: &Request) -> Result<Vec<Adoption>, StoreError> {
        let mut conn = self.read().await?;
        let rows: Vec<(Uuid, Option<i64>, Option<String>)> = sqlx::query_as(
            "SELECT a.attempt_id, t.number, a.refusal FROM adoptions a LEFT JOIN tasks t ON t.id = a.task_id \
             WHERE a.request_id = $1 ORDER BY a.attempt_id",
        )
        .bind(request.id.0)
        .fetch_all(&mut *conn)
        .await?;
        let adoption = |(attempt, number, refusal): (Uuid, Option<i64>, Option<String>)| Adoption {
            attempt: AttemptId(attempt),
            task: number.map(i64::unsigned_abs),
            refusal,
        };
        Ok(rows.into_iter().map(adoption).collect())
    }
}

/// Whose an executor is that joined before the database was set back, nobody knows: it is whose who takes over what it has.
async fn take_on(conn: &mut Connection, executor: ExecutorId, by: &str) -> Result<(), StoreError> {
    let sql = "UPDATE executors SET owner = $2 WHERE id = $1 AND owner = ''";
    sqlx::query(sql).bind(executor.0).bind(by).execute(conn).await?;
    Ok(())
}

async fn want(
    conn: &mut Connection,
    request: Uuid,
    executor: ExecutorId,
    attempts: &BTreeSet<AttemptId>,
    by: &str,
) -> Result<(), StoreError> {
    let named: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
    // What was adopted before is answered again; what was refused is tried again.
    sqlx::query(
        "INSERT INTO adoptions AS a (executor_id, attempt_id, request_id, wanted_by, refusal) \
         SELECT e.id, w.id, $3, $4, CASE WHEN w.id = ANY (e.unknown) THEN NULL \
           ELSE 'executor ' || e.name || ' has no such attempt that this controller does not know; ' \
             || '`sculpt executor show ' || e.name || '` names those there are' END \
         FROM executors e CROSS JOIN LATERAL (SELECT DISTINCT id FROM \
           unnest(CASE WHEN cardinality($2::uuid[]) = 0 THEN e.unknown ELSE $2 END) AS u (id) ORDER BY id LIMIT $5) w \
         WHERE e.id = $1 \
         ON CONFLICT (executor_id, attempt_id) DO UPDATE SET request_id = EXCLUDED.request_id, \
           wanted_by = EXCLUDED.wanted_by, wanted_at = now(), \
           refusal = CASE WHEN a.task_id IS NULL THEN EXCLUDED.refusal END",
    )
    .bind(executor.0)
    .bind(named)
    .bind(request)
    .bind(by)
    .bind(LISTED)
    .execute(conn)
    .await?;
    Ok(())
}

/// The attempts whose specs `executor` is to hand in. One that is fulfilled is asked for again while the executor names it
/// as another cluster's: it died before it had written down whose it is.
pub async fn wanted_of(conn: &mut Connection, executor: ExecutorId) -> Result<Vec<AttemptId>, StoreError> {
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "SELECT a.attempt_id FROM adoptions a JOIN executors e ON e.id = a.executor_id AND a.attempt_id = ANY (e.unknown) \
         WHERE a.executor_id = $1 AND a.refusal IS NULL ORDER BY a.attempt_id LIMIT $2",
    )
    .bind(executor.0)
    .bind(LISTED)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(AttemptId).collect())
}

/// Whether `epoch` is its executor's newest; its row is held for a change until the transaction ends.
pub async fn hold_for_change(conn: &mut Connection, epoch: Epoch) -> Result<bool, StoreError> {
    let sql = "SELECT epoch FROM executors WHERE id = $1 AND removed_at IS NULL FOR NO KEY UPDATE";
    let newest: Option<i64> = sqlx::query_scalar(sql).bind(epoch.executor.0).fetch_optional(conn).await?;
    Ok(newest.map(i64::unsigned_abs) == Some(epoch.number))
}

/// Where the wish for `attempt` of `executor` stands.
pub async fn wanted(conn: &mut Connection, executor: ExecutorId, attempt: AttemptId) -> Result<Wanted, StoreError> {
    let row = sqlx::query(
        "SELECT wanted_by, request_id, task_id, refusal FROM adoptions WHERE executor_id = $1 AND attempt_id = $2 FOR UPDATE",
    )
    .bind(executor.0)
    .bind(attempt.0)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(Wanted::No) };
    Ok(match (row.try_get::<Option<Uuid>, _>("task_id")?, row.try_get("refusal")?) {
        (Some(_), _) => Wanted::Done,
        (None, Some(text)) => Wanted::Refused(text),
        (None, None) => {
            Wanted::By(Asker { name: row.try_get("wanted_by")?, request: RequestId(row.try_get("request_id")?) })
        }
    })
}

/// The wish is fulfilled: `task` has the attempt, whose spec has this SHA-256.
pub async fn fulfil(
    conn: &mut Connection,
    executor: ExecutorId,
    attempt: AttemptId,
    task: TaskId,
    digest: &[u8],
) -> Result<(), StoreError> {
    // The spec itself is not kept: it is never handed out again, so nobody begins it anew.
    attempts::keep_digest(conn, attempt, digest).await?;
    sqlx::query("UPDATE adoptions SET task_id = $3 WHERE executor_id = $1 AND attempt_id = $2")
        .bind(executor.0)
        .bind(attempt.0)
        .bind(task.0)
        .execute(&mut *conn)
        .await?;
    learn(conn, executor, attempt).await
}

/// The attempt of `executor` is known from now on.
pub async fn learn(conn: &mut Connection, executor: ExecutorId, attempt: AttemptId) -> Result<(), StoreError> {
    sqlx::query("UPDATE executors SET unknown = array_remove(unknown, $2) WHERE id = $1")
        .bind(executor.0)
        .bind(attempt.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// The wish that `request` noted is refused, unless it was fulfilled meanwhile. A newer one stands: it was not what was
/// answered.
pub async fn refuse(
    conn: &mut Connection,
    executor: ExecutorId,
    attempt: AttemptId,
    request: RequestId,
    why: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE adoptions SET refusal = $4 \
               WHERE executor_id = $1 AND attempt_id = $2 AND request_id = $3 AND task_id IS NULL";
    sqlx::query(sql).bind(executor.0).bind(attempt.0).bind(request.0).bind(why).execute(&mut *conn).await?;
    let data = json!({ "attempt_id": attempt, "executor_id": executor, "reason": why });
    record(conn, "attempt.adoption_refused", &Entry { data, ..Entry::default() }).await
}

/// An attempt that this database knows by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The number of its task.
    pub task: u64,
    /// Its own.
    pub number: u32,
}

/// The attempt of this id, whoever has it.
pub async fn known(conn: &mut Connection, attempt: AttemptId) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT t.number, a.number FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE a.id = $1";
    let row: Option<(i64, i32)> = sqlx::query_as(sql).bind(attempt.0).fetch_optional(conn).await?;
    Ok(row.map(|(task, number)| Known { task: task.unsigned_abs(), number: number.unsigned_abs() }))
}

/// The project of an attempt that is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedProject {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// The commit that the attempt began at.
    pub base: String,
}

/// Finds the project of an attempt, or makes it from what is said of it. The error is the reason for people.
pub async fn ensure_project(conn: &mut Connection, said: &ClaimedProject) -> Result<Result<(), String>, StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt project names'))").execute(&mut *conn).await?;
    let removed: Option<bool> = sqlx::query_scalar("SELECT removed_at IS NOT NULL FROM projects WHERE id = $1")
        .bind(said.id.0)
        .fetch_optional(&mut *conn)
        .await?;
    match removed {
        Some(false) => return Ok(Ok(())),
        Some(true) => return Ok(Err(format!("its project {} was removed from this controller", said.name))),
        None => {}
    }
    let holder: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM projects WHERE removed_at IS NULL AND (name = $1 OR root_commit = $2 AND remote = '')",
    )
    .bind(&said.name)
    .bind(&said.base)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(holder) = holder {
        return Ok(Err(format!(
            "its project {} ({}) is not the one that this controller has in its place ({holder}); \
             remove that one with `sculpt project rm`, or leave the attempt to itself",
            said.name, said.id
        )));
    }
    sqlx::query("INSERT INTO projects (id, name, root_commit, adopted) VALUES ($1, $2, $3, true)")
        .bind(said.id.0)
        .bind(&said.name)
        .bind(&said.base)
        .execute(&mut *conn)
        .await?;
    let data = json!({ "project": said.name, "project_id": said.id });
    record(conn, "project.created", &Entry { data, ..Entry::default() }).await?;
    Ok(Ok(()))
}

/// Makes a task that waits for the attempt with number `next`. It keeps the number that it had, if that is free.
pub async fn make_task(
    conn: &mut Connection,
    id: TaskId,
    had: u64,
    next: u32,
    new: &NewTask,
) -> Result<(), StoreError> {
    let number = number(conn, had).await?;
    let branch = if new.base.is_some() { naming::branch(number.unsigned_abs(), &new.title) } else { String::new() };
    tasks::insert_as(conn, id, tasks::Place { number, branch, next }, new).await
}

/// A number for a task that had the number `had`: the same if it is free, else a new one. Numbers only rise.
async fn number(conn: &mut Connection, had: u64) -> Result<i64, StoreError> {
    const SEQUENCE: &str = "pg_get_serial_sequence('tasks', 'number')";
    // One at a time until the commit: the sequence is not part of a transaction, and two would set it back or take one number.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt task numbers'))").execute(&mut *conn).await?;
    let next = format!("SELECT nextval({SEQUENCE})");
    let fresh: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(next)).fetch_one(&mut *conn).await?;
    if had == 0 || had > HIGHEST_NUMBER {
        return Ok(fresh);
    }
    let had = had.cast_signed();
    let sql = "SELECT EXISTS (SELECT FROM tasks WHERE number = $1)";
    let taken: bool = sqlx::query_scalar(sql).bind(had).fetch_one(&mut *conn).await?;
    if taken {
        return Ok(fresh);
    }
    // From here on new tasks have higher numbers.
    let gap = had - fresh;
    if gap > STEPS {
        // Nobody who takes one number at a time comes that far meanwhile.
        let sql = format!("SELECT setval({SEQUENCE}, GREATEST($1, nextval({SEQUENCE})))");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(had).execute(conn).await?;
    } else if gap > 0 {
        let sql = format!("SELECT bool_or(nextval({SEQUENCE}) = $1) FROM generate_series(1, $2)");
        let ours: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(had).bind(gap).fetch_one(conn).await?;
        if !ours {
            // Somebody who makes a task took it meanwhile.
            return Ok(fresh);
        }
    }
    Ok(had)
}

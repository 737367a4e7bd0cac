//! The queue: who can take tasks, and which tasks are next.

use std::collections::BTreeMap;

use sculpt_core::{
    liveness::Liveness,
    placement::{Candidate, Class},
};
use sculpt_proto::id::{AttemptId, ExecutorId, TaskId};
use sqlx::{Row as _, types::Json};
use uuid::Uuid;

use crate::store::{Connection, StoreError, classes, executors, pools, sessions::Epoch};

/// Classes that one look into the queue takes tasks from: those whose first task stands before the others'. Rows are locked
/// in each of them, and nobody claims as many at a time.
const BROAD: i64 = 64;

/// The executors of these sessions, with their slots as they are taken now. Their rows are locked, so that two placements
/// cannot give one slot away twice.
pub async fn candidates(conn: &mut Connection, sessions: &[Epoch]) -> Result<Vec<Candidate>, StoreError> {
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.executor.0).collect();
    let epochs: Vec<i64> = sessions.iter().map(|session| i64::try_from(session.number).unwrap_or(i64::MAX)).collect();
    let sql = format!(
        "SELECT e.id, e.name, e.pool, e.labels, e.agents, e.default_agent, e.slots, e.separates, e.owner, \
         e.closes_network, {} AS closed, e.liveness::text, e.last_seen \
         FROM executors e JOIN unnest($1::uuid[], $2::bigint[]) AS held (id, epoch) \
         ON held.id = e.id AND held.epoch = e.epoch \
         WHERE e.removed_at IS NULL ORDER BY e.id FOR NO KEY UPDATE OF e",
        executors::closed()
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&ids).bind(epochs).fetch_all(&mut *conn).await?;
    let used: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT executor_id, count(*) FROM attempts WHERE executor_id = ANY ($1) AND released_at IS NULL \
         AND state <> 'ended' AND fenced_at IS NULL AND last_heard IS NULL AND (turn IS NULL OR turn IN ('working', 'asking')) \
         GROUP BY executor_id",
    )
    .bind(ids)
    .fetch_all(&mut *conn)
    .await?;
    let used: BTreeMap<Uuid, i64> = used.into_iter().collect();
    let pools = pools::rules(conn).await?;
    rows.iter()
        .map(|row| {
            let id: Uuid = row.try_get("id")?;
            let since = row.try_get("last_seen")?;
            Ok(Candidate {
                id,
                name: row.try_get("name")?,
                pool: pools.of(row.try_get("pool")?),
                serves: executors::serves(row.try_get("separates")?, row.try_get("owner")?),
                closes_network: row.try_get("closes_network")?,
                labels: row.try_get::<Json<BTreeMap<String, String>>, _>("labels")?.0,
                agents: row.try_get("agents")?,
                default_agent: row.try_get("default_agent")?,
                slots: row.try_get::<i32, _>("slots")?.unsigned_abs(),
                used: used.get(&id).map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX)),
                closed: row.try_get("closed")?,
                liveness: match row.try_get("liveness")? {
                    "connected" => Liveness::Connected,
                    _ => Liveness::Unreachable { since },
                },
            })
        })
        .collect()
}

/// The classes that have queued tasks. It takes as long as there are such classes, however many tasks each has and however
/// many classes there have ever been: it goes from class to class through the queue's index.
pub async fn waiting_classes(conn: &mut Connection) -> Result<Vec<(i64, Class)>, StoreError> {
    let sql = format!(
        "WITH RECURSIVE waiting (id) AS ( \
           (SELECT class_id FROM tasks WHERE next_attempt IS NOT NULL AND intent = 'run' ORDER BY class_id LIMIT 1) \
           UNION ALL \
           SELECT (SELECT t.class_id FROM tasks t WHERE t.class_id > waiting.id AND t.next_attempt IS NOT NULL \
             AND t.intent = 'run' ORDER BY t.class_id LIMIT 1) FROM waiting WHERE waiting.id IS NOT NULL) \
         SELECT c.id, {} FROM waiting JOIN classes c ON c.id = waiting.id",
        classes::COLUMNS
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, classes::read(row)?))).collect()
}

/// The next queued tasks of these classes but for `without`, by priority and age, with their class; their rows are locked,
/// and those that another placement has locked are passed over. At most [`BROAD`] classes are looked into.
pub async fn next(
    conn: &mut Connection,
    classes: &[i64],
    without: &[TaskId],
    limit: u32,
) -> Result<Vec<(TaskId, i64)>, StoreError> {
    let without: Vec<Uuid> = without.iter().map(|task| task.0).collect();
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT q.id, q.class_id FROM ( \
           SELECT c.class_id FROM unnest($1::bigint[]) AS c (class_id) CROSS JOIN LATERAL ( \
             SELECT t.priority, t.queued_at, t.number FROM tasks t \
             WHERE t.class_id = c.class_id AND t.next_attempt IS NOT NULL AND t.intent = 'run' \
             AND (t.not_before IS NULL OR t.not_before <= clock_timestamp()) AND t.id <> ALL ($3) \
             ORDER BY t.priority DESC, t.queued_at, t.number LIMIT 1) head \
           ORDER BY head.priority DESC, head.queued_at, head.number LIMIT $4) wanted CROSS JOIN LATERAL ( \
           SELECT t.id, t.class_id, t.priority, t.queued_at, t.number FROM tasks t \
           WHERE t.class_id = wanted.class_id AND t.next_attempt IS NOT NULL AND t.intent = 'run' \
           AND (t.not_before IS NULL OR t.not_before <= clock_timestamp()) AND t.id <> ALL ($3) \
           ORDER BY t.priority DESC, t.queued_at, t.number LIMIT $2 FOR UPDATE SKIP LOCKED) q \
         ORDER BY q.priority DESC, q.queued_at, q.number LIMIT $2",
    )
    .bind(classes)
    .bind(i64::from(limit))
    .bind(without)
    .bind(BROAD)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(task, class)| (TaskId(task), class)).collect())
}

/// What an attempt's spec is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The task's number.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Its branch, without `refs/heads/`.
    pub branch: String,
    /// What the person asked for, as it came over the wire.
    pub spec: Vec<u8>,
    /// What somebody has said since that it is for.
    pub intent: Option<String>,
    /// The agent that was agreed on when the task was created; `None` for a plain command.
    pub agent: Option<String>,
    /// Its project.
    pub project: Option<OrderProject>,
    /// The attempt whose workspace it goes on in; `None`: a fresh clone.
    pub workspace_of: Option<AttemptId>,
    /// What it may reach and use there.
    pub allowance: Allowance,
}

/// What a pool allows an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// It reaches no network.
    pub no_network: bool,
    /// Most bytes of memory.
    pub memory: Option<u64>,
    /// Most processes.
    pub processes: Option<u64>,
    /// Most processor time, in thousandths of a processor.
    pub cpu: Option<u64>,
}

/// The project of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderProject {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether an agent's changes are committed for it.
    pub commit_changes: bool,
    /// Whether reports hold what people type.
    pub record_typing: bool,
}

/// What the spec of an attempt of `task` on `executor` is made of.
pub async fn order(conn: &mut Connection, task: TaskId, executor: ExecutorId) -> Result<Order, StoreError> {
    let row = sqlx::query(
        "SELECT t.number, t.title, t.branch, t.spec, c.agent, t.project_id, p.name, p.commit_changes, p.record_typing, t.intent_line, t.workspace_of, \
         COALESCE(o.network = 'none', false) AS no_network, o.memory, o.processes, o.cpu \
         FROM tasks t JOIN classes c ON c.id = t.class_id LEFT JOIN projects p ON p.id = t.project_id \
         LEFT JOIN executors e ON e.id = $2 LEFT JOIN pools o ON o.name = e.pool WHERE t.id = $1",
    )
    .bind(task.0)
    .bind(executor.0)
    .fetch_one(conn)
    .await?;
    let project = match row.try_get::<Option<Uuid>, _>("project_id")? {
        None => None,
        Some(id) => {
            let (commit_changes, record_typing) = (row.try_get("commit_changes")?, row.try_get("record_typing")?);
            Some(OrderProject { id, name: row.try_get("name")?, commit_changes, record_typing })
        }
    };
    Ok(Order {
        number: row.try_get::<i64, _>("number")?.unsigned_abs(),
        title: row.try_get("title")?,
        branch: row.try_get("branch")?,
        spec: row.try_get("spec")?,
        intent: row.try_get("intent_line")?,
        agent: row.try_get("agent")?,
        project,
        workspace_of: row.try_get::<Option<Uuid>, _>("workspace_of")?.map(AttemptId),
        allowance: Allowance {
            no_network: row.try_get("no_network")?,
            memory: row.try_get::<Option<i64>, _>("memory")?.map(i64::unsigned_abs),
            processes: row.try_get::<Option<i32>, _>("processes")?.map(|count| count.unsigned_abs().into()),
            cpu: row.try_get::<Option<i32>, _>("cpu")?.map(|share| share.unsigned_abs().into()),
        },
    })
}

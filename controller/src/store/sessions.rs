//! Executors as their sessions see them: identity, epoch, what they should have, when they were last heard of.

use std::collections::{BTreeMap, BTreeSet};

use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId, TaskId};
use serde_json::json;
use sqlx::{FromRow, Row as _, types::Json};
use uuid::Uuid;

use crate::store::{
    Connection, StoreError, Time,
    audit::{self, Act, By},
    columns,
};

/// What an executor says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its stable id.
    pub id: ExecutorId,
    /// By which certificate it calls; `None`: nobody asked.
    pub certified: Option<Certified>,
    /// Its name, unique among executors.
    pub name: String,
    /// Fresh at each start of its process.
    pub instance: Uuid,
    /// Its build.
    pub version: String,
    /// The pool of its settings; what counts is the one that it joined.
    pub pool: String,
    /// The labels of its settings; what counts is those that it joined with.
    pub labels: BTreeMap<String, String>,
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// Its agents.
    pub agents: Vec<String>,
    /// Which of them runs a prompt that names none.
    pub default_agent: Option<String>,
    /// Whether it keeps attempts apart from itself.
    pub separates: bool,
    /// Why it does not; empty when it does.
    pub unseparated: String,
    /// Whether it can keep an attempt from the network.
    pub closes_network: bool,
    /// Its machine.
    pub hostname: String,
    /// Its remarks on itself.
    pub notes: Vec<String>,
    /// Where it keeps its attempts; `None`: it does not say.
    pub directory: Option<Uuid>,
}

/// A certificate that an executor has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// How many there were for it.
    pub generation: u64,
    /// When it runs out.
    pub until: Time,
    /// Where it was shown from.
    pub address: String,
}

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another executor has the name.
    #[error(
        "another executor is named {name:?} ({holder}); give this one another name, or remove the other with `sculpt executor rm`"
    )]
    NameTaken {
        /// The wished name.
        name: String,
        /// Who has it.
        holder: ExecutorId,
    },
    /// The executor was removed.
    #[error("executor {0} was removed from this controller; enrol it again under a fresh data directory")]
    Removed(ExecutorId),
    /// The database did not take it.
    #[error("open the session in the database")]
    Store(#[from] StoreError),
}

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

/// An executor's row as a session finds it.
#[derive(FromRow)]
struct Before {
    directory: Option<Uuid>,
    last_seen: Time,
    pool: String,
    labels: Json<BTreeMap<String, String>>,
    joined: bool,
}

/// Writes what the executor says of itself and raises its epoch.
pub async fn open(conn: &mut Connection, who: &Introduction) -> Result<Epoch, OpenError> {
    let holder: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM executors WHERE name = $1 AND removed_at IS NULL AND id <> $2")
            .bind(&who.name)
            .bind(who.id.0)
            .fetch_optional(&mut *conn)
            .await
            .map_err(StoreError::from)?;
    if let Some(holder) = holder {
        return Err(OpenError::NameTaken { name: who.name.clone(), holder: ExecutorId(holder) });
    }
    let before: Option<Before> = sqlx::query_as(
        "SELECT directory, last_seen, pool, labels, key IS NOT NULL AS joined FROM executors WHERE id = $1 \
         FOR NO KEY UPDATE",
    )
    .bind(who.id.0)
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let placed = placed(who, before.as_ref());
    let row: Option<(i64,)> = sqlx::query_as(
        "INSERT INTO executors AS e (id, name, pool, labels, slots, agents, default_agent, separates, unseparated, \
         closes_network, hostname, version, notes, instance, directory, key, generation, certified_until, epoch, \
         connected_at, last_seen) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 1, \
         clock_timestamp(), clock_timestamp()) \
         ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, pool = EXCLUDED.pool, labels = EXCLUDED.labels, \
         slots = EXCLUDED.slots, agents = EXCLUDED.agents, default_agent = EXCLUDED.default_agent, \
         separates = EXCLUDED.separates, unseparated = EXCLUDED.unseparated, \
         closes_network = EXCLUDED.closes_network, hostname = EXCLUDED.hostname, \
         version = EXCLUDED.version, notes = EXCLUDED.notes, instance = EXCLUDED.instance, \
         directory = EXCLUDED.directory, closed_reason = NULL, key = COALESCE(e.key, EXCLUDED.key), \
         generation = GREATEST(e.generation, EXCLUDED.generation), \
         certified_until = GREATEST(e.certified_until, EXCLUDED.certified_until), \
         epoch = e.epoch + 1, liveness = 'connected', connected_at = clock_timestamp(), last_seen = clock_timestamp() \
         WHERE e.removed_at IS NULL RETURNING epoch",
    )
    .bind(who.id.0)
    .bind(&who.name)
    .bind(placed.pool)
    .bind(Json(placed.labels))
    .bind(i32::try_from(who.slots).unwrap_or(10_000))
    .bind(&who.agents)
    .bind(&who.default_agent)
    .bind(who.separates)
    .bind(&who.unseparated)
    .bind(who.closes_network)
    .bind(&who.hostname)
    .bind(&who.version)
    .bind(placed.notes)
    .bind(who.instance)
    .bind(who.directory)
    .bind(who.certified.as_ref().map(|certified| &certified.key[..]))
    .bind(who.certified.as_ref().map_or(0, |certified| columns::signed(certified.generation)))
    .bind(who.certified.as_ref().map(|certified| certified.until))
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let Some((epoch,)) = row else { return Err(OpenError::Removed(who.id)) };
    match (&before, &who.certified) {
        (Some(before), _) if before.directory != who.directory => change_directory(conn, who, before.last_seen).await?,
        (None, Some(certified)) => readmit(conn, who, certified).await?,
        (Some(_), _) | (None, None) => {}
    }
    journal(conn, "executor.connected", who.id, &who.name).await?;
    Ok(Epoch { executor: who.id, number: epoch.unsigned_abs() })
}

/// What is counted of where an executor says that it belongs.
struct Placed<'a> {
    pool: &'a str,
    labels: &'a BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Who has joined is where the token says, whatever its settings are: else an executor that somebody has taken over could
/// draw other pools' tasks to itself. Who is not known has joined before the database was set back, and is believed.
fn placed<'a>(who: &'a Introduction, before: Option<&'a Before>) -> Placed<'a> {
    let Some(joined) = before.filter(|before| before.joined) else {
        return Placed { pool: &who.pool, labels: &who.labels, notes: who.notes.clone() };
    };
    let mut notes = who.notes.clone();
    let stray: Vec<_> = who.labels.iter().filter(|(key, value)| joined.labels.0.get(*key) != Some(value)).collect();
    if !stray.is_empty() {
        let stray: Vec<_> = stray.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        notes.push(format!(
            "its settings name labels that it has not joined with, and that do not count: {}; join again with a token that \
             gives them",
            stray.join(", ")
        ));
    }
    Placed { pool: &joined.pool, labels: &joined.labels.0, notes }
}

/// Writes down that an executor was believed that this database does not know.
async fn readmit(conn: &mut Connection, who: &Introduction, certified: &Certified) -> Result<(), StoreError> {
    let details = json!({ "executor_id": who.id, "pool": who.pool, "labels": who.labels,
                          "generation": certified.generation, "key": audit::hex(&certified.key) });
    let act = Act::new("executor.readmit", audit::executor(&who.name)).with(details);
    audit::append(conn, &By::executor(&who.name, &certified.address), act).await
}

/// Another directory speaks for the executor: what is in an earlier one was last heard of when that one was, and what is in
/// this one is heard of again.
async fn change_directory(conn: &mut Connection, who: &Introduction, last_seen: Time) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE attempts SET last_heard = CASE WHEN directory IS DISTINCT FROM $2 THEN COALESCE(last_heard, $3) END \
         WHERE id IN (SELECT id FROM attempts WHERE executor_id = $1 AND released_at IS NULL AND spec_read \
         ORDER BY id FOR UPDATE)",
    )
    .bind(who.id.0)
    .bind(who.directory)
    .bind(last_seen)
    .execute(conn)
    .await?;
    Ok(())
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
    /// The executor may still begin it: it has never said that it has the spec.
    pub may_begin: bool,
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
         a.state = 'offered' AND a.fenced_at IS NULL AND a.last_heard IS NULL AS may_begin \
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

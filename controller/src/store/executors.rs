//! Executors as people see them.

use std::collections::BTreeMap;

use sculpt_core::{liveness::Liveness, placement::Candidate};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{Connection, Store, StoreError, Time};

/// A machine of the fleet.
#[derive(Clone, Debug, FromRow)]
pub struct Executor {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its labels.
    pub labels: Json<BTreeMap<String, String>>,
    /// Its agents.
    pub agents: Vec<String>,
    /// Which of them runs a prompt that names none.
    pub default_agent: Option<String>,
    /// How many attempts it runs at a time.
    pub slots: i32,
    /// How many it has now.
    pub used: i64,
    /// `connected`, `unreachable` or `lost`.
    pub liveness: String,
    /// When it was last heard of.
    pub last_seen: Time,
    /// When its session began.
    pub connected_at: Time,
    /// Why it takes no new work; absent when it does.
    pub closed: Option<String>,
    /// A person keeps new work away from it.
    pub drained: bool,
    /// What it takes of its disk, in bytes; absent while it has not said.
    pub disk_used: Option<i64>,
    /// What it may take, in bytes.
    pub disk_budget: Option<i64>,
    /// Its build.
    pub version: String,
    /// Whether attempts run under another account.
    pub separates: bool,
    /// Its session's number.
    pub epoch: i64,
    /// Its machine.
    pub hostname: String,
    /// Attempts that it has and this controller does not know.
    pub unknown: Vec<Uuid>,
    /// Its newest remarks on itself.
    pub notes: Vec<String>,
    /// Numbers of the tasks that it holds.
    pub tasks: Vec<i64>,
}

impl Executor {
    /// What placement sees of it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id,
            name: self.name.clone(),
            pool: self.pool.clone(),
            labels: self.labels.0.clone(),
            agents: self.agents.clone(),
            default_agent: self.default_agent.clone(),
            slots: self.slots.unsigned_abs(),
            used: u32::try_from(self.used).unwrap_or(u32::MAX),
            closed: self.closed.clone(),
            liveness: match self.liveness.as_str() {
                "connected" => Liveness::Connected,
                _ => Liveness::Unreachable { since: self.last_seen },
            },
        }
    }
}

// Slots are counted as placement counts them (store/claims.rs).
const SELECT: &str = "SELECT e.id, e.name, e.pool, e.labels, e.agents, e.default_agent, e.slots, e.liveness::text AS liveness, \
     e.last_seen, e.connected_at, e.drained, CASE WHEN e.drained THEN 'drained' ELSE e.closed_reason END AS closed, \
     e.disk_used, e.disk_budget, e.version, e.separates, e.epoch, e.hostname, e.unknown, e.notes, \
     COALESCE(held.used, 0) AS used, \
     COALESCE(held.tasks, '{}') AS tasks FROM executors e LEFT JOIN LATERAL ( \
       SELECT count(*) FILTER (WHERE a.fenced_at IS NULL AND a.last_heard IS NULL \
         AND (a.turn IS NULL OR a.turn IN ('working', 'asking'))) AS used, \
              array_agg(t.number ORDER BY t.number) FILTER (WHERE t.attempt_id = a.id) AS tasks \
       FROM attempts a JOIN tasks t ON t.id = a.task_id \
       WHERE a.executor_id = e.id AND a.released_at IS NULL AND a.state <> 'ended') held ON true \
     WHERE e.removed_at IS NULL";

/// All executors by name.
pub(crate) async fn all(conn: &mut Connection) -> Result<Vec<Executor>, StoreError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY e.name"))).fetch_all(conn).await?)
}

impl Store {
    /// All executors by name.
    pub async fn executors(&self) -> Result<Vec<Executor>, StoreError> {
        all(&mut *self.read().await?).await
    }

    /// Executors with this name or uuid, or with a uuid that begins so; at most two.
    pub async fn executors_named(&self, name: &str) -> Result<Vec<Executor>, StoreError> {
        let prefix = name.to_ascii_lowercase();
        let hex = prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let sql =
            format!("{SELECT} AND (e.name = $1 OR $2 AND e.id::text LIKE $3 || '%') ORDER BY e.name = $1 DESC LIMIT 2");
        let mut conn = self.read().await?;
        let mut found: Vec<Executor> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).bind(hex).bind(prefix).fetch_all(&mut *conn).await?;
        // A name counts more than what it may be a prefix of.
        if found.first().is_some_and(|first| first.name == name) {
            found.truncate(1);
        }
        Ok(found)
    }
}

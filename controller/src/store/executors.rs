//! Executors as people see them.

use std::collections::BTreeMap;

use sculpt_core::{
    liveness::Liveness,
    placement::{Candidate, Serves},
    task::Event,
};
use sculpt_proto::id::{ExecutorId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{FromRow, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act},
    pools::Rules,
    prefix,
    requests::{Request, RequestError, Taken, take_request},
    users::STANDING,
    visible,
};
use crate::{
    access::{Fleet, May, Sees},
    dispatch::{Actor, Dispatch, DispatchError, Moved},
};

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
    /// Whether it keeps attempts apart from itself.
    pub separates: bool,
    /// Why it does not; empty when it does.
    pub unseparated: String,
    /// Whether it can keep an attempt from the network.
    pub closes_network: bool,
    /// By what it keeps attempts apart; empty when it does not, or does not say.
    pub separated_by: String,
    /// `host:port` where people reach its ssh without the controller; empty: they do not. Absent: it does not say.
    pub ssh_address: Option<String>,
    /// By what it holds attempts to limits; absent when it does not say.
    pub counters: Option<Json<Counters>>,
    /// What its pool limits and nothing there counts.
    pub unmet: Vec<String>,
    /// Who made the token that it joined with; empty when that is not known.
    pub owner: String,
    /// Why it is locked; absent when it is not.
    pub locked: Option<String>,
    /// Until when its certificate is good.
    pub certified_until: Option<Time>,
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

/// By what the use of attempts is counted, so that it ends at a limit; empty: by nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Memory.
    pub memory: String,
    /// Processes.
    pub processes: String,
    /// Processor time.
    pub cpu: String,
    /// Why something is not counted; empty when all is.
    pub lacking: String,
}

/// What pool `o` limits and nothing counts on executor `e`, as SQL.
pub(super) const UNMET: &str = "array_remove(ARRAY[ \
     CASE WHEN o.memory IS NOT NULL AND e.counters->>'memory' = '' THEN 'memory' END, \
     CASE WHEN o.processes IS NOT NULL AND e.counters->>'processes' = '' THEN 'processes' END, \
     CASE WHEN o.cpu IS NOT NULL AND e.counters->>'cpu' = '' THEN 'cpu' END], NULL)";

impl Executor {
    /// What placement sees of it.
    pub fn candidate(&self, pools: &Rules) -> Candidate {
        Candidate {
            id: self.id,
            name: self.name.clone(),
            pool: pools.of(&self.pool),
            serves: serves(self.separates, self.owner.clone()),
            closes_network: self.closes_network,
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

/// Whose tasks an executor can run.
pub(super) fn serves(separates: bool, owner: String) -> Serves {
    if separates { Serves::Everybody } else { Serves::Owner((!owner.is_empty()).then_some(owner)) }
}

/// Why executor `e` takes no new work, as SQL; NULL when it does.
pub(super) fn closed() -> String {
    format!(
        "COALESCE((SELECT 'locked' || COALESCE(' (' || NULLIF(l.reason, '') || ')', '') FROM locks l \
         WHERE l.executor_id = e.id AND {STANDING} ORDER BY l.created_at LIMIT 1), \
         CASE WHEN e.drained THEN 'drained' ELSE e.closed_reason END)"
    )
}

/// Why an executor is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none of this id.
    #[error("there is no executor {0}; `sculpt executor ls` lists those there are")]
    Unknown(ExecutorId),
    /// It holds attempts.
    #[error(
        "executor {name} holds {count} attempts that have not ended; stop their tasks or wait for them, or give them up with \
         --force"
    )]
    Busy {
        /// Its name.
        name: String,
        /// How many.
        count: i64,
    },
    /// One of its tasks cannot be given up.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Executors that `and` lets through, with the tasks of them that are seen.
fn select(sees: &Sees) -> QueryBuilder<Postgres> {
    // Slots are counted as placement counts them (store/claims.rs).
    let mut query = QueryBuilder::new(format!(
        "SELECT e.id, e.name, e.pool, e.labels, e.agents, e.default_agent, e.slots, e.liveness::text AS liveness, \
         e.last_seen, e.connected_at, e.drained, {} AS closed, e.disk_used, e.disk_budget, e.version, e.separates, \
         e.unseparated, e.closes_network, e.separated_by, e.ssh_address, e.counters, e.owner, e.certified_until, \
         COALESCE((SELECT {UNMET} FROM pools o WHERE o.name = e.pool), '{{}}') AS unmet, \
         (SELECT l.reason FROM locks l WHERE l.executor_id = e.id AND {STANDING} LIMIT 1) AS locked, \
         e.epoch, e.hostname, e.unknown, e.notes, COALESCE(held.used, 0) AS used, \
         COALESCE(held.tasks, '{{}}') AS tasks FROM executors e LEFT JOIN LATERAL ( \
           SELECT count(*) FILTER (WHERE a.fenced_at IS NULL AND a.last_heard IS NULL \
             AND (a.turn IS NULL OR a.turn IN ('working', 'asking'))) AS used, \
                  array_agg(t.number ORDER BY t.number) FILTER (WHERE t.attempt_id = a.id AND ",
        closed()
    ));
    visible::tasks(&mut query, sees);
    query.push(
        ") AS tasks FROM attempts a JOIN tasks t ON t.id = a.task_id \
         WHERE a.executor_id = e.id AND a.released_at IS NULL AND a.state <> 'ended') held ON true \
         WHERE e.removed_at IS NULL",
    );
    query
}

/// All executors by name.
pub(crate) async fn all(conn: &mut Connection, sees: &Sees) -> Result<Vec<Executor>, StoreError> {
    Ok(select(sees).push(" ORDER BY e.name").build_query_as().fetch_all(conn).await?)
}

/// Executors with this name or uuid, or with a uuid that begins so; at most two.
pub(super) async fn named(conn: &mut Connection, sees: &Sees, name: &str) -> Result<Vec<Executor>, StoreError> {
    let (from, to) = prefix::uuids(name).unzip();
    let mut query = select(sees);
    query.push(" AND (e.name = ").push_bind(name.to_owned()).push(" OR e.id BETWEEN ").push_bind(from);
    query.push(" AND ").push_bind(to).push(") ORDER BY e.name = ");
    query.push_bind(name.to_owned()).push(" DESC LIMIT 2");
    let mut found: Vec<Executor> = query.build_query_as().fetch_all(conn).await?;
    // A name counts more than what it may be a prefix of.
    if found.first().is_some_and(|first| first.name == name) {
        found.truncate(1);
    }
    Ok(found)
}

impl Store {
    /// All executors by name, with the tasks of them that are seen.
    pub async fn executors(&self, sees: &Sees) -> Result<Vec<Executor>, StoreError> {
        all(&mut *self.read().await?, sees).await
    }

    /// Executors with this name or uuid, or with a uuid that begins so; at most two.
    pub async fn executors_named(&self, sees: &Sees, name: &str) -> Result<Vec<Executor>, StoreError> {
        named(&mut *self.read().await?, sees, name).await
    }

    /// Cuts an executor off for good. Its attempts are given up where `force` says so: their tasks are stopped, as by who
    /// removes it; what is to be done afterwards.
    pub async fn remove_executor(
        &self,
        by: May<Fleet>,
        request: Request,
        executor: ExecutorId,
        force: bool,
    ) -> Result<Vec<Moved>, RemoveError> {
        self.write(move |conn| {
            Box::pin(async move {
                if let Taken::Done(_) = take_request(conn, &request, executor.0).await? {
                    return Ok(Vec::new());
                }
                remove(conn, &by, executor, force).await
            })
        })
        .await
    }
}

async fn remove(
    conn: &mut Connection,
    by: &May<Fleet>,
    executor: ExecutorId,
    force: bool,
) -> Result<Vec<Moved>, RemoveError> {
    // The executor's row first, as everywhere: nothing is claimed for it any more.
    let sql = "UPDATE executors SET removed_at = now(), epoch = epoch + 1 WHERE id = $1 AND removed_at IS NULL \
               RETURNING name";
    let name: Option<String> =
        sqlx::query_scalar(sql).bind(executor.0).fetch_optional(&mut *conn).await.map_err(StoreError::from)?;
    let name = name.ok_or(RemoveError::Unknown(executor))?;
    let held = "SELECT DISTINCT task_id FROM attempts WHERE executor_id = $1 AND state <> 'ended' AND fenced_at IS NULL \
                ORDER BY task_id";
    let tasks: Vec<Uuid> =
        sqlx::query_scalar(held).bind(executor.0).fetch_all(&mut *conn).await.map_err(StoreError::from)?;
    if !force && !tasks.is_empty() {
        return Err(RemoveError::Busy { name, count: i64::try_from(tasks.len()).unwrap_or(i64::MAX) });
    }
    let mut moved = Vec::new();
    for task in &tasks {
        // It ends once its executor has been silent for so long that nothing of it can be heard of any more.
        let actor = Actor::caller(by.caller(), "its executor was removed");
        moved.push(Dispatch::apply_in(conn, TaskId(*task), Event::Stop, &actor).await?);
    }
    super::sessions::journal(conn, "executor.removed", executor, &name).await?;
    let details = json!({ "executor_id": executor, "given_up": tasks.len() });
    audit::append(conn, &by.by(), Act::new("executor.remove", audit::executor(&name)).with(details)).await?;
    Ok(moved)
}

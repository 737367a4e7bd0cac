//! The beginning of a session: who it is, and what is believed of what it says.

use std::collections::BTreeMap;

use sculpt_proto::id::ExecutorId;
use serde_json::json;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{Epoch, journal};
use crate::store::{
    Connection, StoreError, Time,
    audit::{self, Act, By},
    columns,
    executors::Counters,
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
    /// By what it keeps attempts apart; empty when it does not, or does not say.
    pub separated_by: String,
    /// By what it holds attempts to limits; absent when it does not say.
    pub counters: Option<Counters>,
    /// `host:port` where people reach its ssh without the controller; empty: they do not. `None`: it lets nobody in.
    pub ssh_address: Option<String>,
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
        "another executor is named {name:?} ({holder}); join this one again under another name (`sculpt-executor join --again \
         --name`), or remove the other with `sculpt executor rm`"
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
         closes_network, separated_by, counters, hostname, version, notes, instance, directory, key, generation, \
         certified_until, ssh_address, epoch, connected_at, last_seen) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, 1, \
         clock_timestamp(), clock_timestamp()) \
         ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, pool = EXCLUDED.pool, labels = EXCLUDED.labels, \
         slots = EXCLUDED.slots, agents = EXCLUDED.agents, default_agent = EXCLUDED.default_agent, \
         separates = EXCLUDED.separates, unseparated = EXCLUDED.unseparated, \
         closes_network = EXCLUDED.closes_network, separated_by = EXCLUDED.separated_by, \
         counters = EXCLUDED.counters, hostname = EXCLUDED.hostname, \
         version = EXCLUDED.version, notes = EXCLUDED.notes, instance = EXCLUDED.instance, \
         directory = EXCLUDED.directory, closed_reason = NULL, key = COALESCE(e.key, EXCLUDED.key), \
         generation = GREATEST(e.generation, EXCLUDED.generation), \
         certified_until = GREATEST(e.certified_until, EXCLUDED.certified_until), \
         ssh_address = EXCLUDED.ssh_address, \
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
    .bind(&who.separated_by)
    .bind(who.counters.as_ref().map(Json))
    .bind(&who.hostname)
    .bind(&who.version)
    .bind(placed.notes)
    .bind(who.instance)
    .bind(who.directory)
    .bind(who.certified.as_ref().map(|certified| &certified.key[..]))
    .bind(who.certified.as_ref().map_or(0, |certified| columns::signed(certified.generation)))
    .bind(who.certified.as_ref().map(|certified| certified.until))
    .bind(&who.ssh_address)
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

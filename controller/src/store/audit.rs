//! The record: who did what, written in the transaction that does it, chained afterwards.
//!
//! Acts do not wait for each other, and not for the chain. The notary hangs what was committed onto it in the order of its
//! ids, and stops at an id that an open transaction may still fill ([`gaps`](super::gaps)). So every row below the end of
//! the chain has its place in it, and one that has none was put there by somebody else.

mod verify;

use std::fmt::Write as _;

use sculpt_proto::id::{ExecutorId, ProjectId, TokenId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

pub use self::verify::Verified;
use super::{Connection, Store, StoreError, Time, gaps::Table};
use crate::access::{Administer, Fleet, May};

/// Rows that are chained or read at once.
const BATCH: i64 = 500;

/// What stands before the first hash.
const GROUND: [u8; 32] = [0; 32];

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    actor: String,
    token: Option<TokenId>,
    address: String,
}

impl By {
    /// The controller itself.
    pub fn controller() -> Self {
        Self { actor: "controller".to_owned(), token: None, address: String::new() }
    }

    /// Who has the controller's host.
    pub fn host() -> Self {
        Self { actor: "host".to_owned(), ..Self::controller() }
    }

    /// A machine that shows a certificate, or a token to get one.
    pub fn executor(name: &str, address: &str) -> Self {
        Self { actor: format!("executor:{name}"), token: None, address: address.to_owned() }
    }

    /// A caller.
    pub(crate) fn user(name: &str, token: TokenId, address: &str) -> Self {
        Self { actor: name.to_owned(), token: Some(token), address: address.to_owned() }
    }

    /// As it stands in the record.
    pub fn actor(&self) -> &str {
        &self.actor
    }
}

/// Something that is done.
#[derive(Clone, Debug)]
pub struct Act {
    /// Resource, dot, verb.
    pub action: &'static str,
    /// What it is done to, like `task:17`.
    pub subject: String,
    /// In which project.
    pub project: Option<ProjectId>,
    /// More about it, as an object. Never a secret.
    pub details: Value,
}

impl Act {
    /// `action` on `subject`.
    pub fn new(action: &'static str, subject: impl Into<String>) -> Self {
        Self { action, subject: subject.into(), project: None, details: json!({}) }
    }

    /// In a project.
    pub fn within(mut self, project: Option<ProjectId>) -> Self {
        self.project = project;
        self
    }

    /// With more about it.
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// An entry of the record.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Entry {
    /// Its place in the chain, counted from 1.
    pub sequence: i64,
    /// Its row.
    pub id: i64,
    /// When.
    pub at: Time,
    /// Who.
    pub actor: String,
    /// By which token; empty: none.
    pub token: String,
    /// From where.
    pub address: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// In which project.
    pub project_id: Option<Uuid>,
    /// Its name.
    pub project: Option<String>,
    /// More, as JSON.
    pub details: String,
    /// Over the hash before it and this entry.
    pub hash: Vec<u8>,
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these actions; empty: all.
    pub actions: Vec<String>,
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this project.
    pub project: Option<ProjectId>,
}

/// Writes `act` into the record, with the transaction that does it.
pub async fn append(conn: &mut Connection, by: &By, act: Act) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (actor, token, address, action, subject, project_id, details) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&by.actor)
    .bind(by.token.map(|token| token.to_string()).unwrap_or_default())
    .bind(&by.address)
    .bind(act.action)
    .bind(act.subject)
    .bind(act.project.map(|project| project.0))
    .bind(act.details)
    .execute(conn)
    .await?;
    Ok(())
}

/// The subject of an act on an executor.
pub fn executor(name: &str) -> String {
    format!("executor:{name}")
}

/// What an act on an executor that has no name yet is about.
pub fn executor_id(id: ExecutorId) -> String {
    format!("executor:{id}")
}

/// What is hashed: each part behind its length, so that nothing can move from one into its neighbour.
fn hash(before: &[u8; 32], entry: &Entry) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    let project = entry.project_id.map(|id| id.to_string()).unwrap_or_default();
    let (sequence, id) = (entry.sequence.to_string(), entry.id.to_string());
    let at = entry.at.timestamp_micros().to_string();
    for part in [
        sequence.as_str(),
        &id,
        &at,
        &entry.actor,
        &entry.token,
        &entry.address,
        &entry.action,
        &entry.subject,
        &project,
        &entry.details,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The columns of an [`Entry`] from `audit a` and `projects p`, less what the chain says.
const ACT: &str = "a.id, a.at, a.actor, a.token, a.address, a.action, a.subject, a.project_id, p.name AS project, \
                   a.details::text AS details";

impl Store {
    /// Writes an act on the fleet into the record that changes no row.
    pub async fn tell(&self, by: &May<Fleet>, act: Act) -> Result<(), StoreError> {
        let by = by.by();
        self.write(move |conn| Box::pin(async move { append(conn, &by, act).await })).await
    }

    /// Hangs what was committed onto the chain; how much. Waits for transactions that may still fill a gap. Takes a store of
    /// the role that owns the record.
    pub async fn chain(&self) -> Result<u64, StoreError> {
        let sql = "SELECT COALESCE((SELECT max(id) FROM audit), 0) > COALESCE((SELECT max(entry) FROM audit_chain), 0)";
        let new: bool = sqlx::query_scalar(sql).fetch_one(&mut *self.read().await?).await?;
        if !new {
            return Ok(0);
        }
        let writers = self.writers(Table::Audit).await?;
        self.gone(Table::Audit, &writers.holders).await?;
        let mut chained = 0;
        loop {
            let step = self.write(move |conn| Box::pin(async move { chain(conn, writers.drawn).await })).await?;
            chained += step;
            if step < BATCH.unsigned_abs() {
                return Ok(chained);
            }
        }
    }

    /// Entries from `from` on that pass `filter`, and the place after the last that was looked at. One batch.
    pub async fn audit(
        &self,
        _by: &May<Administer>,
        from: u64,
        filter: &Filter,
    ) -> Result<(Vec<Entry>, u64), StoreError> {
        let mut conn = self.read().await?;
        let from = super::columns::signed(from.max(1));
        let sql = "SELECT COALESCE(max(sequence), 0) FROM audit_chain WHERE sequence >= $1 AND sequence < $1 + $2";
        let last: i64 = sqlx::query_scalar(sql).bind(from).bind(BATCH).fetch_one(&mut *conn).await?;
        let mut query = QueryBuilder::<Postgres>::new("SELECT c.sequence, c.hash, ");
        query.push(ACT);
        query.push(" FROM audit_chain c JOIN audit a ON a.id = c.entry LEFT JOIN projects p ON p.id = a.project_id");
        query.push(" WHERE c.sequence >= ").push_bind(from).push(" AND c.sequence <= ").push_bind(last);
        if !filter.actions.is_empty() {
            query.push(" AND a.action = ANY (").push_bind(filter.actions.clone()).push(")");
        }
        if let Some(actor) = &filter.actor {
            query.push(" AND a.actor = ").push_bind(actor.clone());
        }
        if let Some(project) = filter.project {
            query.push(" AND a.project_id = ").push_bind(project.0);
        }
        query.push(" ORDER BY c.sequence");
        let entries = query.build_query_as().fetch_all(&mut *conn).await?;
        Ok((entries, (last + 1).max(from).unsigned_abs()))
    }
}

async fn chain(conn: &mut Connection, settled: i64) -> Result<u64, StoreError> {
    // One notary at a time: each link names the one before it.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt notary'))").execute(&mut *conn).await?;
    let last: Option<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT sequence, entry, hash FROM audit_chain ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *conn)
            .await?;
    let (sequence, entry, before) = last.unwrap_or((0, 0, GROUND.to_vec()));
    let mut before: [u8; 32] =
        before.try_into().map_err(|_| super::columns::unreadable("audit_chain.hash", "no hash"))?;
    let sql = format!(
        "SELECT $1 + row_number() OVER (ORDER BY a.id) AS sequence, ''::bytea AS hash, {ACT} FROM audit a \
         LEFT JOIN projects p ON p.id = a.project_id WHERE a.id > $2 AND a.id <= $3 ORDER BY a.id LIMIT $4"
    );
    let entries: Vec<Entry> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(sequence)
        .bind(entry)
        .bind(settled)
        .bind(BATCH)
        .fetch_all(&mut *conn)
        .await?;
    let (mut sequences, mut ids, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        before = hash(&before, entry);
        sequences.push(entry.sequence);
        ids.push(entry.id);
        hashes.push(before.to_vec());
    }
    sqlx::query(
        "INSERT INTO audit_chain (sequence, entry, hash) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])",
    )
    .bind(sequences)
    .bind(ids)
    .bind(hashes)
    .execute(conn)
    .await?;
    Ok(entries.len() as u64)
}

/// What [`hex`] made.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// In hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

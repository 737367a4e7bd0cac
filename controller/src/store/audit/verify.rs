//! Whether the record still says what was written.

use sqlx::FromRow;
use uuid::Uuid;

use super::{ACT, Entry, GROUND, hash};
use crate::{
    access::{Administer, May},
    store::{Store, StoreError, Time, columns},
};

/// Rows that are verified at once.
const BATCH: i64 = 5_000;

/// What verifying has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Entries that hold.
    pub entries: u64,
    /// Of the last of them.
    pub hash: [u8; 32],
    /// The first place at which the chain does not hold, and why.
    pub broken: Option<(u64, String)>,
}

impl Store {
    /// Computes every hash anew. One that was noted earlier, as `head`, must be among them: who removes the end of the record
    /// with its links leaves a chain that holds.
    pub async fn verify_audit(&self, _by: &May<Administer>, head: Option<[u8; 32]>) -> Result<Verified, StoreError> {
        let mut verified = Verified { entries: 0, hash: GROUND, broken: None };
        let (mut last, mut seen) = (0, head.is_none());
        loop {
            // For each piece: who waits for a connection gets it between two of them.
            let mut conn = self.read().await?;
            let sql = format!(
                "SELECT c.sequence, c.hash, c.entry, {ACT} FROM audit_chain c LEFT JOIN audit a ON a.id = c.entry \
                 LEFT JOIN projects p ON p.id = a.project_id WHERE c.sequence > $1 ORDER BY c.sequence LIMIT $2"
            );
            let rows: Vec<Link> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
                .bind(columns::signed(verified.entries))
                .bind(BATCH)
                .fetch_all(&mut *conn)
                .await?;
            let Some(newest) = rows.last().map(|link| link.entry) else {
                if !seen {
                    let problem = "the hash that was noted earlier is not in the chain: what it stood for was removed";
                    verified.broken = Some((verified.entries + 1, problem.to_owned()));
                }
                return Ok(verified);
            };
            // Rows between two links that are no links were put there afterwards.
            let sql = "SELECT a.id FROM audit a LEFT JOIN audit_chain c ON c.entry = a.id \
                       WHERE a.id > $1 AND a.id < $2 AND c.entry IS NULL ORDER BY a.id LIMIT 1";
            let foreign: Option<i64> =
                sqlx::query_scalar(sql).bind(last).bind(newest).fetch_optional(&mut *conn).await?;
            drop(conn);
            for link in rows {
                let place = verified.entries + 1;
                if let Some(problem) = link.problem(place, &verified.hash, foreign) {
                    verified.broken = Some((place, problem));
                    return Ok(verified);
                }
                verified.entries = place;
                last = link.entry;
                verified.hash = link.hash.try_into().unwrap_or(GROUND);
                seen |= head == Some(verified.hash);
            }
        }
    }
}

/// A link of the chain with its entry, if that is there.
#[derive(Debug, FromRow)]
struct Link {
    sequence: i64,
    hash: Vec<u8>,
    entry: i64,
    id: Option<i64>,
    at: Option<Time>,
    actor: Option<String>,
    token: Option<String>,
    address: Option<String>,
    action: Option<String>,
    subject: Option<String>,
    project_id: Option<Uuid>,
    details: Option<String>,
}

impl Link {
    /// What is wrong with it at this `place`, after the hash `before`; `foreign` is a row that is no link.
    fn problem(&self, place: u64, before: &[u8; 32], foreign: Option<i64>) -> Option<String> {
        if self.sequence.unsigned_abs() != place {
            return Some(format!("link {place} of the chain was removed; the next one is {}", self.sequence));
        }
        if let Some(row) = foreign.filter(|row| *row < self.entry) {
            return Some(format!("row {row} was inserted before this entry after it had been chained"));
        }
        let Some(entry) = self.whole() else {
            return Some(format!("the entry (row {}) was removed", self.entry));
        };
        if hash(before, &entry)[..] != self.hash[..] {
            return Some(format!("the entry (row {}) or its link was changed", self.entry));
        }
        None
    }

    fn whole(&self) -> Option<Entry> {
        Some(Entry {
            sequence: self.sequence,
            id: self.id?,
            at: self.at?,
            actor: self.actor.clone()?,
            token: self.token.clone()?,
            address: self.address.clone()?,
            action: self.action.clone()?,
            subject: self.subject.clone()?,
            project_id: self.project_id,
            project: None,
            details: self.details.clone()?,
            hash: Vec::new(),
        })
    }
}

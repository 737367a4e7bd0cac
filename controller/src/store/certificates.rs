//! The certificate that each executor has: renewed in one transaction, and noticed when two hold its key.

use std::time::Duration;

use sculpt_core::enrolment::{Barred, Holder, Refusal, Renewal, Verdict, renew};
use sculpt_proto::id::ExecutorId;
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    columns, locks,
};

/// What a copy of a key is locked for.
const STOLEN: &str = "its key is used in two places: a certificate was renewed that had been renewed before";

/// Who was not heard of for longer than this is not waited for.
const LATELY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A renewal that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whom the certificate names.
    pub executor: ExecutorId,
    /// What it shows.
    pub renewal: Renewal,
    /// How long the new one will be good.
    pub valid_for: Duration,
    /// The pin of the authority that will sign it.
    pub authority: [u8; 32],
    /// The pins of those that it is told to trust with it.
    pub trusted: Vec<Vec<u8>>,
}

/// An executor that was not told yet of an authority.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Untold {
    /// Its name.
    pub name: String,
    /// When its certificate runs out; nobody has seen when that is of one that was never certified here.
    pub certified_until: Option<Time>,
    /// It has a session, and is told at once.
    pub connected: bool,
}

/// Why nothing is certified anew.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Somebody else has its key. Nobody may use it any more.
    #[error(
        "another machine has renewed the certificate of this executor with the same key: both are locked. Remove the copy, \
         then join again under a fresh data directory, or let an admin unlock it"
    )]
    Stolen,
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(FromRow)]
struct Row {
    name: String,
    key: Option<Vec<u8>>,
    generation: i64,
    renewal: Option<Uuid>,
    removed: bool,
}

impl Store {
    /// Renews a certificate; the generation of the new one. A copy of its key is locked, with the original.
    pub async fn renew(&self, asked: Asked) -> Result<u64, RenewError> {
        // Certified before the database was set back, and known again with its next session: until then nobody remembers
        // what it is given.
        let unknown = asked.renewal.generation.saturating_add(1);
        let verdict =
            self.write::<_, StoreError>(move |conn| Box::pin(async move { decide(conn, &asked).await })).await?;
        match verdict {
            None => Ok(unknown),
            Some(Verdict::Issue { generation } | Verdict::Repeat { generation }) => Ok(generation),
            Some(Verdict::Stolen) => Err(RenewError::Stolen),
            Some(Verdict::Refuse(refusal)) => Err(refusal.into()),
        }
    }

    /// Writes down that `executor` was certified for a key of this fingerprint, by which ssh knows it from now on: once for
    /// each key, as it is certified anew all the time.
    pub async fn certified_host(&self, executor: ExecutorId, key: String, address: String) -> Result<(), StoreError> {
        self.write(move |conn| {
            Box::pin(async move {
                let sql =
                    "UPDATE executors SET host_key = $2 WHERE id = $1 AND host_key IS DISTINCT FROM $2 RETURNING name";
                let fresh: Option<String> =
                    sqlx::query_scalar(sql).bind(executor.0).bind(&key).fetch_optional(&mut *conn).await?;
                let Some(name) = fresh else { return Ok(()) };
                let act = Act::new("executor.certify_host", audit::executor(&name)).with(json!({ "key": key }));
                audit::append(conn, &By::executor(&name, &address), act).await
            })
        })
        .await
    }

    /// Who may use the key of `executor`.
    pub async fn holder(&self, executor: ExecutorId) -> Result<Option<Holder>, StoreError> {
        let mut conn = self.read().await?;
        let row = row(&mut conn, executor, "").await?;
        match row {
            Some(row) => Ok(Some(holder(&mut conn, executor, &row).await?)),
            None => Ok(None),
        }
    }

    /// Executors whose certificate this authority has signed, or may have, and is still good: the authority is not retired
    /// before the last of them has another one.
    pub async fn certified_by(&self, authority: [u8; 32]) -> Result<Vec<String>, StoreError> {
        // Whose certificate was found to be newer than a restored row may have it from any.
        let sql = "SELECT name FROM executors WHERE (authority = $1 OR authority IS NULL) AND certified_until > now() \
                   AND removed_at IS NULL ORDER BY name";
        let mut conn = self.read().await?;
        Ok(sqlx::query_scalar(sql).bind(&authority[..]).fetch_all(&mut *conn).await?)
    }

    /// Executors that would be cut off if the authority `next` certified now: nothing that they were given says to trust it,
    /// and they have a certificate that is good, or were heard of lately.
    pub async fn untold_of(&self, next: [u8; 32]) -> Result<Vec<Untold>, StoreError> {
        let sql = "SELECT name, certified_until, liveness = 'connected' AS connected FROM executors \
                   WHERE removed_at IS NULL AND key IS NOT NULL AND $1 <> ALL (trusted) \
                   AND (certified_until > now() OR last_seen > now() - make_interval(secs => $2)) ORDER BY name";
        let mut conn = self.read().await?;
        let found = sqlx::query_as(sql).bind(&next[..]).bind(LATELY.as_secs_f64()).fetch_all(&mut *conn).await;
        Ok(found?)
    }
}

/// What becomes of it, written down. `None`: the database does not know the executor.
async fn decide(conn: &mut Connection, asked: &Asked) -> Result<Option<Verdict>, StoreError> {
    // Held to the end: of two renewals at once the second sees the first.
    let Some(row) = row(conn, asked.executor, "FOR UPDATE").await? else { return Ok(None) };
    let holder = holder(conn, asked.executor, &row).await?;
    // It has not joined here: its next session says who it is, as that of one that is not known does.
    if holder.key.is_none() && holder.barred.is_none() {
        return Ok(None);
    }
    let verdict = renew(&holder, &asked.renewal);
    match verdict {
        Verdict::Issue { generation } | Verdict::Repeat { generation } => {
            sqlx::query(
                "UPDATE executors SET generation = $2, renewal = $3, authority = $4, trusted = $6, \
                 certified_until = now() + make_interval(secs => $5) WHERE id = $1",
            )
            .bind(asked.executor.0)
            .bind(columns::signed(generation))
            .bind(asked.renewal.id)
            .bind(&asked.authority[..])
            .bind(asked.valid_for.as_secs_f64())
            .bind(&asked.trusted)
            .execute(conn)
            .await?;
        }
        Verdict::Stolen => locks::lock_executor(conn, asked.executor, &row.name, STOLEN).await?,
        Verdict::Refuse(_) => {}
    }
    Ok(Some(verdict))
}

async fn row(conn: &mut Connection, executor: ExecutorId, hold: &str) -> Result<Option<Row>, StoreError> {
    let sql = format!(
        "SELECT name, key, generation, renewal, removed_at IS NOT NULL AS removed FROM executors WHERE id = $1 {hold}"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(executor.0).fetch_optional(conn).await?)
}

async fn holder(conn: &mut Connection, executor: ExecutorId, row: &Row) -> Result<Holder, StoreError> {
    let key = row.key.as_deref().map(<[u8; 32]>::try_from).transpose();
    let key = key.map_err(|_| columns::unreadable("executors.key", "no digest"))?;
    let barred = if row.removed {
        Some(Barred::Removed)
    } else if locks::is_locked(conn, executor).await? {
        Some(Barred::Locked)
    } else {
        None
    };
    Ok(Holder { key, generation: row.generation.unsigned_abs(), renewal: row.renewal, barred })
}

//! How machines become executors: tokens that say into which pool, and who joined with them.

mod admit;

use std::{collections::BTreeMap, time::Duration};

use sculpt_proto::id::{ExecutorId, JoinTokenId};
use serde_json::json;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act},
    bearers, columns,
    pools::{self, Kept},
    prefix,
    requests::{Request, RequestError, Taken, take_request},
};
use crate::access::{Fleet, May, Unknown};

/// A join token, without what it proves.
#[derive(Clone, Debug, FromRow)]
pub struct JoinToken {
    /// Its id.
    pub id: Uuid,
    /// The pool of who joins with it.
    pub pool: String,
    /// Their labels.
    pub labels: Json<BTreeMap<String, String>>,
    /// How many may join with it.
    pub uses: i32,
    /// How many have.
    pub used: i32,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Time,
}

/// A join token to be made.
#[derive(Clone, Debug)]
pub struct NewJoinToken {
    /// SHA-256 of its secret.
    pub digest: [u8; 32],
    /// The pool of who joins with it.
    pub pool: String,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// How many may join with it.
    pub uses: u32,
    /// For how long.
    pub ttl: Duration,
}

/// A machine that wants to become an executor.
#[derive(Clone, Debug)]
pub struct Join {
    /// SHA-256 of the token's secret.
    pub digest: [u8; 32],
    /// Chosen by the machine, the same when it asks again.
    pub id: Uuid,
    /// Of its data directory.
    pub executor: ExecutorId,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Its wished name.
    pub name: String,
    /// Its machine.
    pub hostname: String,
    /// Its build.
    pub version: String,
    /// Where it calls from.
    pub address: String,
    /// How long its certificate will be good.
    pub valid_for: Duration,
    /// The pin of the authority that will sign it.
    pub authority: [u8; 32],
    /// The pins of those that it is told to trust with it.
    pub trusted: Vec<Vec<u8>>,
}

/// An executor that has joined, and is to be certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub executor: ExecutorId,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Of its certificate.
    pub generation: u64,
}

/// Why a machine does not become an executor, or a token is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody here made the token.
    #[error("the join token is not one of this controller; `sculpt executor token` makes one")]
    Foreign,
    /// Its time is over.
    #[error("the join token has expired; `sculpt executor token` makes another one")]
    Expired,
    /// Somebody revoked it.
    #[error("the join token was revoked; `sculpt executor token` makes another one")]
    Revoked,
    /// As many have joined with it as may.
    #[error("the join token is used up; `sculpt executor token` makes another one, with --uses for several machines")]
    UsedUp,
    /// The id of the join was used for something else.
    #[error("this join_id belongs to another executor, key or token; join again with a fresh one")]
    Reused,
    /// Who made the token was removed.
    #[error("the join token's maker, {0}, was removed; let an admin make another one with `sculpt executor token`")]
    MakerRemoved(String),
    /// Who made the token is locked.
    #[error(
        "the join token's maker, {0}, is locked; let an admin unlock them with `sculpt unlock`, or make another one with \
         `sculpt executor token`"
    )]
    MakerLocked(String),
    /// The executor has no key yet, and stands in another pool than the token's.
    #[error(
        "executor {executor} is of pool {pool:?} since before it had a certificate, and the join token is for another one; \
         join with a token for that pool, or under a fresh data directory"
    )]
    OtherPool {
        /// Whom the machine says to be.
        executor: ExecutorId,
        /// Where it stands.
        pool: String,
    },
    /// It has renewed what it got by this join, so no answer was lost: who asks again may be a copy.
    #[error(
        "executor {0} has joined with this token and has renewed its certificate since; `sculpt-executor run` starts it, and \
         another token (`sculpt executor token`) lets it join anew"
    )]
    Renewed(ExecutorId),
    /// The executor has another key.
    #[error(
        "executor {0} has joined before with another key; remove it with `sculpt executor rm`, or join under a fresh data \
         directory"
    )]
    OtherKey(ExecutorId),
    /// It was removed.
    #[error("executor {0} was removed from this controller; join again under a fresh data directory")]
    Removed(ExecutorId),
    /// It is locked.
    #[error("executor {0} is locked; an admin can unlock it with `sculpt unlock`")]
    Locked(ExecutorId),
    /// Another executor has the name.
    #[error(
        "another executor is named {0:?}; if this machine was installed anew, remove its old self with `sculpt executor rm`, \
         else join under another name"
    )]
    NameTaken(String),
    /// What was set of the pool was removed while the token was being made.
    #[error(
        "the pool {0} was removed meanwhile, and who joins would take everybody's tasks; ask again if they shall, or set its \
         rules with `sculpt pool set {0}` first"
    )]
    PoolRemoved(String),
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// There is no such token.
    #[error("there is no join token {0:?} that can be used; `sculpt executor token --ls` lists those there are")]
    Unknown(String),
    /// There are several.
    #[error("{0:?} is the beginning of several join tokens' uuids; give more of it")]
    Ambiguous(String),
    /// The request was done before, and its secret is not kept.
    #[error(
        "this request has made join token {0} before, and its secret was shown then and is not kept; revoke that token if \
         the answer was lost, and ask for another one with a fresh request_id"
    )]
    Repeated(JoinTokenId),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT id, pool, labels, uses, used, created_by, created_at, expires_at FROM join_tokens";

impl Store {
    /// Makes a join token.
    pub async fn create_join_token(
        &self,
        by: May<Fleet>,
        request: Request,
        new: NewJoinToken,
    ) -> Result<JoinToken, JoinError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                let id = JoinTokenId::fresh();
                if let Taken::Done(done) = take_request(conn, &request, id.0).await? {
                    return Err(JoinError::Repeated(JoinTokenId(done)));
                }
                if pools::keep(conn, &new.pool).await? == Kept::Removed {
                    return Err(JoinError::PoolRemoved(new.pool));
                }
                sqlx::query(
                    "INSERT INTO join_tokens (id, digest, pool, labels, uses, created_by, expires_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))",
                )
                .bind(id.0)
                .bind(&new.digest[..])
                .bind(&new.pool)
                .bind(Json(&new.labels))
                .bind(columns::number(new.uses))
                .bind(by.by().actor())
                .bind(new.ttl.as_secs_f64())
                .execute(&mut *conn)
                .await
                .map_err(StoreError::from)?;
                let details =
                    json!({ "pool": new.pool, "labels": new.labels, "uses": new.uses, "seconds": new.ttl.as_secs() });
                let act = Act::new("join_token.create", format!("join_token:{id}")).with(details);
                audit::append(conn, &by.by(), act).await?;
                Ok(one(conn, id).await?)
            })
        })
        .await
    }

    /// Join tokens that can still be used, oldest first.
    pub async fn join_tokens(&self, _by: &May<Fleet>) -> Result<Vec<JoinToken>, StoreError> {
        let sql =
            format!("{SELECT} WHERE revoked_at IS NULL AND expires_at > now() AND used < uses ORDER BY created_at, id");
        let mut conn = self.read().await?;
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await?)
    }

    /// Revokes the join token of this uuid, or whose uuid begins so.
    pub async fn revoke_join_token(
        &self,
        by: May<Fleet>,
        request: Request,
        name: String,
    ) -> Result<JoinToken, JoinError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                if let Some(done) = super::requests::repeated(conn, &request).await? {
                    return Ok(one(conn, JoinTokenId(done)).await?);
                }
                let id = find(conn, &name).await?;
                take_request(conn, &request, id.0).await?;
                let sql = "UPDATE join_tokens SET revoked_at = now() WHERE id = $1";
                sqlx::query(sql).bind(id.0).execute(&mut *conn).await.map_err(StoreError::from)?;
                audit::append(conn, &by.by(), Act::new("join_token.revoke", format!("join_token:{id}"))).await?;
                Ok(one(conn, id).await?)
            })
        })
        .await
    }

    /// Makes a machine an executor, once: the same join again is given the same answer and uses nothing up.
    pub async fn join(&self, join: Join) -> Result<Joined, JoinError> {
        self.write(move |conn| Box::pin(async move { admit::join_in(conn, &join).await })).await
    }
}

/// Revokes what `maker` made and can still be used, and tells which.
pub(super) async fn revoke_of(conn: &mut Connection, maker: &str) -> Result<Vec<Uuid>, StoreError> {
    let sql = "UPDATE join_tokens SET revoked_at = now() WHERE created_by = $1 AND revoked_at IS NULL \
               AND expires_at > now() AND used < uses RETURNING id";
    Ok(sqlx::query_scalar(sql).bind(maker).fetch_all(conn).await?)
}

/// The join token that is meant by `name`, among those that were not revoked.
async fn find(conn: &mut Connection, name: &str) -> Result<JoinTokenId, JoinError> {
    let unknown = || JoinError::Unknown(name.to_owned());
    let (from, to) = prefix::uuids(name).ok_or_else(unknown)?;
    let sql = "SELECT id FROM join_tokens WHERE id BETWEEN $1 AND $2 AND revoked_at IS NULL LIMIT 2";
    let found: Vec<Uuid> =
        sqlx::query_scalar(sql).bind(from).bind(to).fetch_all(conn).await.map_err(StoreError::from)?;
    match found.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(JoinTokenId(*one)),
        _ => Err(JoinError::Ambiguous(name.to_owned())),
    }
}

async fn one(conn: &mut Connection, id: JoinTokenId) -> Result<JoinToken, StoreError> {
    let sql = format!("{SELECT} WHERE id = $1");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_one(conn).await?)
}

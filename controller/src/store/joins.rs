//! How machines become executors: tokens that say into which pool, and who joined with them.

use std::{collections::BTreeMap, time::Duration};

use sculpt_proto::id::{ExecutorId, JoinTokenId};
use serde_json::json;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    columns,
    requests::{Request, RequestError, Taken, take_request},
    users::STANDING,
};
use crate::access::{Fleet, May};

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

/// A token's row as a join finds it.
#[derive(FromRow)]
struct Offered {
    id: Uuid,
    pool: String,
    labels: Json<BTreeMap<String, String>>,
    created_by: String,
    used_up: bool,
    expired: bool,
    revoked: bool,
    maker_removed: bool,
    maker_locked: bool,
}

/// An executor's row as a join finds it.
#[derive(FromRow)]
struct Known {
    name: String,
    pool: String,
    labels: Json<BTreeMap<String, String>>,
    key: Option<Vec<u8>>,
    generation: i64,
    renewed: bool,
    removed: bool,
}

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
                let id = JoinTokenId::fresh();
                if let Taken::Done(done) = take_request(conn, &request, id.0).await? {
                    return Err(JoinError::Repeated(JoinTokenId(done)));
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
                if let Some(done) = super::requests::repeated(conn, &request).await? {
                    return Ok(one(conn, JoinTokenId(done)).await?);
                }
                let prefix = name.to_ascii_lowercase();
                let hex = prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
                let sql =
                    "SELECT id FROM join_tokens WHERE $1 AND id::text LIKE $2 || '%' AND revoked_at IS NULL LIMIT 2";
                let found: Vec<Uuid> = sqlx::query_scalar(sql)
                    .bind(hex)
                    .bind(prefix)
                    .fetch_all(&mut *conn)
                    .await
                    .map_err(StoreError::from)?;
                let id = match found.as_slice() {
                    [] => return Err(JoinError::Unknown(name)),
                    [one] => JoinTokenId(*one),
                    _ => return Err(JoinError::Ambiguous(name)),
                };
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
        self.write(move |conn| Box::pin(async move { join_in(conn, &join).await })).await
    }
}

/// Revokes what `maker` made and can still be used, and tells which.
pub(super) async fn revoke_of(conn: &mut Connection, maker: &str) -> Result<Vec<Uuid>, StoreError> {
    let sql = "UPDATE join_tokens SET revoked_at = now() WHERE created_by = $1 AND revoked_at IS NULL \
               AND expires_at > now() AND used < uses RETURNING id";
    Ok(sqlx::query_scalar(sql).bind(maker).fetch_all(conn).await?)
}

impl Offered {
    /// Why nobody joins with it.
    fn refused(&self) -> Option<JoinError> {
        Some(match self {
            Self { revoked: true, .. } => JoinError::Revoked,
            Self { expired: true, .. } => JoinError::Expired,
            Self { used_up: true, .. } => JoinError::UsedUp,
            Self { maker_removed: true, created_by, .. } => JoinError::MakerRemoved(created_by.clone()),
            Self { maker_locked: true, created_by, .. } => JoinError::MakerLocked(created_by.clone()),
            _ => return None,
        })
    }
}

async fn join_in(conn: &mut Connection, join: &Join) -> Result<Joined, JoinError> {
    // The row is held, so that of two at once the second sees what the first has used.
    let sql = format!(
        "SELECT j.id, j.pool, j.labels, j.created_by, j.used >= j.uses AS used_up, j.expires_at <= now() AS expired, \
         j.revoked_at IS NOT NULL AS revoked, \
         EXISTS (SELECT FROM users u WHERE u.name = j.created_by AND u.removed_at IS NOT NULL) AS maker_removed, \
         EXISTS (SELECT FROM users u JOIN locks l ON l.user_id = u.id WHERE u.name = j.created_by AND {STANDING}) \
         AS maker_locked FROM join_tokens j WHERE j.digest = $1 FOR UPDATE OF j"
    );
    let offered: Option<Offered> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&join.digest[..])
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::from)?;
    let token = offered.ok_or(JoinError::Foreign)?;
    if let Some(joined) = repeated(conn, join, &token).await? {
        return Ok(joined);
    }
    if let Some(error) = token.refused() {
        return Err(error);
    }
    let generation = match known(conn, join.executor).await? {
        Some(known) if known.removed => return Err(JoinError::Removed(join.executor)),
        Some(known) if known.key.as_ref().is_some_and(|key| key[..] != join.key[..]) => {
            return Err(JoinError::OtherKey(join.executor));
        }
        // Nothing but its id, which people see, says that it is that machine: no token is trusted beyond its pool.
        Some(known) if known.key.is_none() && known.pool != token.pool => {
            return Err(JoinError::OtherPool { executor: join.executor, pool: known.pool });
        }
        Some(known) => known.generation + 1,
        None => 1,
    };
    if super::locks::is_locked(conn, join.executor).await? {
        return Err(JoinError::Locked(join.executor));
    }
    certify(conn, join, &token, generation).await?;
    let used = "UPDATE join_tokens SET used = used + 1 WHERE id = $1";
    sqlx::query(used).bind(token.id).execute(&mut *conn).await.map_err(StoreError::from)?;
    let done = sqlx::query("INSERT INTO joins (id, token_id, executor_id, key) VALUES ($1, $2, $3, $4)")
        .bind(join.id)
        .bind(token.id)
        .bind(join.executor.0)
        .bind(&join.key[..])
        .execute(&mut *conn)
        .await;
    match done.map_err(StoreError::from) {
        // Used with another token.
        Err(StoreError::Conflict { constraint, .. }) if constraint == "joins_pkey" => return Err(JoinError::Reused),
        done => done?,
    };
    let details = json!({ "executor_id": join.executor, "join_token": token.id, "pool": token.pool,
                          "key": audit::hex(&join.key) });
    let act = Act::new("executor.join", audit::executor(&join.name)).with(details);
    audit::append(conn, &By::executor(&join.name, &join.address), act).await?;
    Ok(Joined {
        executor: join.executor,
        name: join.name.clone(),
        pool: token.pool,
        labels: token.labels.0,
        generation: generation.unsigned_abs(),
    })
}

/// The answer that a lost one is replaced by, as long as it has not renewed since.
async fn repeated(conn: &mut Connection, join: &Join, token: &Offered) -> Result<Option<Joined>, JoinError> {
    let before: Option<(Uuid, Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT token_id, executor_id, key FROM joins WHERE id = $1")
            .bind(join.id)
            .fetch_optional(&mut *conn)
            .await
            .map_err(StoreError::from)?;
    let Some((by, executor, key)) = before else { return Ok(None) };
    if by != token.id || executor != join.executor.0 || key[..] != join.key[..] {
        return Err(JoinError::Reused);
    }
    let known = known(conn, join.executor).await?.ok_or(JoinError::Removed(join.executor))?;
    if known.removed {
        return Err(JoinError::Removed(join.executor));
    }
    if known.key.as_ref().is_none_or(|key| key[..] != join.key[..]) {
        return Err(JoinError::OtherKey(join.executor));
    }
    if super::locks::is_locked(conn, join.executor).await? {
        return Err(JoinError::Locked(join.executor));
    }
    if known.renewed {
        return Err(JoinError::Renewed(join.executor));
    }
    Ok(Some(Joined {
        executor: join.executor,
        name: known.name,
        pool: known.pool,
        labels: known.labels.0,
        generation: known.generation.unsigned_abs(),
    }))
}

async fn known(conn: &mut Connection, executor: ExecutorId) -> Result<Option<Known>, StoreError> {
    let sql = "SELECT name, pool, labels, key, generation, renewal IS NOT NULL AS renewed, \
               removed_at IS NOT NULL AS removed FROM executors WHERE id = $1 FOR UPDATE";
    Ok(sqlx::query_as(sql).bind(executor.0).fetch_optional(conn).await?)
}

/// Writes the executor's row with the certificate that it is given. It is not connected yet.
async fn certify(conn: &mut Connection, join: &Join, token: &Offered, generation: i64) -> Result<(), JoinError> {
    let done = sqlx::query(
        "INSERT INTO executors (id, name, pool, labels, slots, hostname, version, liveness, key, \
         generation, certified_until, authority, owner, trusted) VALUES ($1, $2, $3, $4, 0, $5, $6, 'unreachable', \
         $7, $8, now() + make_interval(secs => $9), $10, $11, $12) \
         ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, pool = EXCLUDED.pool, owner = EXCLUDED.owner, \
         labels = EXCLUDED.labels, key = EXCLUDED.key, generation = EXCLUDED.generation, renewal = NULL, \
         certified_until = EXCLUDED.certified_until, authority = EXCLUDED.authority, trusted = EXCLUDED.trusted \
         WHERE executors.removed_at IS NULL AND (executors.key IS NULL OR executors.key = EXCLUDED.key)",
    )
    .bind(join.executor.0)
    .bind(&join.name)
    .bind(&token.pool)
    .bind(Json(&token.labels.0))
    .bind(&join.hostname)
    .bind(&join.version)
    .bind(&join.key[..])
    .bind(generation)
    .bind(join.valid_for.as_secs_f64())
    .bind(&join.authority[..])
    .bind(&token.created_by)
    .bind(&join.trusted)
    .execute(&mut *conn)
    .await;
    let written = match done.map_err(StoreError::from) {
        Err(StoreError::Conflict { constraint, .. }) if constraint == "executors_name_key" => {
            return Err(JoinError::NameTaken(join.name.clone()));
        }
        done => done?.rows_affected(),
    };
    // Another join was first, when there was no row yet that this one could have held.
    match written {
        0 if known(conn, join.executor).await?.is_some_and(|known| known.removed) => {
            Err(JoinError::Removed(join.executor))
        }
        0 => Err(JoinError::OtherKey(join.executor)),
        _ => Ok(()),
    }
}

async fn one(conn: &mut Connection, id: JoinTokenId) -> Result<JoinToken, StoreError> {
    let sql = format!("{SELECT} WHERE id = $1");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_one(conn).await?)
}

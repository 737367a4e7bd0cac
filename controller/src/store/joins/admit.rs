//! A machine that joins: whether its token and its id let it, and its row.

use std::collections::BTreeMap;

use sculpt_proto::id::ExecutorId;
use serde_json::json;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{Join, JoinError, Joined};
use crate::store::{
    Connection, StoreError,
    audit::{self, Act, By},
    locks,
    users::STANDING,
};

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

/// Makes a machine an executor, or answers it again.
pub(super) async fn join_in(conn: &mut Connection, join: &Join) -> Result<Joined, JoinError> {
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
    if locks::is_locked(conn, join.executor).await? {
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
    if locks::is_locked(conn, join.executor).await? {
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

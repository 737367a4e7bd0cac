//! Who shows a token, and whether they still may what they were let in for.
//!
//! What gives rights may be done by many at once, what takes them by one at a time and by nobody else meanwhile: who takes
//! sees what was given, and who has just lost a right gives none. Both wait before they touch any row.

use std::time::Duration;

use sculpt_core::rights::Role;
use sculpt_proto::id::{ProjectId, TokenId, UserId};
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Connection, Store, StoreError, columns, users::STANDING};
use crate::access::{Caller, Unknown};

/// What is known of somebody who shows a token.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The token.
    pub token: TokenId,
    /// Its owner.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Whether it counts.
    pub standing: Standing,
    /// When it runs out.
    pub expires_in: Option<Duration>,
    /// What the owner is.
    pub roles: Vec<(Option<ProjectId>, Role)>,
    /// What the token is limited to.
    pub scope: Option<Vec<(Option<ProjectId>, Role)>>,
    /// Names of some who can give rights.
    pub admins: Vec<String>,
}

/// Whether a token counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Good,
    /// Its owner was removed.
    Removed,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// Its owner is locked, for this reason.
    UserLocked(String),
    /// It is locked, for this reason.
    TokenLocked(String),
}

impl Store {
    /// Who shows a token of this digest.
    pub async fn bearer(&self, digest: &[u8; 32]) -> Result<Option<Bearer>, StoreError> {
        let sql = select("t.digest = $1");
        let mut conn = self.read().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&digest[..]).fetch_optional(&mut *conn).await?;
        row.as_ref().map(read).transpose()
    }
}

/// By which all that gives or takes rights is told to wait.
const RIGHTS: &str = "sculpt rights";

/// Keeps everybody's rights until the transaction ends, and refuses a `caller` who has lost theirs since they were let in.
/// Before what gives rights.
pub(super) async fn lock_rights_shared(conn: &mut Connection, caller: &Caller) -> Result<(), Unknown> {
    let sql = "SELECT pg_advisory_xact_lock_shared(hashtext($1))";
    sqlx::query(sql).bind(RIGHTS).execute(&mut *conn).await.map_err(StoreError::from)?;
    still(conn, caller).await
}

/// Lets nobody else give or take rights until the transaction ends.
pub(super) async fn lock_rights_exclusive_as_host(conn: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))").bind(RIGHTS).execute(conn).await?;
    Ok(())
}

/// The same, and refuses a `caller` who has lost theirs since they were let in. Before what takes rights.
pub(super) async fn lock_rights_exclusive(conn: &mut Connection, caller: &Caller) -> Result<(), Unknown> {
    lock_rights_exclusive_as_host(conn).await?;
    still(conn, caller).await
}

/// What is known of those who show these tokens. Of whom another version wrote what this one cannot read nothing is known:
/// nobody else is to wait for that.
pub(super) async fn of(conn: &mut Connection, tokens: &[TokenId]) -> Result<Vec<Bearer>, StoreError> {
    let ids: Vec<Uuid> = tokens.iter().map(|token| token.0).collect();
    let rows = sqlx::query(sqlx::AssertSqlSafe(select("t.id = ANY ($1)"))).bind(ids).fetch_all(conn).await?;
    let known = |row| {
        let unread = |error: &StoreError| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "somebody's rights cannot be read, so they have none"
            );
        };
        read(row).inspect_err(unread).ok()
    };
    Ok(rows.iter().filter_map(known).collect())
}

/// A statement of its own: what was committed while the lock was waited for is seen by none that began before.
async fn still(conn: &mut Connection, caller: &Caller) -> Result<(), Unknown> {
    let sql = select("t.id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(caller.token().0).fetch_optional(conn).await;
    let now = row.map_err(StoreError::from)?.as_ref().map(read).transpose()?;
    caller.still(now)
}

fn select(condition: &str) -> String {
    format!(
        "SELECT t.id, t.user_id, u.name, t.scoped, u.removed_at IS NOT NULL AS removed, \
         t.revoked_at IS NOT NULL AS revoked, EXTRACT(EPOCH FROM t.expires_at - now())::float8 AS left, \
         (SELECT l.reason FROM locks l WHERE l.user_id = u.id AND {STANDING} LIMIT 1) AS user_locked, \
         (SELECT l.reason FROM locks l WHERE l.token_id = t.id AND {STANDING} LIMIT 1) AS token_locked, \
         ARRAY(SELECT r.role::text FROM role_bindings r WHERE r.user_id = u.id ORDER BY r.ctid) AS roles, \
         ARRAY(SELECT r.project_id FROM role_bindings r WHERE r.user_id = u.id ORDER BY r.ctid) AS projects, \
         ARRAY(SELECT s.role::text FROM token_scopes s WHERE s.token_id = t.id ORDER BY s.ctid) AS scope_roles, \
         ARRAY(SELECT s.project_id FROM token_scopes s WHERE s.token_id = t.id ORDER BY s.ctid) AS scope_projects, \
         ARRAY(SELECT a.name FROM users a JOIN role_bindings r ON r.user_id = a.id WHERE a.removed_at IS NULL \
           AND r.role = 'admin' AND r.project_id IS NULL ORDER BY a.created_at LIMIT 3) AS admins \
         FROM tokens t JOIN users u ON u.id = t.user_id WHERE {condition}"
    )
}

fn read(row: &PgRow) -> Result<Bearer, StoreError> {
    let grants = |roles: &str, projects: &str| -> Result<Vec<(Option<ProjectId>, Role)>, StoreError> {
        let roles: Vec<String> = row.try_get(roles)?;
        let projects: Vec<Option<Uuid>> = row.try_get(projects)?;
        let one = |(role, project): (String, Option<Uuid>)| {
            let role = role.parse().map_err(|_| columns::unreadable("role_bindings.role", &role))?;
            Ok((project.map(ProjectId), role))
        };
        roles.into_iter().zip(projects).map(one).collect()
    };
    let left: Option<f64> = row.try_get("left")?;
    let (user_locked, token_locked): (Option<String>, Option<String>) =
        (row.try_get("user_locked")?, row.try_get("token_locked")?);
    let standing = match (user_locked, token_locked) {
        _ if row.try_get("removed")? => Standing::Removed,
        _ if row.try_get("revoked")? => Standing::Revoked,
        _ if left.is_some_and(|left| left <= 0.0) => Standing::Expired,
        (Some(reason), _) => Standing::UserLocked(reason),
        (None, Some(reason)) => Standing::TokenLocked(reason),
        (None, None) => Standing::Good,
    };
    let scope = grants("scope_roles", "scope_projects")?;
    Ok(Bearer {
        token: TokenId(row.try_get("id")?),
        user: UserId(row.try_get("user_id")?),
        name: row.try_get("name")?,
        standing,
        // A span beyond what a clock can count is for ever.
        expires_in: left.and_then(|left| Duration::try_from_secs_f64(left.max(0.0)).ok()),
        roles: grants("roles", "projects")?,
        scope: row.try_get::<bool, _>("scoped")?.then_some(scope),
        admins: row.try_get("admins")?,
    })
}

//! Tokens of users: what they may is their owner's, narrowed by a scope. Only digests are kept.

use std::{collections::BTreeMap, time::Duration};

use sculpt_core::rights::Role;
use sculpt_proto::id::{ProjectId, TokenId, UserId};
use serde_json::json;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    columns,
    requests::{Request, RequestError, Taken, take_request},
    roles::{self, Binding, Wish},
    users::{self, STANDING, User, UserError},
};
use crate::access::{Administer, Caller, May, Whose};

/// A token, without what it proves.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Its owner's name.
    pub user: String,
    /// What its owner calls it.
    pub name: String,
    /// What it is limited to; `None`: all that its owner may.
    pub scope: Option<Vec<Binding>>,
    /// Since when.
    pub created_at: Time,
    /// Until when; `None`: for ever.
    pub expires_at: Option<Time>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<Time>,
    /// From where.
    pub last_used_from: String,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// SHA-256 of its secret.
    pub digest: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// What it is limited to; empty: all that its owner may.
    pub scope: Vec<Wish>,
    /// For how long; `None`: for ever.
    pub ttl: Option<Duration>,
}

/// For whom a token is made.
#[derive(Clone, Debug)]
pub enum For {
    /// For who calls.
    Caller(Caller),
    /// For the user of this name.
    User(May<Administer>, String),
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is none of this id.
    #[error("there is no token {0:?}; `sculpt token ls` lists those there are")]
    Unknown(String),
    /// There are several.
    #[error("{0:?} is the beginning of several tokens' uuids; give more of it")]
    Ambiguous(String),
    /// The request was done before, and its secret is not kept.
    #[error(
        "this request has made token {0} before, and its secret was shown then and is not kept; revoke that token if the \
         answer was lost, and ask for another one with a fresh request_id"
    )]
    Repeated(TokenId),
    /// One token cannot be used to get around its own limits.
    #[error("this token is limited: it makes no tokens, and revokes none but itself; use one of yours that is not")]
    Limited,
    /// The owner, or a project of the scope.
    #[error(transparent)]
    User(#[from] UserError),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

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
        let sql = format!(
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
             FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.digest = $1"
        );
        let mut conn = self.read().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&digest[..]).fetch_optional(&mut *conn).await?;
        row.as_ref().map(bearer).transpose()
    }

    /// Makes a token.
    pub async fn create_token(&self, whom: For, request: Request, new: NewToken) -> Result<Token, TokenError> {
        let caller = match &whom {
            For::Caller(caller) => caller.clone(),
            For::User(by, _) => by.caller().clone(),
        };
        if caller.is_limited() {
            return Err(TokenError::Limited);
        }
        self.write(move |conn| {
            Box::pin(async move {
                let id = TokenId::fresh();
                if let Taken::Done(done) = take_request(conn, &request, id.0).await? {
                    return Err(TokenError::Repeated(TokenId(done)));
                }
                let owner = match &whom {
                    For::Caller(caller) => caller.user(),
                    For::User(_, name) => users::named(conn, name).await?.id(),
                };
                users::hold(conn, &[caller.user(), owner]).await?;
                let owner = users::by_id(conn, owner).await?;
                insert(conn, &caller, id, &owner, new).await?;
                one(conn, id).await
            })
        })
        .await
    }

    /// Tokens, oldest first.
    pub async fn tokens(&self, whose: &Whose, revoked_too: bool) -> Result<Vec<Token>, StoreError> {
        let sql = select("($1::uuid IS NULL OR t.user_id = $1) AND ($2 OR t.revoked_at IS NULL)");
        let mut conn = self.read().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(whose.user().map(|user| user.0))
            .bind(revoked_too)
            .fetch_all(&mut *conn)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The token that a caller shows.
    pub async fn token(&self, caller: &Caller) -> Result<Token, TokenError> {
        one(&mut *self.read().await?, caller.token()).await
    }

    /// Revokes the token of this uuid, or whose uuid begins so; to be revoked already is fine.
    pub async fn revoke_token(&self, whose: Whose, request: Request, name: String) -> Result<Token, TokenError> {
        self.write(move |conn| {
            Box::pin(async move {
                let id = find(conn, &whose, &name).await?;
                let caller = whose.caller();
                if whose.user().is_some() && caller.is_limited() && id != caller.token() {
                    return Err(TokenError::Limited);
                }
                if let Taken::Fresh = take_request(conn, &request, id.0).await? {
                    let sql = "UPDATE tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL";
                    let done = sqlx::query(sql).bind(id.0).execute(&mut *conn).await.map_err(StoreError::from)?;
                    if done.rows_affected() == 1 {
                        let user = one(conn, id).await?.user;
                        let act = Act::new("token.revoke", format!("token:{id}")).with(json!({ "user": user }));
                        audit::append(conn, &whose.caller().by(), act).await?;
                    }
                }
                one(conn, id).await
            })
        })
        .await
    }

    /// Writes down that these tokens were used, and from where.
    pub(crate) async fn note_use(&self, used: BTreeMap<TokenId, String>) -> Result<(), StoreError> {
        let (ids, addresses): (Vec<Uuid>, Vec<String>) = used.into_iter().map(|(id, from)| (id.0, from)).unzip();
        // Replicas that note the same tokens at once hold them in one order.
        let sql = "WITH held AS MATERIALIZED (SELECT id FROM tokens WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE) \
                   UPDATE tokens t SET last_used_at = date_trunc('minute', now()), last_used_from = u.address \
                   FROM held JOIN unnest($1::uuid[], $2::text[]) AS u (id, address) ON u.id = held.id \
                   WHERE t.id = held.id";
        self.write(move |conn| {
            Box::pin(async move {
                sqlx::query(sql).bind(ids).bind(addresses).execute(conn).await?;
                Ok(())
            })
        })
        .await
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT t.id, u.name AS user_name, t.name, t.scoped, t.created_at, t.expires_at, t.last_used_at, \
         t.last_used_from, t.revoked_at, b.roles, b.projects, b.names FROM tokens t JOIN users u ON u.id = t.user_id \
         CROSS JOIN LATERAL (SELECT COALESCE(array_agg(s.role::text ORDER BY s.ctid), '{{}}') AS roles, \
           COALESCE(array_agg(s.project_id ORDER BY s.ctid), '{{}}') AS projects, \
           COALESCE(array_agg(p.name ORDER BY s.ctid), '{{}}') AS names \
           FROM token_scopes s LEFT JOIN projects p ON p.id = s.project_id WHERE s.token_id = t.id) b \
         WHERE {condition} ORDER BY t.created_at, t.id"
    )
}

fn read(row: &PgRow) -> Result<Token, StoreError> {
    let scope = roles::read(row.try_get("roles")?, row.try_get("projects")?, row.try_get("names")?)?;
    Ok(Token {
        id: row.try_get("id")?,
        user: row.try_get("user_name")?,
        name: row.try_get("name")?,
        scope: row.try_get::<bool, _>("scoped")?.then_some(scope),
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
        last_used_from: row.try_get("last_used_from")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

fn bearer(row: &PgRow) -> Result<Bearer, StoreError> {
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

async fn insert(
    conn: &mut Connection,
    caller: &Caller,
    id: TokenId,
    owner: &User,
    new: NewToken,
) -> Result<(), TokenError> {
    sqlx::query(
        "INSERT INTO tokens (id, user_id, name, digest, scoped, expires_at) \
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))",
    )
    .bind(id.0)
    .bind(owner.id)
    .bind(&new.name)
    .bind(&new.digest[..])
    .bind(!new.scope.is_empty())
    .bind(new.ttl.map(|ttl| ttl.as_secs_f64()))
    .execute(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let mut told = Vec::new();
    for wish in new.scope {
        let binding = roles::resolve(conn, &caller.sees(), wish).await?;
        let (project, role) = binding.grant();
        sqlx::query(
            "INSERT INTO token_scopes (token_id, project_id, role) VALUES ($1, $2, $3::role) ON CONFLICT DO NOTHING",
        )
        .bind(id.0)
        .bind(project.map(|project| project.0))
        .bind(role.as_str())
        .execute(&mut *conn)
        .await
        .map_err(StoreError::from)?;
        told.push(json!([role.as_str(), binding.project.map(|(_, name)| name)]));
    }
    let details =
        json!({ "user": owner.name, "name": new.name, "scope": told, "seconds": new.ttl.map(|ttl| ttl.as_secs()) });
    Ok(audit::append(conn, &caller.by(), Act::new("token.create", format!("token:{id}")).with(details)).await?)
}

/// The token of an admin who has no other.
pub(super) async fn insert_first(
    conn: &mut Connection,
    by: &By,
    owner: &User,
    digest: [u8; 32],
) -> Result<TokenId, StoreError> {
    let id = TokenId::fresh();
    sqlx::query("INSERT INTO tokens (id, user_id, name, digest) VALUES ($1, $2, 'first', $3)")
        .bind(id.0)
        .bind(owner.id)
        .bind(&digest[..])
        .execute(&mut *conn)
        .await?;
    let act = Act::new("token.create", format!("token:{id}")).with(json!({ "user": owner.name, "name": "first" }));
    audit::append(conn, by, act).await?;
    Ok(id)
}

/// Revokes all tokens of `user`, and those that somebody is making.
pub(super) async fn revoke_all(conn: &mut Connection, user: UserId) -> Result<(), StoreError> {
    users::hold(conn, &[user]).await?;
    let sql = "UPDATE tokens SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL";
    sqlx::query(sql).bind(user.0).execute(conn).await?;
    Ok(())
}

async fn one(conn: &mut Connection, id: TokenId) -> Result<Token, TokenError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(select("t.id = $1"))).bind(id.0).fetch_optional(conn).await;
    let row = row.map_err(StoreError::from)?.ok_or_else(|| TokenError::Unknown(id.to_string()))?;
    Ok(read(&row)?)
}

/// The token that is meant by `name`, among those that may be looked after.
pub(super) async fn find(conn: &mut Connection, whose: &Whose, name: &str) -> Result<TokenId, TokenError> {
    let prefix = name.to_ascii_lowercase();
    let hex = prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let sql =
        "SELECT id FROM tokens WHERE $1 AND id::text LIKE $2 || '%' AND ($3::uuid IS NULL OR user_id = $3) LIMIT 2";
    let found: Vec<Uuid> = sqlx::query_scalar(sql)
        .bind(hex)
        .bind(prefix)
        .bind(whose.user().map(|user| user.0))
        .fetch_all(conn)
        .await
        .map_err(StoreError::from)?;
    match found.as_slice() {
        [] => Err(TokenError::Unknown(name.to_owned())),
        [one] => Ok(TokenId(*one)),
        _ => Err(TokenError::Ambiguous(name.to_owned())),
    }
}

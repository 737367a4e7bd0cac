//! Tokens of users: what they may is their owner's, narrowed by a scope. Only digests are kept.

use std::{collections::BTreeMap, time::Duration};

use sculpt_core::rights::Grants;
use sculpt_proto::id::{TokenId, UserId};
use serde_json::json;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    bearers, prefix,
    requests::{Request, RequestError, Taken, take_request},
    roles::{self, Binding, Wish},
    users::{self, User, UserError},
};
use crate::access::{Administer, Caller, May, Unknown, Whose};

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
    /// It would be limited to what its owner may not.
    #[error(
        "{owner} has {has}, and the token would have {asked}; a token gives no more than its owner has: ask for less, or let \
         an admin give {owner} that role with `sculpt admin user grant`"
    )]
    Wider {
        /// Whose it would be.
        owner: String,
        /// What they are.
        has: String,
        /// What of the scope is more than that.
        asked: String,
    },
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
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

impl Store {
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
                bearers::lock_rights_shared(conn, &caller).await?;
                let id = TokenId::fresh();
                if let Taken::Done(done) = take_request(conn, &request, id.0).await? {
                    return Err(TokenError::Repeated(TokenId(done)));
                }
                let owner = match &whom {
                    For::Caller(caller) => users::by_id(conn, caller.user()).await?,
                    For::User(_, name) => users::named(conn, name).await?,
                };
                let scope = resolved(conn, &caller, &new.scope).await?;
                within(&owner, &scope)?;
                insert(conn, &caller, id, &owner, &new, &scope).await?;
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
                let caller = whose.caller();
                bearers::lock_rights_exclusive(conn, caller).await?;
                let id = find(conn, &whose, &name).await?;
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

/// What the scope of a token means to who makes it.
async fn resolved(conn: &mut Connection, caller: &Caller, scope: &[Wish]) -> Result<Vec<Binding>, UserError> {
    let mut bindings = Vec::with_capacity(scope.len());
    for wish in scope {
        bindings.push(roles::resolve(conn, &caller.sees(), wish.clone()).await?);
    }
    Ok(bindings)
}

/// Refuses a scope that reaches beyond what `owner` is: it would say more than it gives, and give it unasked once they are
/// more.
fn within(owner: &User, scope: &[Binding]) -> Result<(), TokenError> {
    let has = Grants::of(owner.roles.iter().map(Binding::grant));
    let more: Vec<&Binding> = scope.iter().filter(|asked| !has.cover(&Grants::of([asked.grant()]))).collect();
    if more.is_empty() {
        return Ok(());
    }
    let (has, asked) = (roles::listed(&owner.roles), roles::listed(more));
    Err(TokenError::Wider { owner: owner.name.clone(), has, asked })
}

async fn insert(
    conn: &mut Connection,
    caller: &Caller,
    id: TokenId,
    owner: &User,
    new: &NewToken,
    scope: &[Binding],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tokens (id, user_id, name, digest, scoped, expires_at) \
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))",
    )
    .bind(id.0)
    .bind(owner.id)
    .bind(&new.name)
    .bind(&new.digest[..])
    .bind(!scope.is_empty())
    .bind(new.ttl.map(|ttl| ttl.as_secs_f64()))
    .execute(&mut *conn)
    .await?;
    for binding in scope {
        let (project, role) = binding.grant();
        sqlx::query(
            "INSERT INTO token_scopes (token_id, project_id, role) VALUES ($1, $2, $3::role) ON CONFLICT DO NOTHING",
        )
        .bind(id.0)
        .bind(project.map(|project| project.0))
        .bind(role.as_str())
        .execute(&mut *conn)
        .await?;
    }
    let told: Vec<_> = scope.iter().map(Binding::told).collect();
    let details =
        json!({ "user": owner.name, "name": new.name, "scope": told, "seconds": new.ttl.map(|ttl| ttl.as_secs()) });
    audit::append(conn, &caller.by(), Act::new("token.create", format!("token:{id}")).with(details)).await
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

/// Revokes all tokens of `user`. Who does it has the rights [to
/// themselves](bearers::lock_rights_exclusive), so that nobody is making one meanwhile.
pub(super) async fn revoke_all(conn: &mut Connection, user: UserId) -> Result<(), StoreError> {
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
    let unknown = || TokenError::Unknown(name.to_owned());
    let (from, to) = prefix::uuids(name).ok_or_else(unknown)?;
    let sql = "SELECT id FROM tokens WHERE id BETWEEN $1 AND $2 AND ($3::uuid IS NULL OR user_id = $3) LIMIT 2";
    let found: Vec<Uuid> = sqlx::query_scalar(sql)
        .bind(from)
        .bind(to)
        .bind(whose.user().map(|user| user.0))
        .fetch_all(conn)
        .await
        .map_err(StoreError::from)?;
    match found.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(TokenId(*one)),
        _ => Err(TokenError::Ambiguous(name.to_owned())),
    }
}

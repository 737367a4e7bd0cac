//! Users: who can be given roles and tokens.

use sculpt_core::rights::{Grants, Right, Role};
use sculpt_proto::id::{TokenId, UserId};
use serde_json::json;
use sqlx::{FromRow, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    bearers, joins,
    projects::ProjectError,
    requests::{Request, RequestError, Taken, take_request},
    roles::{self, Binding, Wish},
    tokens,
};
use crate::access::{Administer, Caller, May, Unknown};

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: Uuid,
    /// Their name.
    pub name: String,
    /// Where mail reaches them; may be empty.
    pub email: String,
    /// What they are.
    pub roles: Vec<Binding>,
    /// Since when.
    pub created_at: Time,
    /// Why they may do nothing at present.
    pub locked: Option<String>,
}

impl User {
    /// Their id.
    pub fn id(&self) -> UserId {
        UserId(self.id)
    }

    /// Whether they may let machines join, as far as their roles say.
    pub(super) fn tends_executors(&self) -> bool {
        Grants::of(self.roles.iter().map(Binding::grant)).everywhere().has(Right::Fleet)
    }
}

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Their name.
    pub name: String,
    /// Where mail reaches them; may be empty.
    pub email: String,
    /// What they are.
    pub roles: Vec<Wish>,
}

/// Why a user was not made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none of this name.
    #[error("there is no user {0:?}; `sculpt admin user ls` lists those there are")]
    Unknown(String),
    /// Somebody has or had the name.
    #[error("the name {0:?} belongs to another user, or to one that was removed, whose deeds keep it; choose another")]
    NameTaken(String),
    /// It is no name.
    #[error(
        "{0:?} is no user's name, which has 1 to 64 of a-z, 0-9 and . _ @ + -, and begins with a letter or a digit; host and \
         controller are nobody's, for the record calls the controller and its host so"
    )]
    BadName(String),
    /// Nobody would be left who can give rights.
    #[error(
        "nobody would be left who may administer this controller and is not locked; make somebody else an admin first"
    )]
    LastAdmin,
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// The project of a role.
    #[error(transparent)]
    Project(Box<ProjectError>),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ProjectError> for UserError {
    fn from(error: ProjectError) -> Self {
        Self::Project(Box::new(error))
    }
}

/// Locks that stand now, of a row `l` of `locks`.
pub(super) const STANDING: &str = "l.lifted_at IS NULL AND (l.expires_at IS NULL OR l.expires_at > now())";

fn select(condition: &str) -> String {
    format!(
        "SELECT u.id, u.name, u.email, u.created_at, b.roles, b.projects, b.names, \
         (SELECT l.reason FROM locks l WHERE l.user_id = u.id AND {STANDING} LIMIT 1) AS locked FROM users u \
         CROSS JOIN LATERAL (SELECT COALESCE(array_agg(r.role::text ORDER BY r.granted_at), '{{}}') AS roles, \
           COALESCE(array_agg(r.project_id ORDER BY r.granted_at), '{{}}') AS projects, \
           COALESCE(array_agg(p.name ORDER BY r.granted_at), '{{}}') AS names \
           FROM role_bindings r LEFT JOIN projects p ON p.id = r.project_id \
           WHERE r.user_id = u.id AND p.removed_at IS NULL) b \
         WHERE u.removed_at IS NULL AND {condition} ORDER BY u.name"
    )
}

fn read(row: &PgRow) -> Result<User, StoreError> {
    Ok(User {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        created_at: row.try_get("created_at")?,
        locked: row.try_get("locked")?,
        roles: roles::read(row.try_get("roles")?, row.try_get("projects")?, row.try_get("names")?)?,
    })
}

impl Store {
    /// Makes a user.
    pub async fn add_user(&self, by: May<Administer>, request: Request, new: NewUser) -> Result<User, UserError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                let id = UserId::fresh();
                match take_request(conn, &request, id.0).await? {
                    Taken::Done(done) => by_id(conn, UserId(done)).await,
                    Taken::Fresh => add(conn, &by.by(), id, new).await,
                }
            })
        })
        .await
    }

    /// All users by name.
    pub async fn users(&self, _by: &May<Administer>) -> Result<Vec<User>, StoreError> {
        let mut conn = self.read().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select("true"))).fetch_all(&mut *conn).await?;
        rows.iter().map(read).collect()
    }

    /// The user who calls.
    pub async fn caller(&self, caller: &Caller) -> Result<User, UserError> {
        by_id(&mut *self.read().await?, caller.user()).await
    }

    /// The user of this name.
    pub async fn user(&self, _by: &May<Administer>, name: &str) -> Result<User, UserError> {
        named(&mut *self.read().await?, name).await
    }

    /// Removes a user and all that lets them call, or machines join in their name. What they did keeps their name.
    pub async fn remove_user(&self, by: May<Administer>, request: Request, name: String) -> Result<User, UserError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_exclusive(conn, by.caller()).await?;
                if let Some(done) = super::requests::repeated(conn, &request).await? {
                    return any(conn, done).await;
                }
                let user = named(conn, &name).await?;
                take_request(conn, &request, user.id).await?;
                let gone = "UPDATE users SET removed_at = now() WHERE id = $1";
                sqlx::query(gone).bind(user.id).execute(&mut *conn).await.map_err(StoreError::from)?;
                tokens::revoke_all(conn, user.id()).await?;
                let orphans = joins::revoke_of(conn, &name).await?;
                still_ruled(conn).await?;
                let act = Act::new("user.remove", format!("user:{name}")).with(json!({ "join_tokens": orphans }));
                audit::append(conn, &by.by(), act).await?;
                Ok(user)
            })
        })
        .await
    }

    /// Makes the first admin, who is known by a token of this digest, unless there was a user before. Whether it did.
    pub async fn ensure_first_admin(&self, name: &str, digest: [u8; 32]) -> Result<bool, UserError> {
        let name = name.to_owned();
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_exclusive_as_host(conn).await?;
                let known = sqlx::query_scalar("SELECT EXISTS (SELECT FROM users)").fetch_one(&mut *conn).await;
                let known: bool = known.map_err(StoreError::from)?;
                if known {
                    return Ok(false);
                }
                let roles = vec![Wish { role: Role::Admin, project: None }];
                let new = NewUser { name, email: String::new(), roles };
                let user = add(conn, &By::host(), UserId::fresh(), new).await?;
                tokens::insert_first(conn, &By::host(), &user, digest).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Makes `name` an admin who is known by a token of this digest and by no other; made if there is no such user. For who
    /// has the controller's host, when nobody else can do it any more. What let machines join in their name is revoked too.
    pub async fn reset_admin(&self, name: &str, digest: [u8; 32]) -> Result<TokenId, UserError> {
        let name = name.to_owned();
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_exclusive_as_host(conn).await?;
                let by = By::host();
                let admin = Wish { role: Role::Admin, project: None };
                let user = match named(conn, &name).await {
                    Ok(user) => user,
                    Err(UserError::Unknown(name)) => {
                        let new = NewUser { name, email: String::new(), roles: Vec::new() };
                        add(conn, &by, UserId::fresh(), new).await?
                    }
                    Err(error) => return Err(error),
                };
                roles::bind(conn, user.id(), &Binding { role: admin.role, project: None }, by.actor()).await?;
                let lift = "UPDATE locks SET lifted_at = now() WHERE user_id = $1 AND lifted_at IS NULL";
                sqlx::query(lift).bind(user.id).execute(&mut *conn).await.map_err(StoreError::from)?;
                tokens::revoke_all(conn, user.id()).await?;
                let orphans = joins::revoke_of(conn, &user.name).await?;
                let token = tokens::insert_first(conn, &by, &user, digest).await?;
                let act = Act::new("user.reset", format!("user:{}", user.name)).with(json!({ "join_tokens": orphans }));
                audit::append(conn, &by, act).await?;
                Ok(token)
            })
        })
        .await
    }
}

async fn add(conn: &mut Connection, by: &By, id: UserId, new: NewUser) -> Result<User, UserError> {
    let sql = "INSERT INTO users (id, name, email) VALUES ($1, $2, $3)";
    let done = sqlx::query(sql).bind(id.0).bind(&new.name).bind(&new.email).execute(&mut *conn).await;
    match done.map_err(StoreError::from) {
        Err(StoreError::Conflict { constraint, .. }) if constraint == "users_name_key" => {
            return Err(UserError::NameTaken(new.name));
        }
        Err(StoreError::Conflict { constraint, .. }) if constraint == "users_name_check" => {
            return Err(UserError::BadName(new.name));
        }
        done => done?,
    };
    let mut told = Vec::new();
    for wish in new.roles {
        let binding = roles::resolve(conn, &crate::access::Sees::everything(), wish).await?;
        told.push(binding.told());
        roles::bind(conn, id, &binding, by.actor()).await?;
    }
    let act = Act::new("user.add", format!("user:{}", new.name)).with(json!({ "roles": told }));
    audit::append(conn, by, act).await?;
    by_id(conn, id).await
}

/// Refuses to leave nobody who can give rights.
pub(super) async fn still_ruled(conn: &mut Connection) -> Result<(), UserError> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM users u JOIN role_bindings r ON r.user_id = u.id \
         WHERE u.removed_at IS NULL AND r.role = 'admin' AND r.project_id IS NULL \
         AND NOT EXISTS (SELECT FROM locks l WHERE l.user_id = u.id AND {STANDING}))"
    );
    let ruled: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await.map_err(StoreError::from)?;
    if ruled { Ok(()) } else { Err(UserError::LastAdmin) }
}

/// The user of this name.
pub(super) async fn named(conn: &mut Connection, name: &str) -> Result<User, UserError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(select("u.name = $1"))).bind(name).fetch_optional(conn).await;
    let row = row.map_err(StoreError::from)?.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    Ok(read(&row)?)
}

/// The user of this id.
pub(super) async fn by_id(conn: &mut Connection, id: UserId) -> Result<User, UserError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(select("u.id = $1"))).bind(id.0).fetch_optional(conn).await;
    let row = row.map_err(StoreError::from)?.ok_or_else(|| UserError::Unknown(id.to_string()))?;
    Ok(read(&row)?)
}

/// The user of this id, also one that was removed.
async fn any(conn: &mut Connection, id: Uuid) -> Result<User, UserError> {
    #[derive(FromRow)]
    struct Gone {
        name: String,
        email: String,
        created_at: Time,
    }

    let sql = "SELECT name, email, created_at FROM users WHERE id = $1";
    let gone: Option<Gone> = sqlx::query_as(sql).bind(id).fetch_optional(conn).await.map_err(StoreError::from)?;
    let Gone { name, email, created_at } = gone.ok_or_else(|| UserError::Unknown(id.to_string()))?;
    Ok(User { id, name, email, created_at, roles: Vec::new(), locked: None })
}

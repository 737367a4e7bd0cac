//! Pools: executors of one name, whose tasks they take, and what separated agents there may reach and use.

use std::{collections::BTreeMap, sync::Arc};

use sculpt_core::placement::{self, Unwelcome};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    audit::{self, Act},
    bearers,
    executors::UNMET,
    projects::{self, ProjectError},
    requests::{Request, RequestError, Taken, take_request},
    users::{self, UserError},
};
use crate::access::{Fleet, May, Sees, Unknown};

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Names of the projects whose tasks run here; empty: all.
    pub projects: Vec<String>,
    /// Names of the users whose tasks run here; empty: all.
    pub users: Vec<String>,
    /// `host` or `none`: what separated agents reach.
    pub network: String,
    /// Most bytes of memory of an attempt.
    pub memory: Option<i64>,
    /// Most processes of an attempt.
    pub processes: Option<i32>,
    /// Most processor time of an attempt, in thousandths of a processor.
    pub cpu: Option<i32>,
    /// Names of its executors.
    pub executors: Vec<String>,
    /// Names of those on which attempts run without one of its limits.
    pub unlimited: Vec<String>,
    /// How many tasks wait for it.
    pub waiting: i64,
}

/// What a pool is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Names or ids of the projects whose tasks run here; empty: all.
    pub projects: Vec<String>,
    /// Names of the users whose tasks run here; empty: all.
    pub users: Vec<String>,
    /// `host` or `none`: what separated agents reach.
    pub network: &'static str,
    /// Most bytes of memory of an attempt.
    pub memory: Option<i64>,
    /// Most processes of an attempt.
    pub processes: Option<i32>,
    /// Most processor time of an attempt, in thousandths of a processor.
    pub cpu: Option<i32>,
}

/// Why a pool is not as wished.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Nothing was set of it.
    #[error("nothing was set of a pool {0:?}; `sculpt pool ls` lists those there are")]
    Unknown(String),
    /// Executors are in it.
    #[error(
        "executors are in the pool {pool} ({executors}), and would take everybody's tasks without its rules; remove them with \
         `sculpt executor rm`, or let the pool take everybody's with `sculpt pool set {pool}`"
    )]
    Inhabited {
        /// The pool.
        pool: String,
        /// Names of them.
        executors: String,
    },
    /// Executors may still join it.
    #[error(
        "join tokens lead into the pool {pool}, and who joins with one would take everybody's tasks without its rules; \
         `sculpt executor token --ls` lists them, `--revoke` ends one"
    )]
    Invited {
        /// The pool.
        pool: String,
    },
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// A project of it.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A user of it.
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
    /// Pools that were set, or that executors are in, by name.
    pub async fn pools(&self, _by: &May<Fleet>) -> Result<Vec<Pool>, StoreError> {
        let mut conn = self.read().await?;
        let sql = format!("{} ORDER BY n.name", select());
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await?)
    }

    /// Makes a pool what `wish` says, all of it. Attempts that are placed already go on as they were placed.
    pub async fn set_pool(&self, by: May<Fleet>, request: Request, wish: Wish) -> Result<Pool, PoolError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                if let Taken::Fresh = take_request(conn, &request, Uuid::nil()).await? {
                    set(conn, &wish).await?;
                    let Wish { name, projects, users, network, memory, processes, cpu } = &wish;
                    let details = json!({ "projects": projects, "users": users, "network": network, "memory": memory,
                                          "processes": processes, "cpu": cpu });
                    let act = Act::new("pool.set", format!("pool:{name}")).with(details);
                    audit::append(conn, &by.by(), act).await?;
                }
                let pool = one(conn, &wish.name).await?;
                pool.ok_or(PoolError::Unknown(wish.name))
            })
        })
        .await
    }

    /// Forgets what was set of a pool, once nobody is in it nor may still come. As it was; `None` when the request is done
    /// again.
    pub async fn remove_pool(&self, by: May<Fleet>, request: Request, name: String) -> Result<Option<Pool>, PoolError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                if let Taken::Done(_) = take_request(conn, &request, Uuid::nil()).await? {
                    return Ok(None);
                }
                // Before anything is looked at: whom somebody invites or lets join meanwhile is seen then.
                let hold = "SELECT FROM pools WHERE name = $1 FOR UPDATE";
                sqlx::query(hold).bind(&name).execute(&mut *conn).await.map_err(StoreError::from)?;
                let invited = hold_tokens(conn, &name).await?;
                let pool = one(conn, &name).await?.ok_or_else(|| PoolError::Unknown(name.clone()))?;
                remove(conn, &pool, invited).await?;
                audit::append(conn, &by.by(), Act::new("pool.remove", format!("pool:{name}"))).await?;
                Ok(Some(pool))
            })
        })
        .await
    }
}

/// Pools that were set, or that executors are in, as SQL.
fn select() -> String {
    format!(
        "SELECT n.name, COALESCE(o.network, 'host') AS network, o.memory, o.processes, o.cpu, \
     ARRAY(SELECT p.name FROM pool_projects pp JOIN projects p ON p.id = pp.project_id WHERE pp.pool = n.name ORDER BY 1) \
       AS projects, \
     ARRAY(SELECT u.name FROM pool_users pu JOIN users u ON u.id = pu.user_id WHERE pu.pool = n.name ORDER BY 1) AS users, \
     ARRAY(SELECT e.name FROM executors e WHERE e.pool = n.name AND e.removed_at IS NULL ORDER BY 1) AS executors, \
     ARRAY(SELECT e.name FROM executors e WHERE e.pool = n.name AND e.removed_at IS NULL AND cardinality({UNMET}) > 0 \
       ORDER BY 1) AS unlimited, \
     (SELECT count(*) FROM classes c JOIN tasks t ON t.class_id = c.id AND t.next_attempt IS NOT NULL AND t.intent = 'run' \
       WHERE c.pool = n.name) AS waiting \
     FROM (SELECT name FROM pools UNION SELECT pool FROM executors WHERE removed_at IS NULL) n \
     LEFT JOIN pools o ON o.name = n.name"
    )
}

async fn one(conn: &mut Connection, name: &str) -> Result<Option<Pool>, StoreError> {
    let sql = format!("{} WHERE n.name = $1", select());
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).fetch_optional(conn).await?)
}

/// What has become of a pool while it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It stays what it is, or what nobody has set of it, until the transaction ends.
    Standing,
    /// Somebody has removed it.
    Removed,
}

/// Keeps what was set of `pool` from being removed until the transaction ends.
pub(super) async fn keep(conn: &mut Connection, pool: &str) -> Result<Kept, StoreError> {
    let there = "SELECT EXISTS (SELECT FROM pools WHERE name = $1)";
    let before: bool = sqlx::query_scalar(there).bind(pool).fetch_one(&mut *conn).await?;
    let hold = "SELECT FROM pools WHERE name = $1 FOR KEY SHARE";
    let held = sqlx::query(hold).bind(pool).fetch_optional(conn).await?.is_some();
    Ok(if before && !held { Kept::Removed } else { Kept::Standing })
}

/// Holds the join tokens that lead into `pool`, so that nobody joins by one of them; whether there are any. One whose time is
/// over is held as well: somebody may have begun to join before.
async fn hold_tokens(conn: &mut Connection, pool: &str) -> Result<bool, StoreError> {
    let sql = "SELECT expires_at > now() FROM join_tokens WHERE pool = $1 AND revoked_at IS NULL AND used < uses \
               ORDER BY id FOR UPDATE";
    let good: Vec<bool> = sqlx::query_scalar(sql).bind(pool).fetch_all(conn).await?;
    Ok(good.contains(&true))
}

async fn remove(conn: &mut Connection, pool: &Pool, invited: bool) -> Result<(), PoolError> {
    if !pool.executors.is_empty() {
        return Err(PoolError::Inhabited { pool: pool.name.clone(), executors: pool.executors.join(", ") });
    }
    if invited {
        return Err(PoolError::Invited { pool: pool.name.clone() });
    }
    let sql = "DELETE FROM pools WHERE name = $1";
    sqlx::query(sql).bind(&pool.name).execute(conn).await.map_err(StoreError::from)?;
    Ok(())
}

async fn set(conn: &mut Connection, wish: &Wish) -> Result<(), PoolError> {
    sqlx::query(
        "INSERT INTO pools (name, network, memory, processes, cpu) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET network = EXCLUDED.network, memory = EXCLUDED.memory, \
         processes = EXCLUDED.processes, cpu = EXCLUDED.cpu",
    )
    .bind(&wish.name)
    .bind(wish.network)
    .bind(wish.memory)
    .bind(wish.processes)
    .bind(wish.cpu)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let (mut projects, mut users) = (Vec::new(), Vec::new());
    for name in &wish.projects {
        projects.push(projects::find(conn, &Sees::everything(), name).await?.id);
    }
    for name in &wish.users {
        users.push(users::named(conn, name).await?.id);
    }
    for (sql, ids) in [
        ("DELETE FROM pool_projects WHERE pool = $1 AND project_id <> ALL ($2)", &projects),
        ("DELETE FROM pool_users WHERE pool = $1 AND user_id <> ALL ($2)", &users),
        ("INSERT INTO pool_projects SELECT $1, unnest($2) ON CONFLICT DO NOTHING", &projects),
        ("INSERT INTO pool_users SELECT $1, unnest($2) ON CONFLICT DO NOTHING", &users),
    ] {
        sqlx::query(sql).bind(&wish.name).bind(ids).execute(&mut *conn).await.map_err(StoreError::from)?;
    }
    Ok(())
}

/// Pools as placement sees them.
#[derive(Clone, Debug, Default)]
pub struct Rules(BTreeMap<String, Arc<placement::Pool>>);

impl Rules {
    /// The pool of this name; one that nobody has set takes everybody's tasks.
    pub fn of(&self, pool: &str) -> Arc<placement::Pool> {
        self.0.get(pool).cloned().unwrap_or_else(|| Arc::new(placement::Pool::open(pool)))
    }
}

/// What was set of pools.
pub(super) async fn rules(conn: &mut Connection) -> Result<Rules, StoreError> {
    /// Name, whether its network is closed, whose projects' and which users' tasks it takes.
    type Row = (String, bool, Vec<Uuid>, Vec<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT o.name, o.network = 'none', \
         ARRAY(SELECT project_id FROM pool_projects WHERE pool = o.name), \
         ARRAY(SELECT u.name FROM pool_users pu JOIN users u ON u.id = pu.user_id WHERE pu.pool = o.name) FROM pools o",
    )
    .fetch_all(conn)
    .await?;
    let rules = rows.into_iter().map(|(name, no_network, projects, users)| {
        let pool = placement::Pool {
            projects: (!projects.is_empty()).then(|| projects.into_iter().collect()),
            users: (!users.is_empty()).then(|| users.into_iter().collect()),
            no_network,
            name: name.clone(),
        };
        (name, Arc::new(pool))
    });
    Ok(Rules(rules.collect()))
}

/// Whether `pool` takes tasks of `project` by `requester`.
pub(super) async fn admits(
    conn: &mut Connection,
    pool: &str,
    project: Option<Uuid>,
    requester: &str,
) -> Result<Result<(), Unwelcome>, StoreError> {
    Ok(rules(conn).await?.of(pool).admits(project, requester))
}

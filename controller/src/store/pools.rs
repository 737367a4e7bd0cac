//! Pools: executors of one name, whose tasks they take, and what separated agents there may reach and use.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    audit::{self, Act},
    projects::{self, ProjectError},
    requests::{Request, RequestError, Taken, take_request},
    users::{self, UserError},
};
use crate::access::{Fleet, May, Sees};

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
}

/// Why a pool is not as wished.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
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

const SELECT: &str = "SELECT n.name, COALESCE(o.network, 'host') AS network, o.memory, o.processes, o.cpu, \
     ARRAY(SELECT p.name FROM pool_projects pp JOIN projects p ON p.id = pp.project_id WHERE pp.pool = n.name ORDER BY 1) \
       AS projects, \
     ARRAY(SELECT u.name FROM pool_users pu JOIN users u ON u.id = pu.user_id WHERE pu.pool = n.name ORDER BY 1) AS users \
     FROM (SELECT name FROM pools UNION SELECT pool FROM executors WHERE removed_at IS NULL) n \
     LEFT JOIN pools o ON o.name = n.name";

impl Store {
    /// Pools that were set, or that executors are in, by name.
    pub async fn pools(&self, _by: &May<Fleet>) -> Result<Vec<Pool>, StoreError> {
        let mut conn = self.read().await?;
        let sql = format!("{SELECT} ORDER BY n.name");
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await?)
    }

    /// Makes a pool what `wish` says, all of it.
    pub async fn set_pool(&self, by: May<Fleet>, request: Request, wish: Pool) -> Result<Pool, PoolError> {
        self.write(move |conn| {
            Box::pin(async move {
                if let Taken::Fresh = take_request(conn, &request, Uuid::nil()).await? {
                    set(conn, &wish).await?;
                    let Pool { name, projects, users, network, memory, processes, cpu } = &wish;
                    let details = json!({ "projects": projects, "users": users, "network": network, "memory": memory,
                                          "processes": processes, "cpu": cpu });
                    let act = Act::new("pool.set", format!("pool:{name}")).with(details);
                    audit::append(conn, &by.by(), act).await?;
                }
                let sql = format!("{SELECT} WHERE n.name = $1");
                let pool = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&wish.name).fetch_one(&mut *conn).await;
                Ok(pool.map_err(StoreError::from)?)
            })
        })
        .await
    }
}

async fn set(conn: &mut Connection, wish: &Pool) -> Result<(), PoolError> {
    sqlx::query(
        "INSERT INTO pools (name, network, memory, processes, cpu) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET network = EXCLUDED.network, memory = EXCLUDED.memory, \
         processes = EXCLUDED.processes, cpu = EXCLUDED.cpu",
    )
    .bind(&wish.name)
    .bind(&wish.network)
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

/// Whether `pool` takes tasks of `project` by `user`.
pub(super) async fn takes(
    conn: &mut Connection,
    pool: &str,
    project: Option<Uuid>,
    user: &str,
) -> Result<bool, StoreError> {
    let sql = "SELECT (NOT EXISTS (SELECT FROM pool_projects WHERE pool = $1) \
                 OR EXISTS (SELECT FROM pool_projects WHERE pool = $1 AND project_id = $2)) \
               AND (NOT EXISTS (SELECT FROM pool_users WHERE pool = $1) \
                 OR EXISTS (SELECT FROM pool_users pu JOIN users u ON u.id = pu.user_id \
                            WHERE pu.pool = $1 AND u.name = $3))";
    Ok(sqlx::query_scalar(sql).bind(pool).bind(project).bind(user).fetch_one(conn).await?)
}

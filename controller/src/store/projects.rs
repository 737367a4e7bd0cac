//! Projects: git repositories known to the controller.

use sculpt_proto::id::ProjectId;
use serde_json::json;
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    events::{Entry, record},
    requests::{Request, RequestError, Taken, repeated, take_request},
    visible,
};
use crate::access::{Caller, Denied, Found, In, Merge, Sees};

/// Longest name in bytes, as the table has it.
const MAX_NAME: usize = 63;

/// How many suffixes are tried before a taken name is an error.
const SUFFIXES: u32 = 1000;

/// A project.
#[derive(Clone, Debug, FromRow)]
pub struct Project {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// First commit of its history.
    pub root_commit: String,
    /// URL of its remote; empty when it has none.
    pub remote: String,
    /// Agent of a prompt that names none; empty: the executor's.
    pub default_agent: String,
    /// Whether an agent's uncommitted changes are committed.
    pub commit_changes: bool,
    /// When it was registered.
    pub created_at: Time,
    /// How many tasks it has had.
    pub task_count: i64,
}

impl Project {
    /// Its id.
    pub fn id(&self) -> ProjectId {
        ProjectId(self.id)
    }
}

/// What a project is known by, and what is wished for it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// A name; sanitised.
    pub name: String,
    /// Refuse instead of choosing another name.
    pub exact_name: bool,
    /// First commit of its history.
    pub root_commit: String,
    /// URL of its remote; empty when it has none.
    pub remote: String,
    /// Set, also on one that exists.
    pub default_agent: Option<String>,
    /// Set, also on one that exists.
    pub commit_changes: Option<bool>,
}

/// Why a project was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such project.
    #[error("there is no project {0:?}; `sculpt project ls` lists those there are")]
    Unknown(String),
    /// Its name is taken.
    #[error("the name {0:?} belongs to another project; choose another name")]
    NameTaken(String),
    /// It has work in progress.
    #[error("project {name} has {count} tasks that have not ended; stop them or wait for them, then remove it")]
    Busy {
        /// Its name.
        name: String,
        /// How many.
        count: i64,
    },
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT id, name, root_commit, remote, default_agent, commit_changes, created_at, \
                      (SELECT count(*) FROM tasks WHERE project_id = projects.id) AS task_count FROM projects";

impl Wish {
    /// Whether it wants a project that is there to be another than it is.
    fn changes(&self, known: &Project) -> bool {
        self.default_agent.as_ref().is_some_and(|agent| *agent != known.default_agent)
            || self.commit_changes.is_some_and(|commit| commit != known.commit_changes)
    }
}

impl Store {
    /// The project of this root commit and remote, registered now if it is new; and whether it is. To find it takes to see
    /// it, to change it the right to, and to register one another.
    pub async fn ensure_project(
        &self,
        caller: Caller,
        request: Request,
        wish: Wish,
    ) -> Result<(Project, bool), ProjectError> {
        self.write(move |conn| Box::pin(async move { ensure(conn, &caller, &request, &wish).await })).await
    }

    /// Projects by name, after the name `after`.
    pub async fn list_projects(
        &self,
        sees: &Sees,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Project>, StoreError> {
        let mut conn = self.read().await?;
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        query.push(" WHERE removed_at IS NULL AND name > ").push_bind(after.unwrap_or_default()).push(" AND ");
        visible::projects(&mut query, "id", sees);
        query.push(" ORDER BY name LIMIT ").push_bind(i64::from(limit));
        Ok(query.build_query_as().fetch_all(&mut *conn).await?)
    }

    /// The project with this name or uuid.
    pub async fn project(&self, sees: &Sees, name: &str) -> Result<Project, ProjectError> {
        let mut conn = self.read().await?;
        find(&mut conn, sees, name).await
    }

    /// The project that `request` has removed, if it did: it is not seen any more.
    pub async fn removed_project(&self, caller: &Caller, request: &Request) -> Result<Option<Project>, ProjectError> {
        let mut conn = self.read().await?;
        let Some(done) = repeated(&mut conn, request).await? else { return Ok(None) };
        let project = by_id(&mut conn, ProjectId(done)).await?;
        Ok(project.filter(|project| caller.within::<Merge>(project).is_ok()))
    }

    /// Takes a project off the list. Its objects stay until nothing names them.
    pub async fn remove_project(&self, by: In<Merge>, request: Request) -> Result<Project, ProjectError> {
        self.write(move |conn| {
            Box::pin(async move {
                let id = by.project();
                let unknown = || ProjectError::Unknown(id.to_string());
                let project = by_id(conn, id).await?.ok_or_else(unknown)?;
                if let Taken::Done(_) = take_request(conn, &request, project.id).await? {
                    return Ok(project);
                }
                let busy = "SELECT count(*) FROM tasks WHERE project_id = $1 AND ended_at IS NULL";
                let lock = "SELECT FROM projects WHERE id = $1 FOR UPDATE";
                sqlx::query(lock).bind(project.id).execute(&mut *conn).await.map_err(StoreError::from)?;
                let count: i64 =
                    sqlx::query_scalar(busy).bind(project.id).fetch_one(&mut *conn).await.map_err(StoreError::from)?;
                if count > 0 {
                    return Err(ProjectError::Busy { name: project.name, count });
                }
                let gone = "UPDATE projects SET removed_at = now() WHERE id = $1 AND removed_at IS NULL";
                let gone = sqlx::query(gone).bind(project.id).execute(&mut *conn).await.map_err(StoreError::from)?;
                if gone.rows_affected() == 0 {
                    return Err(unknown());
                }
                let data = json!({ "project": project.name, "project_id": project.id });
                let entry = Entry { actor: by.caller().name().to_owned(), data, ..Entry::default() };
                record(conn, "project.removed", &entry).await?;
                tell(conn, &by.by(), "project.remove", &project).await?;
                Ok(project)
            })
        })
        .await
    }
}

/// Writes what is done to a project into the record.
async fn tell(conn: &mut Connection, by: &By, action: &'static str, project: &Project) -> Result<(), StoreError> {
    let act = Act::new(action, format!("project:{}", project.name)).within(Some(project.id()));
    audit::append(conn, by, act).await
}

async fn ensure(
    conn: &mut Connection,
    caller: &Caller,
    request: &Request,
    wish: &Wish,
) -> Result<(Project, bool), ProjectError> {
    // One at a time: names are looked for before they are taken.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt project names'))")
        .execute(&mut *conn)
        .await
        .map_err(StoreError::from)?;
    let known = match by_identity(conn, wish).await? {
        None => identify(conn, wish).await?,
        known => known,
    };
    // Who does not see it is told what who asks for a new one is told.
    let known = known.filter(|known| caller.sees().projects().has(&known.id()));
    if known.is_none() {
        caller.may::<Found>()?;
    }
    let id = known.as_ref().map_or_else(ProjectId::fresh, Project::id);
    if let Taken::Done(done) = take_request(conn, request, id.0).await? {
        let project = by_id(conn, ProjectId(done)).await?;
        return project.map(|project| (project, false)).ok_or(ProjectError::Unknown(done.to_string()));
    }
    let action = match &known {
        Some(known) if wish.changes(known) => {
            caller.within::<Merge>(known)?;
            update(conn, known, wish).await?;
            Some("project.change")
        }
        Some(_) => None,
        None => {
            insert(conn, caller, id, wish).await?;
            Some("project.create")
        }
    };
    let project = by_id(conn, id).await?.ok_or_else(|| ProjectError::Unknown(id.to_string()))?;
    if let Some(action) = action {
        tell(conn, &caller.by(), action, &project).await?;
    }
    Ok((project, known.is_none()))
}

/// The project with this name or uuid, if it is seen.
pub(crate) async fn find(conn: &mut Connection, sees: &Sees, name: &str) -> Result<Project, ProjectError> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT);
    query.push(" WHERE removed_at IS NULL AND (name = ").push_bind(name.to_owned());
    query.push(" OR id = ").push_bind(Uuid::parse_str(name).ok()).push(") AND ");
    visible::projects(&mut query, "id", sees);
    let found = query.build_query_as().fetch_optional(conn).await.map_err(StoreError::from)?;
    found.ok_or_else(|| ProjectError::Unknown(name.to_owned()))
}

async fn by_id(conn: &mut Connection, id: ProjectId) -> Result<Option<Project>, StoreError> {
    let sql = format!("{SELECT} WHERE id = $1");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(conn).await?)
}

async fn by_identity(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    let sql = format!("{SELECT} WHERE removed_at IS NULL AND root_commit = $1 AND remote = $2");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&wish.root_commit).bind(&wish.remote).fetch_optional(conn).await?)
}

/// The project of this name that was made from an attempt which was taken over: now it is known what it is known by.
async fn identify(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    let sql = "UPDATE projects SET root_commit = $2, remote = $3, adopted = false \
               WHERE name = $1 AND adopted AND removed_at IS NULL RETURNING id";
    let found: Option<Uuid> = sqlx::query_scalar(sql)
        .bind(sanitised(&wish.name))
        .bind(&wish.root_commit)
        .bind(&wish.remote)
        .fetch_optional(&mut *conn)
        .await?;
    match found {
        Some(id) => by_id(conn, ProjectId(id)).await,
        None => Ok(None),
    }
}

async fn update(conn: &mut Connection, known: &Project, wish: &Wish) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projects SET default_agent = COALESCE($2, default_agent), \
         commit_changes = COALESCE($3, commit_changes) WHERE id = $1",
    )
    .bind(known.id)
    .bind(&wish.default_agent)
    .bind(wish.commit_changes)
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert(conn: &mut Connection, by: &Caller, id: ProjectId, wish: &Wish) -> Result<(), ProjectError> {
    let wanted = sanitised(&wish.name);
    let mut name = wanted.clone();
    for suffix in 2.. {
        let sql = "SELECT EXISTS (SELECT FROM projects WHERE name = $1 AND removed_at IS NULL)";
        let taken: bool = sqlx::query_scalar(sql).bind(&name).fetch_one(&mut *conn).await.map_err(StoreError::from)?;
        if !taken {
            break;
        }
        if wish.exact_name || suffix > SUFFIXES {
            return Err(ProjectError::NameTaken(wanted));
        }
        name = suffixed(&wanted, suffix);
    }
    sqlx::query(
        "INSERT INTO projects (id, name, root_commit, remote, default_agent, commit_changes) \
         VALUES ($1, $2, $3, $4, COALESCE($5, ''), COALESCE($6, true))",
    )
    .bind(id.0)
    .bind(&name)
    .bind(&wish.root_commit)
    .bind(&wish.remote)
    .bind(&wish.default_agent)
    .bind(wish.commit_changes)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let data = json!({ "project": name, "project_id": id });
    let entry = Entry { actor: by.name().to_owned(), data, ..Entry::default() };
    Ok(record(conn, "project.created", &entry).await?)
}

/// A name that the table takes: letters, digits, dots, dashes, underscores, beginning with one of the first two.
fn sanitised(wish: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = wish.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(MAX_NAME).collect();
    let name = name.trim_end_matches(['-', '.']);
    if name.is_empty() { "project".to_owned() } else { name.to_owned() }
}

fn suffixed(name: &str, suffix: u32) -> String {
    let suffix = format!("-{suffix}");
    let kept: String = name.chars().take(MAX_NAME - suffix.len()).collect();
    kept + &suffix
}

#[cfg(test)]
mod tests {
    use super::{sanitised, suffixed};

    #[test]
    fn names_fit_the_table() {
        assert_eq!(sanitised("my repo (old)"), "my-repo--old");
        assert_eq!(sanitised("..hidden"), "hidden");
        assert_eq!(sanitised("über"), "ber");
        assert_eq!(sanitised("日本"), "project");
        assert_eq!(sanitised(&"x".repeat(100)).len(), 63);
        assert_eq!(suffixed(&"x".repeat(63), 12).len(), 63);
    }
}

//! Projects: git repositories known to the controller.

mod names;
mod recognise;

use sculpt_proto::id::ProjectId;
use serde_json::json;
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use self::{
    names::{free_name, sanitised},
    recognise::{recognised, removed_before},
};
use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    events::{Entry, record},
    requests::{Request, RequestError, Taken, repeated, take_request},
    visible,
};
use crate::access::{Caller, Denied, Found, In, Merge, Sees};

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
    /// Whether the journal keeps what people type into agents' terminals.
    pub record_typing: bool,
    /// Whether it was made from an attempt that was taken over, and no repository has been told to be it since.
    pub adopted: bool,
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
    /// Set, also on one that exists.
    pub record_typing: Option<bool>,
}

/// What it took to have a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing: it was there.
    Known,
    /// It was made.
    Created,
    /// It had been removed, and is back with all that it had.
    Restored,
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
    /// It has commits that nobody has accepted, merged or rejected.
    #[error(
        "project {name} holds commits of {} that nobody has accepted, merged or rejected: {}; \
         `sculpt fetch` brings them into a clone, --force removes the project all the same",
        if tasks.len() == 1 { "a task" } else { "tasks" }, numbered(tasks)
    )]
    Unreviewed {
        /// Its name.
        name: String,
        /// Numbers of the tasks.
        tasks: Vec<i64>,
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

const SELECT: &str = "SELECT id, name, root_commit, remote, default_agent, commit_changes, record_typing, adopted, created_at, \
                      (SELECT count(*) FROM tasks WHERE project_id = projects.id) AS task_count FROM projects";

/// How many tasks a refusal names.
const NAMED: usize = 20;

fn numbered(tasks: &[i64]) -> String {
    let named: Vec<String> = tasks.iter().take(NAMED).map(i64::to_string).collect();
    let more = if tasks.len() > NAMED { format!(" and {} more", tasks.len() - NAMED) } else { String::new() };
    named.join(", ") + &more
}

impl Wish {
    /// Whether it wants a project that is there to be another than it is.
    fn changes(&self, known: &Project) -> bool {
        self.default_agent.as_ref().is_some_and(|agent| *agent != known.default_agent)
            || self.commit_changes.is_some_and(|commit| commit != known.commit_changes)
            || self.record_typing.is_some_and(|record| record != known.record_typing)
            || (self.exact_name && sanitised(&self.name) != known.name)
    }

    /// Whether it says more of what a project that is there is known by than is known.
    fn tells_of(&self, known: &Project) -> bool {
        known.adopted || (known.remote.is_empty() && !self.remote.is_empty())
    }
}

impl Store {
    /// The project of this root commit and remote, registered now if it is new, brought back if it was removed. To find it
    /// takes to see it, to change it the right to, and to register one another.
    pub async fn ensure_project(
        &self,
        caller: Caller,
        request: Request,
        wish: Wish,
    ) -> Result<(Project, Ensured), ProjectError> {
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

    /// Takes a project off the list, with `force` also when it holds commits that nobody has judged. Its tasks and objects
    /// stay, and are there again when it is registered anew.
    pub async fn remove_project(&self, by: In<Merge>, request: Request, force: bool) -> Result<Project, ProjectError> {
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
                let tasks = if force { Vec::new() } else { unreviewed(conn, project.id()).await? };
                if !tasks.is_empty() {
                    return Err(ProjectError::Unreviewed { name: project.name, tasks });
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
) -> Result<(Project, Ensured), ProjectError> {
    // One at a time: names are looked for before they are taken.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt project names'))")
        .execute(&mut *conn)
        .await
        .map_err(StoreError::from)?;
    // Who does not see it is told what who asks for a new one is told.
    let sees = |known: &Project| caller.sees().projects().has(&known.id());
    let (known, how) = match recognised(conn, wish).await?.filter(sees) {
        Some(known) => (Some(known), Ensured::Known),
        None => match removed_before(conn, wish).await?.filter(sees) {
            Some(removed) => (Some(removed), Ensured::Restored),
            None => (None, Ensured::Created),
        },
    };
    if how != Ensured::Known {
        caller.may::<Found>()?;
    }
    let id = known.as_ref().map_or_else(ProjectId::fresh, Project::id);
    if let Taken::Done(done) = take_request(conn, request, id.0).await? {
        let project = by_id(conn, ProjectId(done)).await?;
        return Ok((project.ok_or_else(|| ProjectError::Unknown(done.to_string()))?, Ensured::Known));
    }
    let action = match (&known, how) {
        (None, _) => {
            insert(conn, caller, id, wish).await?;
            Some("project.create")
        }
        (Some(known), Ensured::Restored) => {
            restore(conn, caller, known, wish).await?;
            update(conn, known, wish).await?;
            Some("project.restore")
        }
        (Some(known), Ensured::Known | Ensured::Created) if wish.changes(known) => {
            caller.within::<Merge>(known)?;
            rename(conn, caller, known, wish).await?;
            update(conn, known, wish).await?;
            Some("project.change")
        }
        // A project takes on what a clone tells of it where its owner works; others use it as it is.
        (Some(known), Ensured::Known | Ensured::Created)
            if wish.tells_of(known) && caller.within::<Merge>(known).is_ok() =>
        {
            update(conn, known, wish).await?;
            Some("project.change")
        }
        (Some(_), Ensured::Known | Ensured::Created) => None,
    };
    let project = by_id(conn, id).await?.ok_or_else(|| ProjectError::Unknown(id.to_string()))?;
    if let Some(action) = action {
        tell(conn, &caller.by(), action, &project).await?;
    }
    Ok((project, how))
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

/// Tasks whose commits nobody has judged.
async fn unreviewed(conn: &mut Connection, project: ProjectId) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT t.number FROM tasks t JOIN attempts a ON a.id = t.attempt_id WHERE t.project_id = $1 \
               AND a.head IS NOT NULL AND t.shown NOT IN ('accepted', 'merged', 'rejected') ORDER BY t.number";
    Ok(sqlx::query_scalar(sql).bind(project.0).fetch_all(conn).await?)
}

/// Gives a project what is wished for it, and what it lacks of what it is known by.
async fn update(conn: &mut Connection, known: &Project, wish: &Wish) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projects SET default_agent = COALESCE($2, default_agent), \
         commit_changes = COALESCE($3, commit_changes), record_typing = COALESCE($6, record_typing), adopted = false, \
         root_commit = CASE WHEN adopted THEN $5 ELSE root_commit END, \
         remote = CASE WHEN adopted OR remote = '' THEN $4 ELSE remote END WHERE id = $1",
    )
    .bind(known.id)
    .bind(&wish.default_agent)
    .bind(wish.commit_changes)
    .bind(&wish.remote)
    .bind(&wish.root_commit)
    .bind(wish.record_typing)
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a project the name that a person wishes for it.
async fn rename(conn: &mut Connection, by: &Caller, known: &Project, wish: &Wish) -> Result<(), ProjectError> {
    if !wish.exact_name || sanitised(&wish.name) == known.name {
        return Ok(());
    }
    let name = free_name(conn, &wish.name, true).await?;
    let sql = "UPDATE projects SET name = $2 WHERE id = $1";
    sqlx::query(sql).bind(known.id).bind(&name).execute(&mut *conn).await.map_err(StoreError::from)?;
    let data = json!({ "project": name, "project_id": known.id, "before": known.name });
    let entry = Entry { actor: by.name().to_owned(), data, ..Entry::default() };
    record(conn, "project.renamed", &entry).await?;
    Ok(())
}

/// Takes back the removal of a project, under its old name where that is free and no other is wished for.
async fn restore(conn: &mut Connection, by: &Caller, known: &Project, wish: &Wish) -> Result<(), ProjectError> {
    let wanted = if wish.exact_name { &wish.name } else { &known.name };
    let name = free_name(conn, wanted, wish.exact_name).await?;
    let sql = "UPDATE projects SET removed_at = NULL, name = $2, git_revision = git_revision + 1 WHERE id = $1";
    sqlx::query(sql).bind(known.id).bind(&name).execute(&mut *conn).await.map_err(StoreError::from)?;
    let data = json!({ "project": name, "project_id": known.id });
    let entry = Entry { actor: by.name().to_owned(), data, ..Entry::default() };
    record(conn, "project.restored", &entry).await?;
    Ok(())
}

async fn insert(conn: &mut Connection, by: &Caller, id: ProjectId, wish: &Wish) -> Result<(), ProjectError> {
    let name = free_name(conn, &wish.name, wish.exact_name).await?;
    sqlx::query(
        "INSERT INTO projects (id, name, root_commit, remote, default_agent, commit_changes, record_typing) \
         VALUES ($1, $2, $3, $4, COALESCE($5, ''), COALESCE($6, true), COALESCE($7, false))",
    )
    .bind(id.0)
    .bind(&name)
    .bind(&wish.root_commit)
    .bind(&wish.remote)
    .bind(&wish.default_agent)
    .bind(wish.commit_changes)
    .bind(wish.record_typing)
    .execute(&mut *conn)
    .await
    .map_err(StoreError::from)?;
    let data = json!({ "project": name, "project_id": id });
    let entry = Entry { actor: by.name().to_owned(), data, ..Entry::default() };
    record(conn, "project.created", &entry).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn a_refusal_names_some_tasks() {
        assert_eq!(numbered(&[3, 17]), "3, 17");
        assert!(numbered(&Vec::from_iter(1..=25)).ends_with("20 and 5 more"));
    }
}

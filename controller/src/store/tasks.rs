//! Tasks as they are made and named.

use std::collections::BTreeMap;

use sculpt_core::{
    naming,
    placement::{Class, Needs, Unwelcome},
    task::Policy,
};
use sculpt_proto::id::{ProjectId, TaskId};
use serde_json::json;
use sqlx::{FromRow, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    audit::{self, Act},
    classes, columns,
    events::{Entry, record},
    pools,
    prefix::{self, SHORTEST},
    requests::{Request, RequestError, Taken, take_request},
    visible,
};
use crate::access::{Caller, Create, In, May, Sees};

/// A task to be made.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its project and the commit it begins at; of a task that a person makes what they have proved.
    pub base: Option<(ProjectId, String)>,
    /// What it needs of an executor.
    pub needs: Needs,
    /// Shown in lists.
    pub title: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Higher runs earlier.
    pub priority: i32,
    /// Who wants it; of a task that a person makes they themselves.
    pub created_by: String,
    /// Its settings.
    pub policy: Policy,
    /// What the person asked for, as it is handed on.
    pub spec: Vec<u8>,
    /// What lists show of it; `None`: all of it.
    pub brief: Option<Vec<u8>>,
}

/// Where a task is started, by whom who may.
#[derive(Clone, Debug)]
pub enum Start {
    /// In a project, at this commit.
    At(In<Create>, String),
    /// Without one.
    WithoutProject(May<Create>),
}

impl Start {
    /// Who starts it.
    fn caller(&self) -> &Caller {
        match self {
            Self::At(by, _) => by.caller(),
            Self::WithoutProject(by) => by.caller(),
        }
    }
}

/// A task that was looked up by who sees it, with what their rights to it depend on.
#[derive(Clone, Debug, FromRow)]
pub struct Located {
    id: Uuid,
    project_id: Option<Uuid>,
    project: Option<String>,
    created_by: String,
    /// How many bear the name.
    count: i64,
}

impl Located {
    /// Its id.
    pub fn id(&self) -> TaskId {
        TaskId(self.id)
    }

    /// Id and name of its project.
    pub fn project(&self) -> Option<(ProjectId, &str)> {
        self.project_id.map(ProjectId).zip(self.project.as_deref())
    }

    /// Who made it.
    pub fn creator(&self) -> &str {
        &self.created_by
    }
}

/// Why a task was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Its pool does not take it.
    #[error(transparent)]
    Pool(#[from] Unwelcome),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a name is not that of one task.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("there is no task {0:?}; `sculpt ls` lists those there are")]
    Unknown(String),
    /// There are several.
    #[error("{name:?} is the beginning of {count} tasks' uuids; give more of it, or the task's number")]
    Ambiguous {
        /// What was given.
        name: String,
        /// How many.
        count: i64,
    },
    /// It is no name at all.
    #[error(
        "{0:?} is neither a task's number nor its uuid, of which the first {SHORTEST} characters or more are enough"
    )]
    Malformed(String),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a task, unless `request` has made it before. Its id, and whether it is new.
    pub async fn create_task(
        &self,
        start: Start,
        request: Request,
        mut new: NewTask,
    ) -> Result<(TaskId, bool), CreateError> {
        new.created_by = start.caller().name().to_owned();
        new.base = match &start {
            Start::At(by, commit) => Some((by.project(), commit.clone())),
            Start::WithoutProject(_) => None,
        };
        self.write(move |conn| {
            Box::pin(async move {
                let id = TaskId::fresh();
                match take_request(conn, &request, id.0).await? {
                    Taken::Done(done) => Ok((TaskId(done), false)),
                    Taken::Fresh => {
                        create(conn, &start, id, &new).await?;
                        sculpt_failpoints::pass("task.before_commit");
                        Ok((id, true))
                    }
                }
            })
        })
        .await
    }

    /// The task that a person means by `name`, among those that they see.
    pub async fn find_task(&self, sees: &Sees, name: &str) -> Result<Located, LookupError> {
        let mut conn = self.read().await?;
        if let Ok(number) = name.trim_start_matches('#').parse::<i64>()
            && name.len() < 20
        {
            let mut query = located(sees);
            let found = query.push(" AND t.number = ").push_bind(number).build_query_as();
            if let Some(found) = found.fetch_optional(&mut *conn).await.map_err(StoreError::from)? {
                return Ok(found);
            }
        }
        let Some((from, to)) = prefix::uuids(name) else {
            let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
            let name = name.to_owned();
            return Err(if digits { LookupError::Unknown(name) } else { LookupError::Malformed(name) });
        };
        let mut query = located(sees);
        query.push(" AND t.id BETWEEN ").push_bind(from).push(" AND ").push_bind(to).push(" LIMIT 1");
        let found: Option<Located> =
            query.build_query_as().fetch_optional(&mut *conn).await.map_err(StoreError::from)?;
        match found {
            Some(found) if found.count == 1 => Ok(found),
            Some(found) => Err(LookupError::Ambiguous { name: name.to_owned(), count: found.count }),
            None => Err(LookupError::Unknown(name.to_owned())),
        }
    }
}

/// Tasks that are seen.
fn located(sees: &Sees) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT t.id, t.project_id, p.name AS project, t.created_by, count(*) OVER () AS count FROM tasks t \
         LEFT JOIN projects p ON p.id = t.project_id WHERE ",
    );
    visible::tasks(&mut query, sees);
    query
}

async fn create(conn: &mut Connection, start: &Start, id: TaskId, new: &NewTask) -> Result<(), CreateError> {
    let project = new.base.as_ref().map(|(project, _)| *project);
    pools::admits(conn, &new.needs.pool, project.map(|project| project.0), &new.created_by).await??;
    let number = insert(conn, id, new).await?;
    let details = json!({ "task_id": id, "title": new.title });
    let act = Act::new("task.create", format!("task:{number}")).within(project).with(details);
    Ok(audit::append(conn, &start.caller().by(), act).await?)
}

/// The number that it gets.
async fn insert(conn: &mut Connection, id: TaskId, new: &NewTask) -> Result<i64, StoreError> {
    let number: i64 =
        sqlx::query_scalar("SELECT nextval(pg_get_serial_sequence('tasks', 'number'))").fetch_one(&mut *conn).await?;
    let branch = if new.base.is_some() { naming::branch(number.unsigned_abs(), &new.title) } else { String::new() };
    insert_as(conn, id, Place { number, branch, next: 1 }, new).await?;
    Ok(number)
}

/// Where a new task stands among the others.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its number.
    pub(super) number: i64,
    /// Its branch, without `refs/heads/`; empty without a repository.
    pub(super) branch: String,
    /// Number of the attempt that it waits for.
    pub(super) next: u32,
}

pub(super) async fn insert_as(
    conn: &mut Connection,
    id: TaskId,
    place: Place,
    new: &NewTask,
) -> Result<(), StoreError> {
    let Place { number, branch, next } = place;
    let (project, base) = new.base.as_ref().map(|(project, base)| (project.0, base)).unzip();
    let class = Class { needs: new.needs.clone(), executor: None, project, requester: new.created_by.clone() };
    let class = classes::id(conn, &class).await?;
    sqlx::query(
        "INSERT INTO tasks (id, number, project_id, class_id, title, branch, base, labels, priority, created_by, spec, \
         on_lost, lost_after, brief, next_attempt) OVERRIDING SYSTEM VALUE \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::on_lost, $13 * interval '1 microsecond', $14, $15)",
    )
    .bind(id.0)
    .bind(number)
    .bind(project)
    .bind(class)
    .bind(&new.title)
    .bind(branch)
    .bind(base)
    .bind(Json(&new.labels))
    .bind(new.priority)
    .bind(&new.created_by)
    .bind(&new.spec)
    .bind(new.policy.on_lost.as_str())
    .bind(new.policy.lost_after.num_microseconds().unwrap_or(i64::MAX))
    .bind(&new.brief)
    .bind(columns::number(next))
    .execute(&mut *conn)
    .await?;
    let entry = Entry {
        task: Some((id, number.unsigned_abs(), 1, "queued")),
        actor: new.created_by.clone(),
        data: json!({ "title": new.title }),
        ..Entry::default()
    };
    record(conn, "task.created", &entry).await
}

//! Tasks as people see them: one by one with all attempts, or in lists with the current one.

use std::collections::BTreeMap;

use sculpt_proto::id::ProjectId;
use sqlx::{Connection as _, FromRow, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    events::Place,
    executors::{self, Executor},
    milestones::{self, Milestone},
    pools::{self, Rules},
    seats::{self, Seat},
    visible,
};
use crate::access::{On, Read, Sees};

/// What lists say of a task, and what one task says beyond its attempts.
#[derive(Clone, Debug, FromRow)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Its number.
    pub number: i64,
    /// Raised with every change that people see.
    pub revision: i64,
    /// Its title.
    pub title: String,
    /// Its state as people see it.
    pub shown: String,
    /// What people want of it.
    pub intent: String,
    /// What somebody has said that it is for.
    pub intent_line: Option<String>,
    /// What people think of its result.
    pub review: String,
    /// Its project.
    pub project_id: Option<Uuid>,
    /// Its project's name.
    pub project: Option<String>,
    /// Its project was removed.
    pub project_removed: bool,
    /// Its branch; empty without a repository.
    pub branch: String,
    /// The commit it begins at.
    pub base: Option<String>,
    /// Its own labels.
    pub labels: Json<BTreeMap<String, String>>,
    /// Higher runs earlier.
    pub priority: i32,
    /// Who wants it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Not to be placed before.
    pub not_before: Option<Time>,
    /// The pool it needs.
    pub pool: String,
    /// The labels it needs of an executor.
    pub requirements: Json<BTreeMap<String, String>>,
    /// The agent it needs: absent for a command, empty for the executor's default.
    pub agent: Option<String>,
    /// The one executor that will do, because it has the workspace that the task goes on in.
    pub executor_id: Option<Uuid>,
    /// As it was asked for; in lists what stands for it there.
    pub spec: Vec<u8>,
    /// Lists: the spec is not whole.
    pub spec_cut: bool,
    /// Its newest attempt.
    pub attempt_id: Option<Uuid>,
}

/// What people see of an attempt.
#[derive(Clone, Debug, FromRow)]
pub struct Attempt {
    /// Its id.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// 1, 2, 3, … per task.
    pub number: i32,
    /// Who runs it.
    pub executor_id: Uuid,
    /// Its name.
    pub executor: String,
    /// Where it stands.
    pub state: String,
    /// Where its agent's turn stands, while it runs.
    pub turn: Option<String>,
    /// What it was asked or asks, if it asks.
    pub question: Option<String>,
    /// Until when the provider refuses.
    pub limited_until: Option<Time>,
    /// Whether its executor is heard of.
    pub liveness: String,
    /// When somebody was last heard of where it is, if that is long ago.
    pub silent_since: Option<Time>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it failed.
    pub cause: Option<String>,
    /// In one sentence.
    pub message: Option<String>,
    /// What the main process returned.
    pub exit_code: Option<i32>,
    /// What ended the main process.
    pub exit_signal: Option<i32>,
    /// What was published.
    pub head: Option<String>,
    /// The main process.
    pub pid: i64,
    /// The socket of its terminal.
    pub tmux_socket: String,
    /// Remarks of the executor.
    pub notes: Vec<String>,
    /// Length of its log here.
    pub log_bytes: i64,
    /// Length of its log as its executor says.
    pub log_final: Option<i64>,
    /// When it was claimed.
    pub created_at: Time,
    /// When its agent began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// Tasks with what is needed to show them, all true at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Their attempts, oldest first: all, or in lists the newest of each.
    pub attempts: Vec<Attempt>,
    /// Who sits beside them; lists do not say.
    pub seats: Vec<Seat>,
    /// How far it has come, of a single task.
    pub milestones: Vec<Milestone>,
    /// All executors, for why a task waits; empty when none of the tasks does.
    pub executors: Vec<Executor>,
    /// Whose tasks their pools take.
    pub pools: Rules,
}

/// Which tasks are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Any of these states; empty means all.
    pub states: Vec<&'static str>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this person.
    pub created_by: Option<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// With a lower number.
    pub below: Option<i64>,
}

const TASK: &str = "t.id, t.number, t.revision, t.title, t.shown::text AS shown, t.intent::text AS intent, t.intent_line, \
     t.review::text AS review, t.project_id, p.name AS project, p.removed_at IS NOT NULL AS project_removed, t.branch, t.base, t.labels, t.priority, t.created_by, t.created_at, t.ended_at, \
     t.not_before, c.pool, c.requirements, c.agent, c.executor_id, t.attempt_id \
     FROM tasks t JOIN classes c ON c.id = t.class_id LEFT JOIN projects p ON p.id = t.project_id";

const ATTEMPT: &str = "SELECT a.id, a.task_id, a.number, a.executor_id, e.name AS executor, a.state::text AS state, a.turn::text AS turn, a.question, \
     a.limited_until, a.liveness::text AS liveness, CASE a.liveness WHEN 'connected' THEN NULL \
     ELSE GREATEST(a.silent_since, COALESCE(a.last_heard, e.last_seen)) END AS silent_since, a.outcome::text AS outcome, a.cause, a.message, a.exit_code, \
     a.exit_signal, a.head, a.pid, a.tmux_socket, a.notes, a.log_bytes, a.log_final, a.created_at, a.started_at, \
     a.ended_at FROM attempts a JOIN executors e ON e.id = a.executor_id";

impl Store {
    /// A task with all of its attempts.
    pub async fn task(&self, by: &On<Read>) -> Result<Option<View>, StoreError> {
        let id = by.task();
        let mut conn = self.read().await?;
        let mut snapshot = snapshot(&mut conn).await?;
        let sql = format!("SELECT t.spec, false AS spec_cut, {TASK} WHERE t.id = $1");
        let task: Option<Task> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(&mut *snapshot).await?;
        let Some(task) = task else { return Ok(None) };
        let sql = format!("{ATTEMPT} WHERE a.task_id = $1 ORDER BY a.number");
        let attempts = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_all(&mut *snapshot).await?;
        let seats = seats::beside(&mut snapshot, id).await?;
        let milestones = milestones::of(&mut snapshot, id).await?;
        let view = complete(&mut snapshot, vec![task], attempts).await?;
        snapshot.commit().await?;
        Ok(Some(View { seats, milestones, ..view }))
    }

    /// The newest tasks that pass `filter`, at most `limit`, and a place in the journal that they are true for.
    pub async fn list_tasks(&self, sees: &Sees, filter: &Filter, limit: u32) -> Result<(View, Place), StoreError> {
        let place = self.settled().await?;
        let mut conn = self.read().await?;
        let mut snapshot = snapshot(&mut conn).await?;
        let tasks = select(&mut snapshot, sees, filter, limit).await?;
        let newest: Vec<Uuid> = tasks.iter().filter_map(|task| task.attempt_id).collect();
        // A task that is queued again shows the attempt before.
        let queued: Vec<Uuid> = tasks.iter().filter(|task| task.attempt_id.is_none()).map(|task| task.id).collect();
        let sql = format!(
            "{ATTEMPT} WHERE a.id = ANY ($1) OR a.id IN (SELECT DISTINCT ON (task_id) id FROM attempts \
             WHERE task_id = ANY ($2) ORDER BY task_id, number DESC)"
        );
        let attempts =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(newest).bind(queued).fetch_all(&mut *snapshot).await?;
        let view = complete(&mut snapshot, tasks, attempts).await?;
        snapshot.commit().await?;
        Ok((view, place))
    }

    /// The revision of a task: what changes when people see it change.
    pub async fn task_revision(&self, by: &On<Read>) -> Result<Option<i64>, StoreError> {
        let id = by.task();
        let mut conn = self.read().await?;
        let sql = "SELECT revision FROM tasks WHERE id = $1";
        Ok(sqlx::query_scalar(sql).bind(id.0).fetch_optional(&mut *conn).await?)
    }
}

async fn select(conn: &mut Connection, sees: &Sees, filter: &Filter, limit: u32) -> Result<Vec<Task>, StoreError> {
    let mut query =
        QueryBuilder::<Postgres>::new("SELECT COALESCE(t.brief, t.spec) AS spec, t.brief IS NOT NULL AS spec_cut, ");
    query.push(TASK);
    query.push(" WHERE t.number < ").push_bind(filter.below.unwrap_or(i64::MAX)).push(" AND ");
    visible::tasks(&mut query, sees);
    if !filter.states.is_empty() {
        // Words of our own, written out: bound as text they would be cast at run time, and the planner, which then cannot
        // tell how few tasks are in a state, walks through all there are.
        let states: Vec<String> = filter.states.iter().map(|state| format!("'{state}'")).collect();
        query.push(format!(" AND t.shown IN ({})", states.join(", ")));
    }
    if let Some(project) = filter.project {
        query.push(" AND t.project_id = ").push_bind(project.0);
    }
    if let Some(person) = &filter.created_by {
        query.push(" AND t.created_by = ").push_bind(person);
    }
    if !filter.labels.is_empty() {
        query.push(" AND t.labels @> ").push_bind(Json(&filter.labels));
    }
    query.push(" ORDER BY t.number DESC LIMIT ").push_bind(i64::from(limit));
    Ok(query.build_query_as().fetch_all(conn).await?)
}

/// One moment for several statements.
async fn snapshot(conn: &mut Connection) -> Result<sqlx::Transaction<'_, Postgres>, StoreError> {
    Ok(conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
}

async fn complete(conn: &mut Connection, tasks: Vec<Task>, attempts: Vec<Attempt>) -> Result<View, StoreError> {
    let waits = tasks.iter().any(|task| task.shown == "queued");
    if !waits {
        return Ok(View {
            tasks,
            attempts,
            seats: Vec::new(),
            milestones: Vec::new(),
            executors: Vec::new(),
            pools: Rules::default(),
        });
    }
    let executors = executors::all(conn, &Sees::everything()).await?;
    Ok(View { tasks, attempts, seats: Vec::new(), milestones: Vec::new(), executors, pools: pools::rules(conn).await? })
}

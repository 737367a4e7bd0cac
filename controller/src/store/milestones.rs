//! What tasks are for and how far they have come, as people and agents say.

use sculpt_proto::id::{ExecutorId, TaskId};
use serde_json::json;
use sqlx::FromRow;

use super::{
    Connection, StoreError, Time, columns,
    events::{Entry, record},
    task_state::Locked,
};

/// Longest milestone, in characters.
pub const MAX_MILESTONE: usize = 500;
/// Longest intent, in characters.
pub const MAX_INTENT: usize = 200;
/// How many of a task's milestones are kept beside the journal.
const KEPT: i64 = 20;

/// A milestone to be kept.
#[derive(Clone, Debug)]
pub struct NewMilestone {
    /// Number of the attempt within which it was said, and who has that.
    pub attempt: Option<(u32, ExecutorId)>,
    /// Who said it; empty for anybody within the attempt.
    pub user: String,
    /// When.
    pub at: Time,
    /// One line.
    pub text: String,
}

/// A milestone as people see it.
#[derive(Clone, Debug, FromRow)]
pub struct Milestone {
    /// Number of the attempt within which it was said.
    pub attempt: Option<i32>,
    /// Who said it; empty for anybody within the attempt.
    pub user_name: String,
    /// When.
    pub said_at: Time,
    /// One line.
    pub text: String,
}

/// Keeps a milestone of a task that is locked.
pub async fn add(conn: &mut Connection, locked: &Locked, new: &NewMilestone) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO milestones (task_id, attempt, user_name, said_at, text) VALUES ($1, $2, $3, $4, $5)")
        .bind(locked.id.0)
        .bind(new.attempt.map(|(number, _)| columns::number(number)))
        .bind(&new.user)
        .bind(new.at)
        .bind(&new.text)
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "DELETE FROM milestones WHERE task_id = $1 AND id <= \
         (SELECT id FROM milestones WHERE task_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)",
    )
    .bind(locked.id.0)
    .bind(KEPT)
    .execute(&mut *conn)
    .await?;
    let entry = Entry {
        task: Some((locked.id, locked.number, locked.revision, locked.shown())),
        attempt: new.attempt,
        actor: new.user.clone(),
        data: json!({ "text": new.text }),
    };
    record(conn, "task.milestone", &entry).await
}

/// Says what a task that is locked is for; none: what its spec or title says.
pub async fn set_intent(
    conn: &mut Connection,
    locked: &Locked,
    user: &str,
    intent: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "UPDATE tasks SET intent_line = $2 WHERE id = $1";
    sqlx::query(sql).bind(locked.id.0).bind(intent).execute(&mut *conn).await?;
    let entry = Entry {
        task: Some((locked.id, locked.number, locked.revision, locked.shown())),
        actor: user.to_owned(),
        data: json!({ "intent": intent.unwrap_or_default() }),
        ..Entry::default()
    };
    record(conn, "task.intent", &entry).await
}

/// The last milestones of a task, oldest first.
pub async fn of(conn: &mut Connection, task: TaskId) -> Result<Vec<Milestone>, StoreError> {
    let sql = "SELECT attempt, user_name, said_at, text FROM milestones WHERE task_id = $1 ORDER BY id";
    Ok(sqlx::query_as(sql).bind(task.0).fetch_all(conn).await?)
}

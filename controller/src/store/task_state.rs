//! A task as the machines of the core see it: loaded under its row's lock, written with its journal entry.

use std::time::Duration;

use chrono::TimeDelta;
use sculpt_core::{
    attempt::{Attempt, AttemptState},
    review::{Commit, Review},
    shown::shown,
    task::{Event, Intent, OnLost, Policy, Run, Surviving, Task},
};
use sculpt_proto::id::TaskId;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    dispatch::Actor,
    store::{
        Connection, StoreError, Time, attempt_state, classes,
        columns::{number, present, signed, unreadable},
        event_details::details,
    },
};

/// A task whose rows are locked by the transaction that read it.
#[derive(Clone, Debug)]
pub struct Locked {
    /// Its id.
    pub id: TaskId,
    /// Its number.
    pub number: u64,
    /// Its revision.
    pub revision: u64,
    /// What the machines see.
    pub task: Task,
    /// The database's clock, read under the lock.
    pub now: Time,
    /// When the newest attempt was claimed.
    offered_at: Option<Time>,
}

impl Locked {
    /// The same rows, still locked, once they hold `task` at `revision`.
    pub fn moved(&self, task: Task, revision: u64) -> Self {
        Self { task, revision, ..self.clone() }
    }

    /// What people see of it.
    pub fn shown(&self) -> &'static str {
        shown(&self.task).as_str()
    }

    /// What the clock said `age` ago.
    pub fn before(&self, age: Duration) -> Time {
        TimeDelta::from_std(age).ok().and_then(|age| self.now.checked_sub_signed(age)).unwrap_or(self.now)
    }

    /// What happened `age` ago, but not before the newest attempt was claimed.
    pub fn ago(&self, age: Duration) -> Time {
        let then = self.before(age);
        self.offered_at.map_or(then, |offered| then.max(offered).min(self.now))
    }
}

/// Locks the rows of `task` and its newest attempt.
pub async fn lock(conn: &mut Connection, task: TaskId) -> Result<Option<Locked>, StoreError> {
    let row = sqlx::query(
        "SELECT number, revision, intent::text, review::text, review_head, merge_commit, reject_reason, on_lost::text, \
         (extract(epoch FROM lost_after) * 1000000)::bigint AS lost_after, next_attempt, attempt_id, workspace_of, \
         (SELECT executor_id FROM attempts WHERE id = workspace_of) AS workspace_at FROM tasks WHERE id = $1 FOR UPDATE",
    )
    .bind(task.0)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (run, now, offered_at) = match row.try_get::<Option<Uuid>, _>("attempt_id")? {
        Some(attempt) => {
            let (attempt, now, offered_at) = attempt_state::lock(conn, attempt).await?;
            (Run::Attempt(attempt), now, Some(offered_at))
        }
        None => {
            let now = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *conn).await?;
            (Run::Queued { next: row.try_get::<i32, _>("next_attempt")?.unsigned_abs() }, now, None)
        }
    };
    let policy = Policy {
        on_lost: on_lost(row.try_get("on_lost")?)?,
        lost_after: TimeDelta::microseconds(row.try_get("lost_after")?),
    };
    let surviving = row.try_get::<Option<Uuid>, _>("workspace_of")?.zip(row.try_get("workspace_at")?);
    let surviving = surviving.map(|(attempt, executor)| Surviving { attempt, executor });
    let task_state = Task { intent: intent(row.try_get("intent")?)?, review: review(&row)?, run, surviving, policy };
    Ok(Some(Locked {
        id: task,
        number: row.try_get::<i64, _>("number")?.unsigned_abs(),
        revision: row.try_get::<i64, _>("revision")?.unsigned_abs(),
        task: task_state,
        now,
        offered_at,
    }))
}

/// Writes `after`, which `event` made of `locked`, and the journal's entry. Returns the task's revision, which stays as it
/// is where people see no change.
pub async fn save(
    conn: &mut Connection,
    locked: &Locked,
    after: &Task,
    event: &Event,
    by: &Actor,
) -> Result<u64, StoreError> {
    if let Some(left) = locked.task.attempt()
        && taken_away(left, after, event)
    {
        sqlx::query("UPDATE attempts SET fenced_at = $2 WHERE id = $1")
            .bind(left.fence.id)
            .bind(locked.now)
            .execute(&mut *conn)
            .await?;
    }
    if let Run::Attempt(attempt) = &after.run {
        if matches!(event, Event::Claimed { .. } | Event::Adopted { .. }) {
            attempt_state::insert(conn, locked, attempt).await?;
        }
        if !matches!(event, Event::Claimed { .. }) {
            attempt_state::update(conn, attempt).await?;
        }
    }
    if after.surviving != locked.task.surviving {
        classes::pin(conn, locked.id, after.surviving).await?;
    }
    if matches!(event, Event::SpecRead { .. }) {
        return Ok(locked.revision);
    }
    let revision = locked.revision + 1;
    update_task(conn, locked, after, event, revision).await?;
    let concerned = after.attempt().or(locked.task.attempt());
    sqlx::query(
        "INSERT INTO events (kind, task_id, task_number, attempt, executor_id, revision, shown, actor, data) \
         VALUES ($1, $2, $3, $4, $5, $6, $7::shown_state, $8, $9)",
    )
    .bind(event.kind())
    .bind(locked.id.0)
    .bind(signed(locked.number))
    .bind(concerned.map(|attempt| number(attempt.fence.number)))
    .bind(concerned.map(|attempt| attempt.executor))
    .bind(signed(revision))
    .bind(shown(after).as_str())
    .bind(&by.name)
    .bind(details(event, by))
    .execute(&mut *conn)
    .await?;
    Ok(revision)
}

/// Whether the controller took the task away from an attempt that had not ended by its own word.
fn taken_away(left: &Attempt, after: &Task, event: &Event) -> bool {
    let expired = matches!(event, Event::Expired { .. });
    !left.ended() && (expired || after.attempt().is_none_or(|now| now.fence != left.fence))
}

async fn update_task(
    conn: &mut Connection,
    locked: &Locked,
    after: &Task,
    event: &Event,
    revision: u64,
) -> Result<(), StoreError> {
    let (review_head, merge_commit, reject_reason) = match &after.review {
        Review::None => (None, None, None),
        Review::Needed { head } | Review::Accepted { head } => (Some(&head.0), None, None),
        Review::Merged { commit } => (None, Some(&commit.0), None),
        Review::Rejected { reason } => (None, None, Some(reason)),
    };
    let (next, attempt) = match &after.run {
        Run::Queued { next } => (Some(number(*next)), None),
        Run::Attempt(attempt) => (None, Some(attempt.fence.id)),
    };
    // A task that was only withdrawn keeps its place in the queue.
    let queued_at =
        matches!(event, Event::Retry | Event::RetryInWorkspace | Event::Expired { .. } | Event::Replaced { .. });
    let queued_at = queued_at.then_some(locked.now);
    let (over, ended_at) = match &after.run {
        Run::Attempt(Attempt { state: AttemptState::Ended { at, .. }, .. }) => (true, Some(*at)),
        Run::Queued { .. } if after.intent == Intent::Cancel => (true, None),
        Run::Attempt(_) | Run::Queued { .. } => (false, None),
    };
    sqlx::query(
        "UPDATE tasks SET revision = $2, intent = $3::task_intent, review = $4::review_state, review_head = $5, \
         merge_commit = $6, reject_reason = $7, next_attempt = $8, attempt_id = $9, shown = $10::shown_state, \
         queued_at = COALESCE($11, queued_at), ended_at = CASE WHEN $12 THEN COALESCE($13, ended_at, $14) END \
         WHERE id = $1",
    )
    .bind(locked.id.0)
    .bind(signed(revision))
    .bind(after.intent.as_str())
    .bind(after.review.as_str())
    .bind(review_head)
    .bind(merge_commit)
    .bind(reject_reason)
    .bind(next)
    .bind(attempt)
    .bind(shown(after).as_str())
    .bind(queued_at)
    .bind(over)
    .bind(ended_at)
    .bind(locked.now)
    .execute(&mut *conn)
    .await?;
    Ok(())
}

fn intent(name: &str) -> Result<Intent, StoreError> {
    [Intent::Run, Intent::Hold, Intent::Cancel]
        .into_iter()
        .find(|intent| intent.as_str() == name)
        .ok_or_else(|| unreadable("tasks.intent", name))
}

fn on_lost(name: &str) -> Result<OnLost, StoreError> {
    [OnLost::Wait, OnLost::Retry, OnLost::Fail]
        .into_iter()
        .find(|on_lost| on_lost.as_str() == name)
        .ok_or_else(|| unreadable("tasks.on_lost", name))
}

fn review(row: &PgRow) -> Result<Review, StoreError> {
    let head = || -> Result<Commit, StoreError> {
        present(row.try_get::<Option<String>, _>("review_head")?, "tasks.review_head").map(Commit)
    };
    Ok(match row.try_get("review")? {
        "none" => Review::None,
        "needed" => Review::Needed { head: head()? },
        "accepted" => Review::Accepted { head: head()? },
        "merged" => Review::Merged { commit: Commit(present(row.try_get("merge_commit")?, "tasks.merge_commit")?) },
        "rejected" => Review::Rejected { reason: present(row.try_get("reject_reason")?, "tasks.reject_reason")? },
        other => return Err(unreadable("tasks.review", other)),
    })
}

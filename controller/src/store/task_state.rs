//! A task as the machines of the core see it: loaded under its row's lock, written with its journal entry.

use std::time::Duration;

use chrono::TimeDelta;
use sculpt_core::{
    attempt::{Attempt, AttemptState, Fence, Offer},
    liveness::Liveness,
    outcome::{Cause, Exit, Failure, Outcome},
    review::{Commit, Review},
    shown::shown,
    task::{Event, Intent, OnLost, Policy, Run, Task},
    turn::{Ask, Turn},
};
use sculpt_proto::id::TaskId;
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    dispatch::Actor,
    store::{
        Connection, StoreError, Time,
        event_details::{ask_name, details},
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
    /// What happened `age` ago, but not before the newest attempt was claimed.
    pub fn ago(&self, age: Duration) -> Time {
        let then = TimeDelta::from_std(age).ok().and_then(|age| self.now.checked_sub_signed(age)).unwrap_or(self.now);
        self.offered_at.map_or(then, |offered| then.max(offered).min(self.now))
    }
}

/// Locks the rows of `task` and its newest attempt.
pub async fn lock(conn: &mut Connection, task: TaskId) -> Result<Option<Locked>, StoreError> {
    let row = sqlx::query(
        "SELECT number, revision, intent::text, review::text, review_head, merge_commit, reject_reason, on_lost::text, \
         (extract(epoch FROM lost_after) * 1000000)::bigint AS lost_after, next_attempt, attempt_id \
         FROM tasks WHERE id = $1 FOR UPDATE",
    )
    .bind(task.0)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (run, now, offered_at) = match row.try_get::<Option<Uuid>, _>("attempt_id")? {
        Some(attempt) => {
            let (attempt, now, offered_at) = lock_attempt(conn, attempt).await?;
            (Run::Attempt(attempt), now, Some(offered_at))
        }
        None => {
            let now = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *conn).await?;
            (Run::Queued { next: unsigned(row.try_get::<i32, _>("next_attempt")?) }, now, None)
        }
    };
    let policy = Policy {
        on_lost: on_lost(row.try_get("on_lost")?)?,
        lost_after: TimeDelta::microseconds(row.try_get("lost_after")?),
    };
    let task_state = Task { intent: intent(row.try_get("intent")?)?, review: review(&row)?, run, policy };
    Ok(Some(Locked {
        id: task,
        number: row.try_get::<i64, _>("number")?.unsigned_abs(),
        revision: row.try_get::<i64, _>("revision")?.unsigned_abs(),
        task: task_state,
        now,
        offered_at,
    }))
}

async fn lock_attempt(conn: &mut Connection, attempt: Uuid) -> Result<(Attempt, Time, Time), StoreError> {
    let row = sqlx::query(
        "SELECT id, number, executor_id, state::text, spec_read, turn::text, ask::text, question, limited_until, \
         liveness::text, silent_since, outcome::text, cause, message, exit_code, exit_signal, head, created_at, \
         started_at, ended_at, clock_timestamp() AS now FROM attempts WHERE id = $1 FOR UPDATE",
    )
    .bind(attempt)
    .fetch_one(&mut *conn)
    .await?;
    let attempt = Attempt {
        fence: Fence { number: unsigned(row.try_get::<i32, _>("number")?), id: row.try_get("id")? },
        executor: row.try_get("executor_id")?,
        state: attempt_state(&row)?,
        head: row.try_get::<Option<String>, _>("head")?.map(Commit),
        liveness: liveness(&row)?,
    };
    Ok((attempt, row.try_get("now")?, row.try_get("created_at")?))
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
        if matches!(event, Event::Claimed { .. }) {
            insert_attempt(conn, locked, attempt).await?;
        } else {
            update_attempt(conn, attempt).await?;
        }
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
    let queued_at = matches!(event, Event::Retry | Event::Expired { .. }).then_some(locked.now);
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

async fn insert_attempt(conn: &mut Connection, locked: &Locked, attempt: &Attempt) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO attempts (id, task_id, number, executor_id, spec_digest, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(attempt.fence.id)
    .bind(locked.id.0)
    .bind(number(attempt.fence.number))
    .bind(attempt.executor)
    .bind(Vec::<u8>::new())
    .bind(locked.now)
    .execute(&mut *conn)
    .await?;
    Ok(())
}

async fn update_attempt(conn: &mut Connection, attempt: &Attempt) -> Result<(), StoreError> {
    let columns = Columns::of(attempt);
    sqlx::query(
        "UPDATE attempts SET state = $2::attempt_state, spec_read = spec_read OR $3, turn = $4::turn_state, \
         ask = $5::ask_kind, question = $6, limited_until = $7, liveness = $8::liveness, silent_since = $9, \
         outcome = $10::outcome, cause = $11, message = $12, exit_code = COALESCE($13, exit_code), \
         exit_signal = COALESCE($14, exit_signal), head = $15, started_at = COALESCE($16, started_at), ended_at = $17 \
         WHERE id = $1",
    )
    .bind(attempt.fence.id)
    .bind(attempt.state.as_str())
    .bind(columns.spec_read)
    .bind(columns.turn)
    .bind(columns.ask)
    .bind(columns.question)
    .bind(columns.limited_until)
    .bind(attempt.liveness.as_str())
    .bind(attempt.liveness.since())
    .bind(columns.outcome)
    .bind(columns.cause)
    .bind(columns.message)
    .bind(columns.exit_code)
    .bind(columns.exit_signal)
    .bind(attempt.head.as_ref().map(|head| &head.0))
    .bind(columns.started_at)
    .bind(columns.ended_at)
    .execute(&mut *conn)
    .await?;
    Ok(())
}

/// An attempt's state as columns.
#[derive(Default)]
struct Columns<'a> {
    spec_read: bool,
    turn: Option<&'static str>,
    ask: Option<&'static str>,
    question: Option<&'a str>,
    limited_until: Option<Time>,
    outcome: Option<&'static str>,
    cause: Option<&'a str>,
    message: Option<&'a str>,
    exit_code: Option<i32>,
    exit_signal: Option<i32>,
    started_at: Option<Time>,
    ended_at: Option<Time>,
}

impl<'a> Columns<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        let mut columns = Self { spec_read: true, ..Self::default() };
        match &attempt.state {
            AttemptState::Offered { offer } => columns.spec_read = *offer == Offer::Read,
            AttemptState::Accepted | AttemptState::Preparing => {}
            AttemptState::Running { since, turn } => {
                columns.started_at = Some(*since);
                columns.turn = Some(turn.as_str());
                match turn {
                    Turn::Working | Turn::Idle | Turn::Parked => {}
                    Turn::Asking { ask, text } => {
                        columns.ask = Some(ask_name(*ask));
                        columns.question = Some(text);
                    }
                    Turn::Limited { until } => columns.limited_until = *until,
                }
            }
            AttemptState::Finalizing { exit } => match exit {
                Some(Exit::Code(code)) => columns.exit_code = Some(*code),
                Some(Exit::Signal(signal)) => columns.exit_signal = Some(*signal),
                None => {}
            },
            AttemptState::Ended { outcome, at } => {
                columns.ended_at = Some(*at);
                columns.outcome = Some(outcome.as_str());
                if let Outcome::Failed(Failure { cause, message }) = outcome {
                    columns.cause = Some(cause.as_str());
                    columns.message = Some(message);
                }
            }
        }
        columns
    }
}

fn unreadable(what: &'static str, value: &str) -> StoreError {
    StoreError::Unreadable { what, value: value.to_owned() }
}

fn present<T>(value: Option<T>, what: &'static str) -> Result<T, StoreError> {
    value.ok_or_else(|| unreadable(what, "nothing"))
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

fn review(row: &sqlx::postgres::PgRow) -> Result<Review, StoreError> {
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

fn attempt_state(row: &sqlx::postgres::PgRow) -> Result<AttemptState, StoreError> {
    Ok(match row.try_get("state")? {
        "offered" => {
            AttemptState::Offered { offer: if row.try_get("spec_read")? { Offer::Read } else { Offer::Unread } }
        }
        "accepted" => AttemptState::Accepted,
        "preparing" => AttemptState::Preparing,
        "running" => AttemptState::Running {
            since: present(row.try_get("started_at")?, "attempts.started_at")?,
            turn: turn(row)?,
        },
        "finalizing" => AttemptState::Finalizing {
            exit: match (row.try_get("exit_code")?, row.try_get("exit_signal")?) {
                (Some(code), _) => Some(Exit::Code(code)),
                (None, Some(signal)) => Some(Exit::Signal(signal)),
                (None, None) => None,
            },
        },
        "ended" => {
            AttemptState::Ended { outcome: outcome(row)?, at: present(row.try_get("ended_at")?, "attempts.ended_at")? }
        }
        other => return Err(unreadable("attempts.state", other)),
    })
}

fn turn(row: &sqlx::postgres::PgRow) -> Result<Turn, StoreError> {
    Ok(match row.try_get("turn")? {
        "working" => Turn::Working,
        "idle" => Turn::Idle,
        "asking" => Turn::Asking {
            ask: match row.try_get("ask")? {
                "question" => Ask::Question,
                "permission" => Ask::Permission,
                other => return Err(unreadable("attempts.ask", other)),
            },
            text: row.try_get::<Option<String>, _>("question")?.unwrap_or_default(),
        },
        "limited" => Turn::Limited { until: row.try_get("limited_until")? },
        "parked" => Turn::Parked,
        other => return Err(unreadable("attempts.turn", other)),
    })
}

fn outcome(row: &sqlx::postgres::PgRow) -> Result<Outcome, StoreError> {
    Ok(match row.try_get("outcome")? {
        "completed" => Outcome::Completed,
        "failed" => Outcome::Failed(Failure {
            cause: Cause::from(present(row.try_get::<Option<String>, _>("cause")?, "attempts.cause")?),
            message: row.try_get::<Option<String>, _>("message")?.unwrap_or_default(),
        }),
        "cancelled" => Outcome::Cancelled,
        "fenced" => Outcome::Fenced,
        other => return Err(unreadable("attempts.outcome", other)),
    })
}

fn liveness(row: &sqlx::postgres::PgRow) -> Result<Liveness, StoreError> {
    let since = || -> Result<Time, StoreError> { present(row.try_get("silent_since")?, "attempts.silent_since") };
    Ok(match row.try_get("liveness")? {
        "connected" => Liveness::Connected,
        "unreachable" => Liveness::Unreachable { since: since()? },
        "lost" => Liveness::Lost { since: since()? },
        other => return Err(unreadable("attempts.liveness", other)),
    })
}

/// A count as the database's integer; counts never come near its limit.
fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn unsigned(value: i32) -> u32 {
    value.unsigned_abs()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

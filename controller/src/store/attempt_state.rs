//! Columns of an attempt as its machine, and back; under the lock of its task's row.

use sculpt_core::{
    attempt::{Attempt, AttemptState, Fence, Offer},
    liveness::Liveness,
    outcome::{Cause, Exit, Failure, Outcome},
    review::Commit,
    turn::{Ask, Turn},
};
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::store::{
    Connection, StoreError, Time,
    columns::{number, present, unreadable},
    event_details::ask_name,
    task_state::Locked,
};

/// Locks the attempt's row; with the database's clock, and when it was claimed. An attempt that is marked silent is so since
/// somebody was last heard of where it is, which may be later than the mark.
pub(super) async fn lock(conn: &mut Connection, attempt: Uuid) -> Result<(Attempt, Time, Time), StoreError> {
    let row = sqlx::query(
        "SELECT a.id, number, executor_id, state::text, spec_read, turn::text, ask::text, question, limited_until, \
         a.liveness::text, GREATEST(silent_since, COALESCE(last_heard, last_seen)) AS silent_since, outcome::text, cause, \
         message, exit_code, exit_signal, head, created_at, started_at, ended_at, clock_timestamp() AS now \
         FROM attempts a JOIN executors e ON e.id = a.executor_id WHERE a.id = $1 FOR UPDATE OF a",
    )
    .bind(attempt)
    .fetch_one(&mut *conn)
    .await?;
    let attempt = Attempt {
        fence: Fence { number: row.try_get::<i32, _>("number")?.unsigned_abs(), id: row.try_get("id")? },
        executor: row.try_get("executor_id")?,
        state: attempt_state(&row)?,
        head: row.try_get::<Option<String>, _>("head")?.map(Commit),
        liveness: liveness(&row)?,
    };
    Ok((attempt, row.try_get("now")?, row.try_get("created_at")?))
}

/// Writes a fresh claim of the locked task.
pub(super) async fn insert(conn: &mut Connection, locked: &Locked, attempt: &Attempt) -> Result<(), StoreError> {
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

/// Writes what the machine says now, and to which directory the spec went.
pub(super) async fn update(conn: &mut Connection, attempt: &Attempt) -> Result<(), StoreError> {
    let columns = Columns::of(attempt);
    sqlx::query(
        "UPDATE attempts SET state = $2::attempt_state, spec_read = spec_read OR $3, turn = $4::turn_state, \
         ask = $5::ask_kind, question = $6, limited_until = $7, liveness = $8::liveness, silent_since = $9, \
         outcome = $10::outcome, cause = $11, message = $12, exit_code = COALESCE($13, exit_code), \
         exit_signal = COALESCE($14, exit_signal), head = $15, started_at = COALESCE($16, started_at), ended_at = $17, \
         directory = CASE WHEN last_heard IS NULL AND (spec_read OR $3) THEN \
           COALESCE(directory, (SELECT e.directory FROM executors e WHERE e.id = executor_id)) ELSE directory END \
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

fn attempt_state(row: &PgRow) -> Result<AttemptState, StoreError> {
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

fn turn(row: &PgRow) -> Result<Turn, StoreError> {
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

fn outcome(row: &PgRow) -> Result<Outcome, StoreError> {
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

fn liveness(row: &PgRow) -> Result<Liveness, StoreError> {
    let since = || -> Result<Time, StoreError> { present(row.try_get("silent_since")?, "attempts.silent_since") };
    Ok(match row.try_get("liveness")? {
        "connected" => Liveness::Connected,
        "unreachable" => Liveness::Unreachable { since: since()? },
        "lost" => Liveness::Lost { since: since()? },
        other => return Err(unreadable("attempts.liveness", other)),
    })
}

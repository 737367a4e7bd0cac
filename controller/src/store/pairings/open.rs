//! Letting somebody sit beside an agent.

use std::time::Duration;

use sculpt_pairing::{Right, Rights};
use sculpt_proto::id::{AttemptId, ExecutorId, PairingId, TaskId};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Pairing, Past, act, guests::standing_rows, names, one, placed};
use crate::{
    access::{Beside, Caller, Unknown},
    store::{
        Connection, Store, StoreError, audit, bearers, columns,
        requests::{Request, RequestError, Taken, take_request},
    },
};

/// Most pairings of one person beside one attempt that stand at a time.
const OF_ONE: i64 = 128;

/// Most pairings of one person that stand on one executor: nobody takes the place of all others.
const OF_PERSON: i64 = 256;

/// Most pairings that stand on one executor: all of them fit into one message to it.
pub const OF_EXECUTOR: i64 = 1000;

/// What is wanted beside an agent.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Who comes for what.
    pub by: Beside,
    /// For how long sessions can be begun.
    pub life: Duration,
    /// Fingerprint of the key that is certified for it.
    pub key: String,
}

/// A pairing that was opened, and where.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What was opened.
    pub pairing: Pairing,
    /// For how long sessions can be begun.
    pub remaining: Duration,
    /// Who runs the attempt.
    pub executor: ExecutorId,
    /// `host:port` where its ssh is reached without the controller; empty: nowhere.
    pub address: String,
}

/// Why nobody can sit beside a task's agent now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// There is no agent yet.
    #[error("task {0} has not started yet; wait until its agent runs")]
    NotStarted(i64),
    /// There is none any more.
    #[error("task {0} is over: there is no agent to sit beside; `sculpt logs {0}` shows what was said")]
    Over(i64),
    /// Its session has no process.
    #[error("the session of task {0} is parked; a message to its agent resumes it (`sculpt send {0}`)")]
    Parked(i64),
    /// It writes into pipes.
    #[error(
        "task {0} runs without a terminal, so there is none to sit at; `sculpt logs -f {0}` follows what it writes"
    )]
    NoTerminal(i64),
    /// Its executor is of a version that lets nobody in.
    #[error(
        "executor {executor} of task {task} is too old to be paired with; install this version of sculpt-executor on it"
    )]
    NoSsh {
        /// The task.
        task: i64,
        /// The executor.
        executor: String,
    },
    /// Its executor is not heard of.
    #[error("executor {executor} of task {task} has not been heard of for a while; the agent goes on, try again later")]
    Unreachable {
        /// The task.
        task: i64,
        /// The executor.
        executor: String,
    },
    /// They have many already.
    #[error("you have {OF_ONE} pairings with task {0} that are open, or were until an hour ago; use one of them again")]
    TooMany(i64),
    /// They have, with its executor.
    #[error(
        "you have {OF_PERSON} pairings on executor {0} that are open, or were until an hour ago; use one of them again"
    )]
    Yours(String),
    /// All have.
    #[error(
        "{OF_EXECUTOR} pairings stand on executor {0} already; each counts until an hour past its time, while somebody sits \
         there by it, or until its attempt ends: try again when some of them have gone"
    )]
    Full(String),
}

/// Why no pairing was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such task any more.
    #[error("there is no task {0}; `sculpt ls` lists those there are")]
    Unknown(TaskId),
    /// Not now.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// It was opened before, and lets nobody in any more.
    #[error(transparent)]
    Past(#[from] Past),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What of a task and its newest attempt decides whether people can sit there.
#[derive(Clone, Debug, FromRow)]
struct Row {
    number: i64,
    project_id: Option<Uuid>,
    over: bool,
    attempt_id: Option<Uuid>,
    state: Option<String>,
    fenced: bool,
    parked: bool,
    terminal: bool,
    connected: bool,
    executor_id: Option<Uuid>,
    executor: Option<String>,
    ssh_address: Option<String>,
}

/// An agent that people can sit beside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    attempt: AttemptId,
    executor: ExecutorId,
    /// Its name.
    name: String,
    address: String,
    /// What there is to be done there.
    rights: Rights,
}

const SELECT: &str = "SELECT t.number, t.project_id, t.ended_at IS NOT NULL AS over, a.id AS attempt_id, \
     a.state::text AS state, a.fenced_at IS NOT NULL AS fenced, a.turn IS NOT DISTINCT FROM 'parked' AS parked, COALESCE(a.tmux_socket, '') <> '' AS terminal, \
     a.liveness IS NOT DISTINCT FROM 'connected' AS connected, a.executor_id, e.name AS executor, e.ssh_address \
     FROM tasks t LEFT JOIN attempts a ON a.id = t.attempt_id LEFT JOIN executors e ON e.id = a.executor_id \
     WHERE t.id = $1";

impl Store {
    /// Lets somebody sit beside an agent. A request that was done before is answered with what it opened, while that stands.
    pub async fn open_pairing(&self, request: Request, opening: Opening) -> Result<Opened, OpenError> {
        self.write(move |conn| {
            Box::pin(async move {
                let caller = opening.by.sees().caller();
                bearers::lock_rights_shared(conn, caller).await?;
                let id = PairingId::fresh();
                match take_request(conn, &request, id.0).await? {
                    Taken::Fresh => open(conn, id, &opening).await,
                    Taken::Done(before) => again(conn, caller, &request, PairingId(before)).await,
                }
            })
        })
        .await
    }
}

async fn open(conn: &mut Connection, id: PairingId, opening: &Opening) -> Result<Opened, OpenError> {
    let Opening { by, life, key } = opening;
    let (caller, task) = (by.sees().caller(), by.sees().task());
    let row: Option<Row> =
        sqlx::query_as(SELECT).bind(task.0).fetch_optional(&mut *conn).await.map_err(StoreError::from)?;
    let row = row.ok_or(OpenError::Unknown(task))?;
    let place = row.place(by.rights())??;
    room(conn, &row, &place, caller).await?;
    insert(conn, id, &place, caller, *life).await?;
    let details = json!({
        "pairing": id, "attempt": place.attempt, "rights": names(place.rights), "seconds": life.as_secs(), "key": key,
    });
    audit::append(conn, &caller.by(), act("pairing.open", row.number, row.project_id, details)).await?;
    let (executor, address) = (place.executor, place.address);
    Ok(Opened { pairing: one(conn, id).await?, remaining: *life, executor, address })
}

/// What `request` opened before. Nobody is certified for what was opened with another token, also of their own: it may let them
/// do more.
async fn again(conn: &mut Connection, caller: &Caller, request: &Request, id: PairingId) -> Result<Opened, OpenError> {
    let found = placed(conn, &caller.sees(), id).await?.filter(|placed| placed.is_of(caller));
    let found = found.ok_or(RequestError::Reused(request.id))?;
    found.stands()?;
    let sql = "SELECT COALESCE(e.ssh_address, ''), GREATEST(EXTRACT(EPOCH FROM p.expires_at - now()), 0)::float8 \
               FROM pairings p, executors e WHERE p.id = $1 AND e.id = $2";
    let (address, remaining): (String, f64) = sqlx::query_as(sql)
        .bind(id.0)
        .bind(found.executor().0)
        .fetch_one(&mut *conn)
        .await
        .map_err(StoreError::from)?;
    let remaining = Duration::try_from_secs_f64(remaining).unwrap_or_default();
    Ok(Opened { pairing: one(conn, id).await?, remaining, executor: found.executor(), address })
}

impl Row {
    /// Where somebody sits who may do `rights`, and what of that there is to be done.
    fn place(&self, rights: Rights) -> Result<Result<Place, NotNow>, StoreError> {
        let number = self.number;
        let Some(state) = self.state.as_deref() else {
            return Ok(Err(if self.over { NotNow::Over(number) } else { NotNow::NotStarted(number) }));
        };
        let executor = columns::present(self.executor.clone(), "executors.name")?;
        Ok(match state {
            _ if self.fenced => Err(NotNow::Over(number)),
            "offered" | "accepted" | "preparing" => Err(NotNow::NotStarted(number)),
            "finalizing" | "ended" => Err(NotNow::Over(number)),
            "running" if self.parked => Err(NotNow::Parked(number)),
            "running" if !self.connected => Err(NotNow::Unreachable { task: number, executor }),
            "running" => match (&self.ssh_address, self.there(rights)) {
                (None, _) => Err(NotNow::NoSsh { task: number, executor }),
                (Some(_), Rights::NONE) => Err(NotNow::NoTerminal(number)),
                (Some(address), rights) => Ok(Place {
                    attempt: AttemptId(columns::present(self.attempt_id, "attempts.id")?),
                    executor: ExecutorId(columns::present(self.executor_id, "attempts.executor_id")?),
                    name: executor,
                    address: address.clone(),
                    rights,
                }),
            },
            other => return Err(columns::unreadable("attempts.state", other)),
        })
    }

    /// Without a terminal there is nothing to look at, and nothing to type into.
    fn there(&self, rights: Rights) -> Rights {
        let needs_terminal = |right| matches!(right, Right::Observe | Right::Drive);
        rights.iter().filter(|right| self.terminal || !needs_terminal(*right)).collect()
    }
}

/// Refuses who has too many. Those who open one on the same executor do so one after the other: an executor is told of all of
/// them in one message.
async fn room(conn: &mut Connection, row: &Row, place: &Place, caller: &Caller) -> Result<(), OpenError> {
    let sql = "SELECT pg_advisory_xact_lock(hashtext('sculpt pairings ' || $1::text))";
    sqlx::query(sql).bind(place.executor.0).execute(&mut *conn).await.map_err(StoreError::from)?;
    let standing = standing_rows();
    let sql = format!(
        "SELECT count(*) FILTER (WHERE p.user_id = $2 AND p.attempt_id = $3), count(*) FILTER (WHERE p.user_id = $2), \
         count(*) FROM {standing} WHERE p.executor_id = $1"
    );
    let (here, own, all): (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(place.executor.0)
        .bind(caller.user().0)
        .bind(place.attempt.0)
        .fetch_one(conn)
        .await
        .map_err(StoreError::from)?;
    if here >= OF_ONE {
        return Err(NotNow::TooMany(row.number).into());
    }
    if own >= OF_PERSON {
        return Err(NotNow::Yours(place.name.clone()).into());
    }
    if all >= OF_EXECUTOR {
        return Err(NotNow::Full(place.name.clone()).into());
    }
    Ok(())
}

async fn insert(
    conn: &mut Connection,
    id: PairingId,
    place: &Place,
    caller: &Caller,
    life: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pairings (id, attempt_id, user_id, token_id, rights, expires_at) \
         VALUES ($1, $2, $3, $4, $5::pair_right[], now() + make_interval(secs => $6))",
    )
    .bind(id.0)
    .bind(place.attempt.0)
    .bind(caller.user().0)
    .bind(caller.token().0)
    .bind(names(place.rights))
    .bind(life.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Row {
        Row {
            number: 17,
            project_id: None,
            over: false,
            attempt_id: Some(Uuid::nil()),
            state: Some("running".to_owned()),
            fenced: false,
            parked: false,
            terminal: true,
            connected: true,
            executor_id: Some(Uuid::nil()),
            executor: Some("one".to_owned()),
            ssh_address: Some(String::new()),
        }
    }

    fn queued() -> Row {
        Row { attempt_id: None, state: None, executor_id: None, executor: None, ssh_address: None, ..running() }
    }

    fn state(state: &str) -> Row {
        Row { state: Some(state.to_owned()), ..running() }
    }

    #[test]
    fn where_people_can_sit_and_what_there_is_to_be_done() {
        let (task, executor) = (17, "one".to_owned());
        let (all, terminal, rest) = ("observe,drive,shell,forward", "observe,drive", "shell,forward");
        for (row, asked, said) in [
            (running(), all, Ok(all)),
            (running(), "observe", Ok("observe")),
            (queued(), all, Err(NotNow::NotStarted(17))),
            (Row { over: true, ..queued() }, all, Err(NotNow::Over(17))),
            (state("offered"), all, Err(NotNow::NotStarted(17))),
            (state("accepted"), all, Err(NotNow::NotStarted(17))),
            (state("preparing"), all, Err(NotNow::NotStarted(17))),
            (state("finalizing"), all, Err(NotNow::Over(17))),
            (state("ended"), all, Err(NotNow::Over(17))),
            (Row { fenced: true, ..running() }, all, Err(NotNow::Over(17))),
            (Row { fenced: true, ..state("preparing") }, all, Err(NotNow::Over(17))),
            (Row { parked: true, connected: false, ..running() }, all, Err(NotNow::Parked(17))),
            (Row { connected: false, ..running() }, all, Err(NotNow::Unreachable { task, executor: executor.clone() })),
            (Row { ssh_address: None, ..running() }, all, Err(NotNow::NoSsh { task, executor })),
            (Row { terminal: false, ..running() }, all, Ok(rest)),
            (Row { terminal: false, ..running() }, "observe,shell", Ok("shell")),
            (Row { terminal: false, ..running() }, terminal, Err(NotNow::NoTerminal(17))),
        ] {
            let found = row.place(asked.parse().expect("rights")).expect("it is readable");
            let said = said.map(|rights: &str| rights.parse::<Rights>().expect("rights"));
            assert_eq!(found.map(|place| place.rights), said, "{row:?} for {asked}");
        }
        let unknown = state("dreaming").place(Rights::NONE).expect_err("it is of another version");
        assert!(matches!(unknown, StoreError::Unreadable { what: "attempts.state", .. }));
    }
}

//! Who is let sit beside which agent, by whom it was opened and taken back.

mod guests;
mod open;

use sculpt_pairing::{Right, Rights};
use sculpt_proto::id::{AttemptId, ExecutorId, PairingId, UserId};
use serde_json::{Value, json};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

pub use self::{
    guests::Guest,
    open::{NotNow, OF_EXECUTOR, OpenError, Opened, Opening},
};
use super::{
    Connection, Store, StoreError, Time,
    attempts::LIVES,
    audit::{self, Act},
    bearers, columns,
    requests::{Request, RequestError, Taken, take_request},
    seats::{self, Seat},
    tasks::Located,
    visible,
};
use crate::access::{Caller, Closing, On, Read, Sees, Unknown};

/// What lets one person sit beside one attempt.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Its id.
    pub id: PairingId,
    /// Beside which.
    pub attempt: AttemptId,
    /// Whom, by name.
    pub user: String,
    /// What they may do there.
    pub rights: Rights,
    /// Since when.
    pub created_at: Time,
    /// Until when sessions can be begun with it.
    pub expires_at: Time,
    /// When it was taken back.
    pub closed_at: Option<Time>,
    /// Where they sit now.
    pub seats: Vec<Seat>,
}

/// A pairing that was looked up by who sees its task, with what decides who may use it and take it back.
#[derive(Clone, Debug, FromRow)]
pub struct Placed {
    #[sqlx(flatten)]
    task: Located,
    owner: Uuid,
    token_id: Uuid,
    executor_id: Uuid,
    /// It was taken back.
    closed: bool,
    /// No session can be begun with it any more.
    late: bool,
    /// Its attempt is.
    over: bool,
}

/// Why a pairing lets nobody in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Past {
    /// Somebody took it back.
    #[error("the pairing was taken back; open another one, if you may")]
    Closed,
    /// The attempt has ended.
    #[error("the attempt that the pairing is for is over")]
    Over,
    /// Its time is over.
    #[error("the time to begin sessions with this pairing is over; open another one")]
    Late,
}

/// Why a pairing was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Placed {
    /// Beside which task.
    pub fn task(&self) -> &Located {
        &self.task
    }

    /// Whose it is.
    pub fn owner(&self) -> UserId {
        UserId(self.owner)
    }

    /// Whether it was opened with what this caller shows.
    fn is_of(&self, caller: &Caller) -> bool {
        (self.owner, self.token_id) == (caller.user().0, caller.token().0)
    }

    /// Who runs the attempt.
    pub fn executor(&self) -> ExecutorId {
        ExecutorId(self.executor_id)
    }

    /// Whether sessions can be begun with it, as far as its own time and its attempt's go.
    pub fn stands(&self) -> Result<(), Past> {
        match (self.closed, self.over, self.late) {
            (true, _, _) => Err(Past::Closed),
            (false, true, _) => Err(Past::Over),
            (false, false, true) => Err(Past::Late),
            (false, false, false) => Ok(()),
        }
    }
}

impl Store {
    /// The pairings beside a task with which sessions can be begun, or are open; oldest first. Open they are also where people
    /// have not been cut yet who may sit there no more: their executor may be out of reach.
    pub async fn pairings(&self, of: &On<Read>) -> Result<Vec<Pairing>, StoreError> {
        let mut conn = self.read().await?;
        let taken = seats::beside(&mut conn, of.task()).await?;
        let standing = guests::standing(&mut conn, "task_id", vec![of.task().0]).await?;
        let mut wanted: Vec<Uuid> = taken.iter().map(|seat| seat.pairing_id).collect();
        wanted.extend(standing.iter().filter(|row| !row.over && !row.remaining.is_zero()).map(|row| row.id.0));
        these(&mut conn, &wanted, taken).await
    }

    /// The pairing of this id, if it is beside a task that is seen.
    pub async fn pairing(&self, sees: &Sees, id: PairingId) -> Result<Option<Placed>, StoreError> {
        placed(&mut *self.read().await?, sees, id).await
    }

    /// Takes a pairing back; to be taken back already is fine.
    pub async fn close_pairing(
        &self,
        closing: Closing,
        request: Request,
        id: PairingId,
    ) -> Result<Pairing, CloseError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, closing.caller()).await?;
                if let Taken::Fresh = take_request(conn, &request, id.0).await? {
                    close(conn, &closing, id).await?;
                }
                Ok(one(conn, id).await?)
            })
        })
        .await
    }
}

async fn close(conn: &mut Connection, closing: &Closing, id: PairingId) -> Result<(), StoreError> {
    let by = closing.caller().by();
    // The clock of the database may have gone back since it was opened.
    let sql = "UPDATE pairings p SET closed_at = GREATEST(now(), p.created_at), closed_by = $2 FROM attempts a, tasks t, users u \
               WHERE p.id = $1 AND p.closed_at IS NULL AND a.id = p.attempt_id AND t.id = a.task_id AND u.id = p.user_id \
               RETURNING t.number, t.project_id, u.name";
    let closed: Option<(i64, Option<Uuid>, String)> =
        sqlx::query_as(sql).bind(id.0).bind(by.actor()).fetch_optional(&mut *conn).await?;
    let Some((number, project, user)) = closed else { return Ok(()) };
    let act = act("pairing.close", number, project, json!({ "pairing": id, "user": user }));
    audit::append(conn, &by, act).await
}

/// Something that is done to a pairing beside a task of this number.
fn act(action: &'static str, task: i64, project: Option<Uuid>, details: Value) -> Act {
    Act::new(action, format!("task:{task}")).within(project.map(Into::into)).with(details)
}

async fn placed(conn: &mut Connection, sees: &Sees, id: PairingId) -> Result<Option<Placed>, StoreError> {
    let mut query = QueryBuilder::new(format!(
        "SELECT t.id, t.project_id, pr.name AS project, t.created_by, 1::bigint AS count, p.user_id AS owner, \
         p.token_id, a.executor_id, p.closed_at IS NOT NULL AS closed, p.expires_at <= now() AS late, NOT ({LIVES}) AS over \
         FROM pairings p JOIN attempts a ON a.id = p.attempt_id JOIN tasks t ON t.id = a.task_id \
         LEFT JOIN projects pr ON pr.id = t.project_id WHERE p.id = "
    ));
    query.push_bind(id.0).push(" AND ");
    visible::tasks(&mut query, sees);
    Ok(query.build_query_as().fetch_optional(conn).await?)
}

async fn one(conn: &mut Connection, id: PairingId) -> Result<Pairing, StoreError> {
    let taken = seats::by(conn, id).await?;
    these(conn, &[id.0], taken).await?.pop().ok_or(StoreError::Sqlx(sqlx::Error::RowNotFound))
}

/// Those of these ids, each with its part of `taken`; oldest first.
async fn these(conn: &mut Connection, ids: &[Uuid], mut taken: Vec<Seat>) -> Result<Vec<Pairing>, StoreError> {
    let sql = "SELECT p.id, p.attempt_id, u.name, p.rights::text[], p.created_at, p.expires_at, p.closed_at \
               FROM pairings p JOIN users u ON u.id = p.user_id WHERE p.id = ANY ($1) ORDER BY p.created_at, p.id";
    type Row = (Uuid, Uuid, String, Vec<String>, Time, Time, Option<Time>);
    let rows: Vec<Row> = sqlx::query_as(sql).bind(ids).fetch_all(conn).await?;
    let read = |(id, attempt, user, named, created_at, expires_at, closed_at): Row| {
        let (id, attempt) = (PairingId(id), AttemptId(attempt));
        let seats = taken.extract_if(.., |seat| seat.pairing_id == id.0).collect();
        Pairing { id, attempt, user, rights: rights(id, &named), created_at, expires_at, closed_at, seats }
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Rights as their column has them. One that another version wrote lets nobody do anything, and keeps nobody from hearing of
/// all others.
fn rights(pairing: PairingId, named: &[String]) -> Rights {
    let right = |name: &String| name.parse::<Right>().map_err(|_| columns::unreadable("pairings.rights", name));
    named.iter().map(right).collect::<Result<_, _>>().unwrap_or_else(|error| {
        tracing::warn!(%pairing, error = &error as &dyn std::error::Error, "a pairing lets nobody in");
        Rights::NONE
    })
}

/// As their column has them.
fn names(rights: Rights) -> Vec<&'static str> {
    rights.iter().map(Right::as_str).collect()
}

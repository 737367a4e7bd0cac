//! Who sits beside an attempt, as its executor tells it of those whom a pairing has let in.

use sculpt_pairing::{Right, Role};
use sculpt_proto::id::{AttemptId, PairingId, SeatId, TaskId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, StoreError, Time, attempts::LIVES};

/// Somebody sits down.
#[derive(Clone, Copy, Debug)]
pub struct NewSeat {
    /// Names it from now on.
    pub id: SeatId,
    /// Which lets them.
    pub pairing: PairingId,
    /// Beside which.
    pub attempt: AttemptId,
    /// As what.
    pub role: Role,
    /// Since when.
    pub began_at: Time,
}

/// Who sits, or sat, in a seat.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Sitter {
    /// Name of the user.
    pub user_name: String,
    /// As what.
    pub role: String,
}

/// A seat that somebody sits in.
#[derive(Clone, Debug, FromRow)]
pub struct Seat {
    /// Its id.
    pub session_id: Uuid,
    /// Which lets them.
    pub pairing_id: Uuid,
    /// Beside which.
    pub attempt_id: Uuid,
    /// Name of the user.
    pub user_name: String,
    /// As what.
    pub role: String,
    /// Since when.
    pub began_at: Time,
    /// When they last typed into the terminal.
    pub typed_at: Option<Time>,
}

/// Whether the project of `attempt` has recorded now what people type there.
pub async fn recorded(conn: &mut Connection, attempt: AttemptId) -> Result<bool, StoreError> {
    let sql = "SELECT COALESCE(p.record_typing, false) FROM attempts a JOIN tasks t ON t.id = a.task_id \
               LEFT JOIN projects p ON p.id = t.project_id WHERE a.id = $1";
    Ok(sqlx::query_scalar(sql).bind(attempt.0).fetch_one(conn).await?)
}

/// Takes a seat. None: it was taken before, or the pairing never let anybody sit there as that. One that was taken back
/// counts: its executor may not have heard of it.
pub async fn take(conn: &mut Connection, seat: &NewSeat) -> Result<Option<Sitter>, StoreError> {
    let sitter = sqlx::query_as(
        "INSERT INTO seats (session_id, pairing_id, attempt_id, user_name, role, began_at) \
         SELECT $1, p.id, p.attempt_id, u.name, $4::seat_role, GREATEST($5, p.created_at) \
         FROM pairings p JOIN users u ON u.id = p.user_id \
         WHERE p.id = $2 AND p.attempt_id = $3 AND $6::pair_right = ANY (p.rights) \
         ON CONFLICT (session_id) DO NOTHING RETURNING user_name, role::text",
    );
    let bound = sitter.bind(seat.id.0).bind(seat.pairing.0).bind(seat.attempt.0);
    let bound = bound.bind(seat.role.as_str()).bind(seat.began_at).bind(needs(seat.role).as_str());
    Ok(bound.fetch_optional(conn).await?)
}

/// What a pairing must let somebody do who sits there as that.
fn needs(role: Role) -> Right {
    match role {
        Role::Observer => Right::Observe,
        Role::Driver => Right::Drive,
        Role::Shell | Role::Command | Role::Files => Right::Shell,
        Role::Ports => Right::Forward,
    }
}

/// Something was typed there until `at`. None: nobody sits there who may type.
pub async fn typed(
    conn: &mut Connection,
    seat: SeatId,
    attempt: AttemptId,
    at: Time,
) -> Result<Option<Sitter>, StoreError> {
    let sitter = sqlx::query_as(
        "UPDATE seats SET typed_at = GREATEST($3, began_at) \
         WHERE session_id = $1 AND attempt_id = $2 AND role = 'driver' AND ended_at IS NULL RETURNING user_name, role::text",
    );
    Ok(sitter.bind(seat.0).bind(attempt.0).bind(at).fetch_optional(conn).await?)
}

/// Leaves it at `at`; `why` is empty when that was the person's wish. None: nobody sits there.
pub async fn leave(
    conn: &mut Connection,
    seat: SeatId,
    attempt: AttemptId,
    at: Time,
    why: &str,
) -> Result<Option<Sitter>, StoreError> {
    let sitter = sqlx::query_as(
        "UPDATE seats SET ended_at = GREATEST($3, began_at), why = $4 WHERE session_id = $1 AND attempt_id = $2 AND ended_at IS NULL \
         RETURNING user_name, role::text",
    );
    Ok(sitter.bind(seat.0).bind(attempt.0).bind(at).bind(why).fetch_optional(conn).await?)
}

/// Who sits beside the attempts of `task`, in the order in which they came. Nobody sits beside one that is over, whatever was
/// told of it last.
pub async fn beside(conn: &mut Connection, task: TaskId) -> Result<Vec<Seat>, StoreError> {
    taken(conn, "a.task_id", task.0).await
}

/// The same of those whom `pairing` lets.
pub async fn by(conn: &mut Connection, pairing: PairingId) -> Result<Vec<Seat>, StoreError> {
    taken(conn, "s.pairing_id", pairing.0).await
}

async fn taken(conn: &mut Connection, column: &'static str, id: Uuid) -> Result<Vec<Seat>, StoreError> {
    let sql = format!(
        "SELECT s.session_id, s.pairing_id, s.attempt_id, s.user_name, s.role::text, s.began_at, s.typed_at \
         FROM seats s JOIN attempts a ON a.id = s.attempt_id WHERE s.ended_at IS NULL AND {LIVES} AND {column} = $1 \
         ORDER BY s.began_at, s.session_id"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_all(conn).await?)
}

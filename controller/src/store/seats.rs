//! Who sits beside an attempt.

use sculpt_pairing::Role;
use sculpt_proto::id::{AttemptId, PairingId, SeatId};

use super::{Connection, StoreError, Time};

/// Somebody sits down.
#[derive(Clone, Debug)]
pub struct NewSeat<'a> {
    /// Names it from now on.
    pub id: SeatId,
    /// Which lets them.
    pub pairing: PairingId,
    /// Beside which.
    pub attempt: AttemptId,
    /// Name of the user.
    pub user: &'a str,
    /// As what.
    pub role: Role,
    /// Since when.
    pub began_at: Time,
}

/// Who sits, or sat, in a seat.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Sitter {
    /// Name of the user.
    pub user_name: String,
    /// As what.
    pub role: String,
}

/// Takes a seat. False: it was taken before.
pub async fn take(conn: &mut Connection, seat: &NewSeat<'_>) -> Result<bool, StoreError> {
    let taken = sqlx::query(
        "INSERT INTO seats (session_id, pairing_id, attempt_id, user_name, role, began_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (session_id) DO NOTHING",
    )
    .bind(seat.id.0)
    .bind(seat.pairing.0)
    .bind(seat.attempt.0)
    .bind(seat.user)
    .bind(seat.role.as_str())
    .bind(seat.began_at)
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Something was typed there until `at`. None: nobody sits there.
pub async fn typed(
    conn: &mut Connection,
    seat: SeatId,
    attempt: AttemptId,
    at: Time,
) -> Result<Option<Sitter>, StoreError> {
    let sitter = sqlx::query_as(
        "UPDATE seats SET typed_at = $3 WHERE session_id = $1 AND attempt_id = $2 AND ended_at IS NULL \
         RETURNING user_name, role",
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
        "UPDATE seats SET ended_at = $3, why = $4 WHERE session_id = $1 AND attempt_id = $2 AND ended_at IS NULL \
         RETURNING user_name, role",
    );
    Ok(sitter.bind(seat.0).bind(attempt.0).bind(at).bind(why).fetch_optional(conn).await?)
}

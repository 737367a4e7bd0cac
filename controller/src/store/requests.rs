//! Mutations that were done, by the caller's request id: the same wish twice is one change.

use sculpt_proto::id::RequestId;
use uuid::Uuid;

use super::{Connection, Store, StoreError};

/// A wished change: what is compared when its id comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's id.
    pub id: RequestId,
    /// What was called.
    pub method: &'static str,
    /// SHA-256 of everything else that was said, in a canonical form.
    pub digest: [u8; 32],
}

/// Whether there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is new; it will be done with this transaction.
    Fresh,
    /// It was done before, to this subject.
    Done(Uuid),
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Its id was used for something else.
    #[error("request_id {0} was used before for a request with other content; use a fresh id for each thing wanted")]
    Reused(RequestId),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Notes that `request` is done to `subject` by this transaction, unless it was done before. Of two at once the second
/// waits for the first.
pub async fn take_request(conn: &mut Connection, request: &Request, subject: Uuid) -> Result<Taken, RequestError> {
    let sql = "INSERT INTO requests (id, method, digest, subject) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING";
    let inserted = sqlx::query(sql)
        .bind(request.id.0)
        .bind(request.method)
        .bind(&request.digest[..])
        .bind(subject)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::from)?;
    if inserted.rows_affected() == 1 {
        return Ok(Taken::Fresh);
    }
    repeated(conn, request).await?.map(Taken::Done).ok_or(RequestError::Reused(request.id))
}

impl Store {
    /// What `request` was done to, if it was done before.
    pub async fn repeated(&self, request: &Request) -> Result<Option<Uuid>, RequestError> {
        let mut conn = self.read().await?;
        repeated(&mut conn, request).await
    }
}

/// What `request` was done to, if it was done before.
pub(super) async fn repeated(conn: &mut Connection, request: &Request) -> Result<Option<Uuid>, RequestError> {
    let found: Option<(String, Vec<u8>, Uuid)> =
        sqlx::query_as("SELECT method, digest, subject FROM requests WHERE id = $1")
            .bind(request.id.0)
            .fetch_optional(conn)
            .await
            .map_err(StoreError::from)?;
    match found {
        Some((method, digest, done)) if method == request.method && digest == request.digest => Ok(Some(done)),
        Some(_) => Err(RequestError::Reused(request.id)),
        None => Ok(None),
    }
}

//! All SQL.
//!
//! Lock order in every transaction: the pool's row, then its join tokens' rows, then the executor's row, then a wish for an
//! adoption, then the task's row, then its attempts' rows, then the project's row with what stands below it (refs, packs),
//! then logs and the journal. Rows of one kind in the order of their ids. Before all of them, what changes who may do what
//! takes its lock ([`bearers`]). The row of a request, and the advisory locks that make names and numbers one at a time, are
//! taken where they are met: who waits for one of them holds nothing that its holder may still want. The record of acts is
//! only added to, and makes nobody wait.

pub mod adopt;
mod attempt_state;
pub mod attempts;
pub mod audit;
pub mod bearers;
pub mod certificates;
pub mod claims;
pub mod classes;
mod columns;
mod connect;
mod event_details;
pub mod events;
pub mod executors;
mod gaps;
pub mod history;
pub mod joins;
pub mod locks;
pub mod logs;
pub mod milestones;
pub mod notify;
pub mod packs;
pub mod pairings;
mod partitions;
pub mod pools;
mod prefix;
pub mod projects;
pub mod refs;
pub mod requests;
pub mod retention;
pub mod roles;
mod schema;
mod schema_rights;
pub mod seats;
pub mod sessions;
pub mod silence;
pub mod task_state;
pub mod tasks;
pub mod tasks_read;
pub mod tokens;
pub mod users;
mod visible;

use futures_util::future::BoxFuture;
use sqlx::{Acquire as _, Postgres, pool::PoolConnection, postgres::PgPoolOptions};

pub use self::{
    connect::{Database, OLDEST_SERVER},
    schema::{SchemaError, migrate},
    schema_rights::let_serve,
};

/// A connection that a transaction runs on.
pub type Connection = sqlx::PgConnection;

/// The time by the database's clock.
pub type Time = chrono::DateTime<chrono::Utc>;

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::PgPool,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached now; the same call may succeed later.
    #[error("the database is out of reach")]
    Unavailable(#[source] sqlx::Error),
    /// Its disk is full; the same call succeeds once there is room.
    #[error("the disk of the database is full")]
    Full(#[source] sqlx::Error),
    /// A text holds what no text in the database can.
    #[error("a text holds a NUL byte, which no text here may")]
    Nul(#[source] sqlx::Error),
    /// A constraint forbids it.
    #[error("the constraint {constraint} forbids it")]
    Conflict {
        /// The constraint's or the unique index's name.
        constraint: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// A row holds what no build of this program writes.
    #[error("{what} holds {value:?}, which this version does not know")]
    Unreadable {
        /// Table and column.
        what: &'static str,
        /// What stands there.
        value: String,
    },
    /// Everything else: a fault of this program.
    #[error("the database refused a statement")]
    Sqlx(#[source] sqlx::Error),
    /// The transaction's task was ended from outside.
    #[error("the transaction was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(said) => {
                let code = said.code().unwrap_or_default();
                match code.as_ref() {
                    "53100" => return Self::Full(error),
                    "22021" => return Self::Nul(error),
                    _ => {}
                }
                // 08: connection; 57P01..57P03: shut down, crashed, starting; 53300: too many; 25006: a standby, until it is
                // promoted; 40001, 40P01, 55P03, 57014: try again.
                let away = code.starts_with("08")
                    || ["57P01", "57P02", "57P03", "53300", "25006", "40001", "40P01", "55P03", "57014", "25P03"]
                        .contains(&code.as_ref());
                if away {
                    return Self::Unavailable(error);
                }
                match said.constraint().map(str::to_owned) {
                    Some(constraint) => Self::Conflict { constraint, source: error },
                    None => Self::Sqlx(error),
                }
            }
            _ => Self::Sqlx(error),
        }
    }
}

impl Store {
    /// A store over `database` with at most so many connections; connects when it is first used.
    pub fn new(database: &Database, connections: u32) -> Self {
        let options = database.options().options([
            ("idle_in_transaction_session_timeout", "30s"),
            ("statement_timeout", "60s"),
            ("lock_timeout", "10s"),
            ("timezone", "UTC"),
            // The ROLLBACK below warns when there is nothing to roll back, which is nearly always.
            ("client_min_messages", "error"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            // Less than the 5 s in which a caller is to learn that the database is away.
            .acquire_timeout(std::time::Duration::from_secs(4))
            // A dropped begin() may hand back a connection with an open transaction; outside one this is a warning.
            .after_release(|conn, _| {
                Box::pin(async move {
                    sqlx::raw_sql("ROLLBACK").execute(conn).await?;
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Runs `work` in a transaction of its own task and commits, so that a caller that goes away cannot leave it half-way.
    /// On an error nothing has happened.
    pub async fn write<T, E>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let pool = self.pool.clone();
        let transaction = async move {
            let mut conn = pool.acquire().await.map_err(StoreError::from)?;
            let mut transaction = conn.begin().await.map_err(StoreError::from)?;
            let done = work(&mut transaction).await?;
            transaction.commit().await.map_err(StoreError::from)?;
            Ok(done)
        };
        tokio::spawn(transaction).await.map_err(StoreError::Interrupted)?
    }

    /// A connection for reading, each statement by itself.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Closes all connections; calls that wait for one fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Runs `work` inside the caller's transaction so that, on its error, what it did is undone and the rest of the transaction
/// goes on.
pub async fn savepoint<T, E>(
    conn: &mut Connection,
    work: impl for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, E>> + Send,
) -> Result<T, E>
where
    E: From<StoreError>,
{
    let mut part = conn.begin().await.map_err(StoreError::from)?;
    match work(&mut part).await {
        Ok(done) => {
            part.commit().await.map_err(StoreError::from)?;
            Ok(done)
        }
        Err(error) => {
            part.rollback().await.map_err(StoreError::from)?;
            Err(error)
        }
    }
}

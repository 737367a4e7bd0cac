//! Ids that were drawn before their rows are there, for readers that go by id.
//!
//! Ids are drawn before a transaction commits, so a reader sees 7 before 6 is there, or 6 never comes because its
//! transaction was rolled back. A reader stops at such a gap until it knows. Who may still fill it holds a lock on the
//! table: every transaction takes it before it draws an id and keeps it to its end, and it is visible before it lets go.
//! So when all holders that were seen *after* the gap are gone, everything up to the last id that was drawn *before* they
//! were seen is settled: what is missing then is missing for good. Transactions that never touched the table hold no
//! such lock and delay nobody.

use std::time::Duration;

use sqlx::FromRow;

use super::{Store, StoreError};

/// How often the writers in a gap are looked for: from the first to the last.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// A table that is read by id.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    /// The journal.
    Events,
    /// The record of acts.
    Audit,
}

/// Who may still write ids up to `drawn`, in the order in which this was looked at: first the id, then the writers.
#[derive(FromRow)]
pub(super) struct Writers {
    /// The last id that was drawn.
    pub(super) drawn: i64,
    /// Their transactions.
    pub(super) holders: Vec<String>,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Audit => "audit",
        }
    }

    // The condition on the sequence makes the locks be read after it, once per its only row.
    fn sql(self) -> String {
        let table = self.name();
        format!(
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS drawn, \
             ARRAY(SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted \
               AND relation = '{table}'::regclass AND mode = 'RowExclusiveLock' \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND sequence.last_value IS NOT NULL) AS holders \
             FROM {table}_id_seq AS sequence"
        )
    }
}

impl Store {
    /// Who may still write into `table`.
    pub(super) async fn writers(&self, table: Table) -> Result<Writers, StoreError> {
        let mut conn = self.read().await?;
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(table.sql())).fetch_one(&mut *conn).await?)
    }

    /// Waits until none of these transactions is left.
    pub(super) async fn gone(&self, table: Table, holders: &[String]) -> Result<(), StoreError> {
        let mut pause = LOOK_FIRST;
        let mut left = holders.to_vec();
        while !left.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST);
            let now = self.writers(table).await?.holders;
            left.retain(|holder| now.contains(holder));
        }
        Ok(())
    }
}

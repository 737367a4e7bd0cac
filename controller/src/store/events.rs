//! The journal: written with each change, read in the order of its ids without a hole.
//!
//! Ids are drawn before a transaction commits, so a reader sees 7 before 6 is there, or 6 never comes because its
//! transaction was rolled back. A reader stops at such a gap until it knows. Who may still fill it holds a lock on the
//! table: every transaction takes it before it draws an id and keeps it to its end, and it is visible before it lets go.
//! So when all holders that were seen *after* the gap are gone, everything up to the last id that was drawn *before* they
//! were seen is settled: what is missing then is missing for good. Transactions that never touched the journal hold no
//! such lock and delay nobody.

use std::time::Duration;

use sculpt_proto::id::{ClusterId, TaskId};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, Store, StoreError, Time};

/// Most entries that are read at once.
const BATCH: usize = 500;
const BATCH_ROWS: i64 = BATCH as i64;

/// How long a settled place is waited for, and how far it is looked back for gaps when that was in vain.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_BACK: i64 = 10_000;

/// How often the writers in a gap are looked for: from the first to the last.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// A place in the journal: everything up to this id has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place(pub i64);

/// What a new entry says beyond its kind.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The task that it is about, its number, its revision and shown state afterwards.
    pub task: Option<(TaskId, u64, u64, &'static str)>,
    /// Who caused it; empty for the system.
    pub actor: String,
    /// More, as an object.
    pub data: Value,
}

/// An entry of the journal.
#[derive(Clone, Debug, FromRow)]
pub struct Event {
    /// Its id.
    pub id: i64,
    /// When.
    pub at: Time,
    /// What happened.
    pub kind: String,
    /// To which task.
    pub task_id: Option<Uuid>,
    /// Its number.
    pub task_number: Option<i64>,
    /// Number of the attempt.
    pub attempt: Option<i32>,
    /// Name of the executor.
    pub executor: Option<String>,
    /// The task's revision afterwards.
    pub revision: Option<i64>,
    /// The task's shown state afterwards.
    pub shown: Option<String>,
    /// Who caused it; empty for the system.
    pub actor: String,
    /// More, as an object.
    pub data: Value,
}

/// Why the journal could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The reader stayed away too long.
    #[error("the journal no longer reaches back to this cursor; list again and watch from the list's cursor")]
    Expired,
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A reader of the journal.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    /// Only of this task.
    task: Option<TaskId>,
    place: Place,
    /// Gaps up to here are for good.
    settled: Place,
}

/// Who may still write ids up to `drawn`, in the order in which this was looked at: first the id, then the writers.
#[derive(FromRow)]
struct Writers {
    drawn: i64,
    holders: Vec<String>,
    floor: i64,
}

/// Writes an entry. The last statement of its transaction that takes locks.
pub async fn record(conn: &mut Connection, kind: &'static str, entry: &Entry) -> Result<(), StoreError> {
    let (task, number, revision, shown) = match &entry.task {
        Some((task, number, revision, shown)) => (
            Some(task.0),
            Some(i64::try_from(*number).unwrap_or(i64::MAX)),
            Some(i64::try_from(*revision).unwrap_or(i64::MAX)),
            Some(*shown),
        ),
        None => (None, None, None, None),
    };
    let data = if entry.data.is_null() { Value::Object(serde_json::Map::new()) } else { entry.data.clone() };
    sqlx::query(
        "INSERT INTO events (kind, task_id, task_number, revision, shown, actor, data) \
         VALUES ($1, $2, $3, $4, $5::shown_state, $6, $7)",
    )
    .bind(kind)
    .bind(task)
    .bind(number)
    .bind(revision)
    .bind(shown)
    .bind(&entry.actor)
    .bind(data)
    .execute(conn)
    .await?;
    Ok(())
}

impl Store {
    /// This database's history.
    pub async fn cluster(&self) -> Result<ClusterId, StoreError> {
        let mut conn = self.read().await?;
        let id: Uuid = sqlx::query_scalar("SELECT id FROM cluster").fetch_one(&mut *conn).await?;
        Ok(ClusterId(id))
    }

    /// A place up to which nothing will be added any more: a snapshot that is taken afterwards has all of it.
    pub async fn settled(&self) -> Result<Place, StoreError> {
        let writers = self.writers().await?;
        if tokio::time::timeout(PATIENCE, self.gone(&writers.holders)).await.is_ok() {
            return Ok(Place(writers.drawn));
        }
        // Somebody sits on an open entry: the place before the first gap is right as well, only older than need be.
        let mut conn = self.read().await?;
        let sql = "SELECT COALESCE(min(drawn.id) - 1, $1) \
                   FROM generate_series(GREATEST($2, $1 - $3) + 1, $1) AS drawn (id) \
                   WHERE NOT EXISTS (SELECT FROM events WHERE events.id = drawn.id)";
        let place = sqlx::query_scalar(sql)
            .bind(writers.drawn)
            .bind(writers.floor)
            .bind(LOOK_BACK)
            .fetch_one(&mut *conn)
            .await?;
        Ok(Place(place))
    }

    /// A reader of what came after `place`, or from the oldest that is kept; of one task, or of all.
    pub async fn journal(&self, place: Option<Place>, task: Option<TaskId>) -> Result<Reader, JournalError> {
        let mut conn = self.read().await?;
        let floor = sqlx::query_scalar("SELECT journal_floor FROM cluster").fetch_one(&mut *conn).await;
        let floor = Place(floor.map_err(StoreError::from)?);
        let place = match place {
            Some(place) if place < floor => return Err(JournalError::Expired),
            Some(place) => place,
            None => floor,
        };
        Ok(Reader { store: self.clone(), task, place, settled: place })
    }

    async fn writers(&self) -> Result<Writers, StoreError> {
        // The condition on the sequence makes the locks be read after it, once per its only row.
        let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS drawn, \
                   (SELECT journal_floor FROM cluster) AS floor, \
                   ARRAY(SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted \
                       AND relation = 'events'::regclass AND mode = 'RowExclusiveLock' \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                       AND sequence.last_value IS NOT NULL) AS holders \
                   FROM events_id_seq AS sequence";
        let mut conn = self.read().await?;
        Ok(sqlx::query_as(sql).fetch_one(&mut *conn).await?)
    }

    /// Waits until none of these transactions is left.
    async fn gone(&self, holders: &[String]) -> Result<(), StoreError> {
        let mut pause = LOOK_FIRST;
        let mut left = holders.to_vec();
        while !left.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST);
            let now = self.writers().await?.holders;
            left.retain(|holder| now.contains(holder));
        }
        Ok(())
    }
}

impl Reader {
    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The next entries in order; none when everything so far has been read. Waits for writers in a gap for as long as
    /// their transactions are open. Can be dropped and called again.
    pub async fn next(&mut self) -> Result<Vec<Event>, JournalError> {
        if self.task.is_none() {
            let batch = self.batch(i64::MAX).await?;
            let whole = self.unbroken(&batch);
            if batch.is_empty() || whole > 0 {
                return Ok(self.pass(batch, whole));
            }
        }
        let writers = self.store.writers().await?;
        if self.place < Place(writers.floor) {
            return Err(JournalError::Expired);
        }
        self.store.gone(&writers.holders).await?;
        self.settled = self.settled.max(Place(writers.drawn));
        let batch = self.batch(self.settled.0).await?;
        let whole = batch.len();
        let more = whole == BATCH;
        let batch = self.pass(batch, whole);
        if !more {
            self.place = self.place.max(self.settled);
        }
        Ok(batch)
    }

    /// How many of `batch` follow on what was read without a gap that may be filled.
    fn unbroken(&self, batch: &[Event]) -> usize {
        let mut last = self.place.0;
        let follows = |event: &&Event| {
            let fits = event.id == last + 1 || event.id <= self.settled.0;
            last = event.id;
            fits
        };
        batch.iter().take_while(follows).count()
    }

    fn pass(&mut self, mut batch: Vec<Event>, count: usize) -> Vec<Event> {
        batch.truncate(count);
        if let Some(last) = batch.last() {
            self.place = Place(last.id);
        }
        batch
    }

    async fn batch(&self, upto: i64) -> Result<Vec<Event>, StoreError> {
        let mut conn = self.store.read().await?;
        let mut sql = String::from(
            "SELECT events.id, at, kind, task_id, task_number, attempt, executors.name AS executor, revision, \
             shown::text AS shown, actor, data FROM events LEFT JOIN executors ON executors.id = executor_id \
             WHERE events.id > $1 AND events.id <= $2",
        );
        if self.task.is_some() {
            sql.push_str(" AND task_id = $4");
        }
        sql.push_str(" ORDER BY events.id LIMIT $3");
        let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(self.place.0).bind(upto).bind(BATCH_ROWS);
        if let Some(task) = self.task {
            query = query.bind(task.0);
        }
        Ok(query.fetch_all(&mut *conn).await?)
    }
}

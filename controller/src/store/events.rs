//! The journal: written with each change, read in the order of its ids without a hole.
//!
//! Where an id is missing a reader waits until it is known whether it will come ([`gaps`](super::gaps)).

use std::time::Duration;

use sculpt_proto::id::{ClusterId, ExecutorId, TaskId};
use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Connection, Store, StoreError, Time, columns, gaps::Table, visible};
use crate::access::{On, Read, Sees};

/// Most entries that are read at once.
const BATCH: usize = 500;
const BATCH_ROWS: i64 = BATCH as i64;

/// How long a settled place is waited for, and how far it is looked back for gaps when that was in vain.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_BACK: i64 = 10_000;

/// A place in the journal: everything up to this id has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place(pub i64);

/// What a new entry says beyond its kind.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The task that it is about, its number, its revision and shown state afterwards.
    pub task: Option<(TaskId, u64, u64, &'static str)>,
    /// The number of the attempt that it is about, and who has it.
    pub attempt: Option<(u32, ExecutorId)>,
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

/// Which entries are read.
#[derive(Clone, Debug)]
pub enum Of {
    /// Those of a task.
    Task(On<Read>),
    /// Those of all that the reader sees.
    Seen(Sees),
}

impl Of {
    /// Whether no entry is left out.
    fn is_everything(&self) -> bool {
        match self {
            Self::Task(_) => false,
            Self::Seen(sees) => sees.is_everything(),
        }
    }
}

/// A reader of the journal.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    of: Of,
    place: Place,
    /// Gaps up to here are for good.
    settled: Place,
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
    let (attempt, executor) = entry.attempt.unzip();
    sqlx::query(
        "INSERT INTO events (kind, task_id, task_number, attempt, executor_id, revision, shown, actor, data) \
         VALUES ($1, $2, $3, $4, $5, $6, $7::shown_state, $8, $9)",
    )
    .bind(kind)
    .bind(task)
    .bind(number)
    .bind(attempt.map(columns::number))
    .bind(executor.map(|executor| executor.0))
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
        let writers = self.writers(Table::Events).await?;
        if tokio::time::timeout(PATIENCE, self.gone(Table::Events, &writers.holders)).await.is_ok() {
            return Ok(Place(writers.drawn));
        }
        // Somebody sits on an open entry: the place before the first gap is right as well, only older than need be.
        let floor = self.floor().await?;
        let mut conn = self.read().await?;
        let sql = "SELECT COALESCE(min(drawn.id) - 1, $1) \
                   FROM generate_series(GREATEST($2, $1 - $3) + 1, $1) AS drawn (id) \
                   WHERE NOT EXISTS (SELECT FROM events WHERE events.id = drawn.id)";
        let place =
            sqlx::query_scalar(sql).bind(writers.drawn).bind(floor).bind(LOOK_BACK).fetch_one(&mut *conn).await?;
        Ok(Place(place))
    }

    /// A reader of what came after `place`, or from the oldest that is kept.
    pub async fn journal(&self, place: Option<Place>, of: Of) -> Result<Reader, JournalError> {
        let floor = Place(self.floor().await?);
        let place = match place {
            Some(place) if place < floor => return Err(JournalError::Expired),
            Some(place) => place,
            None => floor,
        };
        Ok(Reader { store: self.clone(), of, place, settled: place })
    }

    async fn floor(&self) -> Result<i64, StoreError> {
        let mut conn = self.read().await?;
        Ok(sqlx::query_scalar("SELECT journal_floor FROM cluster").fetch_one(&mut *conn).await?)
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
        if self.of.is_everything() {
            let batch = self.batch(i64::MAX).await?;
            let whole = self.unbroken(&batch);
            if batch.is_empty() || whole > 0 {
                return Ok(self.pass(batch, whole));
            }
        }
        let writers = self.store.writers(Table::Events).await?;
        if self.place < Place(self.store.floor().await?) {
            return Err(JournalError::Expired);
        }
        self.store.gone(Table::Events, &writers.holders).await?;
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
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT events.id, at, kind, task_id, task_number, attempt, executors.name AS executor, events.revision, \
             events.shown::text AS shown, actor, data FROM events LEFT JOIN executors ON executors.id = executor_id",
        );
        match &self.of {
            Of::Task(task) => {
                query.push(" WHERE task_id = ").push_bind(task.task().0);
            }
            Of::Seen(sees) if sees.is_everything() => {
                query.push(" WHERE true");
            }
            Of::Seen(sees) => {
                // Of a project only its making and its end are told without a task; executors everybody sees.
                query.push(
                    " LEFT JOIN tasks t ON t.id = events.task_id WHERE CASE WHEN events.task_id IS NOT NULL THEN ",
                );
                visible::tasks(&mut query, sees);
                query.push(" WHEN data ? 'project_id' THEN ");
                visible::projects(&mut query, "(data->>'project_id')::uuid", sees);
                query.push(" ELSE kind LIKE 'executor.%' END");
            }
        }
        query.push(" AND events.id > ").push_bind(self.place.0).push(" AND events.id <= ").push_bind(upto);
        query.push(" ORDER BY events.id LIMIT ").push_bind(BATCH_ROWS);
        Ok(query.build_query_as().fetch_all(&mut *conn).await?)
    }
}

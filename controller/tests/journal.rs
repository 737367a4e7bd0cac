//! The journal: nothing is skipped, nothing stalls it, what is gone is said to be gone.

use sculpt_controller::store::{
    Store,
    events::{JournalError, Of, Place},
};
use sqlx::{Postgres, pool::PoolConnection};

use crate::harness;

/// What an admin sees.
async fn everything(store: &Store) -> Of {
    Of::Seen(harness::admin(store).await.sees())
}

type Connection = PoolConnection<Postgres>;

/// Opens a transaction and writes an entry in it.
async fn open(store: &Store, kind: &'static str) -> Connection {
    let mut conn = store.read().await.expect("a connection");
    sqlx::raw_sql("BEGIN").execute(&mut *conn).await.expect("begin");
    write(&mut conn, kind).await;
    conn
}

async fn write(conn: &mut Connection, kind: &'static str) {
    sqlx::query("INSERT INTO events (kind) VALUES ($1)").bind(kind).execute(&mut **conn).await.expect("write");
}

async fn end(mut conn: Connection, how: &'static str) {
    sqlx::raw_sql(how).execute(&mut *conn).await.expect("end");
}

async fn committed(store: &Store, kind: &'static str) {
    end(open(store, kind).await, "COMMIT").await;
}

async fn kinds(reader: &mut sculpt_controller::store::events::Reader) -> Vec<String> {
    reader.next().await.expect("it reads on").into_iter().map(|event| event.kind).collect()
}

/// Lets others run for a while that is measured in work, not in time.
async fn round_trips(store: &Store) {
    for _ in 0..50 {
        store.cluster().await.expect("it answers");
    }
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_waited_for() {
    let (store, _database) = harness::store().await;
    committed(&store, "first").await;
    let late = open(&store, "late").await;
    committed(&store, "early").await;
    let mut reader = store.journal(None, everything(&store).await).await.expect("a reader");
    assert_eq!(kinds(&mut reader).await, ["first"], "what is before the gap does not wait");
    let next = tokio::spawn(async move { (kinds(&mut reader).await, reader) });
    round_trips(&store).await;
    assert!(!next.is_finished(), "the gap may still be filled");
    end(late, "COMMIT").await;
    let (read, mut reader) = next.await.expect("it ends");
    assert_eq!(read, ["late", "early"]);
    assert!(kinds(&mut reader).await.is_empty());
}

#[tokio::test]
async fn a_gap_of_a_rolled_back_transaction_is_passed() {
    let (store, _database) = harness::store().await;
    let undone = open(&store, "undone").await;
    committed(&store, "kept").await;
    end(undone, "ROLLBACK").await;
    let mut reader = store.journal(None, everything(&store).await).await.expect("a reader");
    assert_eq!(kinds(&mut reader).await, ["kept"]);
}

#[tokio::test]
async fn a_long_transaction_elsewhere_stalls_nobody() {
    let (store, _database) = harness::store().await;
    let mut elsewhere = store.read().await.expect("a connection");
    sqlx::raw_sql("BEGIN; UPDATE cluster SET created_at = now(); SELECT count(*) FROM events")
        .execute(&mut *elsewhere)
        .await
        .expect("a transaction with an id of its own that reads the journal");
    end(open(&store, "undone").await, "ROLLBACK").await;
    committed(&store, "kept").await;
    let mut reader = store.journal(None, everything(&store).await).await.expect("a reader");
    assert_eq!(kinds(&mut reader).await, ["kept"]);
    assert_eq!(store.settled().await.expect("a place"), reader.place());
    end(elsewhere, "ROLLBACK").await;
}

#[tokio::test]
async fn a_place_is_not_settled_while_a_lower_id_is_open() {
    let (store, _database) = harness::store().await;
    committed(&store, "first").await;
    let late = open(&store, "late").await;
    committed(&store, "early").await;
    assert_eq!(store.settled().await.expect("a place"), Place(1), "a watcher from here gets both");
    end(late, "COMMIT").await;
    assert_eq!(store.settled().await.expect("a place"), Place(3));
}

#[tokio::test]
async fn many_writers_at_once_are_all_read_in_order_and_once() {
    let (store, _database) = harness::store().await;
    let mut reader = store.journal(None, everything(&store).await).await.expect("a reader");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..5 {
        let store = store.clone();
        writers.spawn(async move {
            for entry in 0..60 {
                let conn = open(&store, "entry").await;
                end(conn, if (entry * 7 + writer) % 5 == 0 { "ROLLBACK" } else { "COMMIT" }).await;
            }
        });
    }
    let mut ids = Vec::new();
    while ids.len() < 240 {
        ids.extend(reader.next().await.expect("it reads on").into_iter().map(|event| event.id));
    }
    writers.join_all().await;
    assert!(reader.next().await.expect("it reads on").is_empty());
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(ids.len(), 240);
}

#[tokio::test]
async fn a_place_from_before_retention_is_refused() {
    let (store, _database) = harness::store().await;
    store.make_partitions().await.expect("partitions");
    let mut conn = store.read().await.expect("a connection");
    sqlx::raw_sql(
        "CREATE TABLE events_20200101 PARTITION OF events FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00'); \
         INSERT INTO events (at, kind) VALUES ('2020-01-01 12:00:00+00', 'old');",
    )
    .execute(&mut *conn)
    .await
    .expect("an old day");
    drop(conn);
    committed(&store, "new").await;
    let mut behind = store.journal(None, everything(&store).await).await.expect("a reader");
    assert_eq!(store.drop_old_events(30).await.expect("retention"), 1);
    assert!(matches!(behind.next().await, Err(JournalError::Expired)), "also one that is on its way");
    assert!(matches!(store.journal(Some(Place(0)), everything(&store).await).await, Err(JournalError::Expired)));
    let mut reader = store.journal(None, everything(&store).await).await.expect("from the oldest that is kept");
    assert_eq!(kinds(&mut reader).await, ["new"]);
}

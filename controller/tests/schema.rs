//! The schema and its partitions.

use sculpt_controller::store::{SchemaError, Store, migrate};

use crate::harness;

#[tokio::test]
async fn migrations_run_once_even_when_two_begin_together() {
    let fresh = harness::bare_database().await;
    let (first, second) = tokio::join!(migrate(&fresh.database), migrate(&fresh.database));
    first.expect("the first brings it up to date");
    second.expect("the second finds it so");
    migrate(&fresh.database).await.expect("again changes nothing");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (store, fresh) = harness::store().await;
    let mut conn = store.read().await.expect("a connection");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', true, '\\x00', 0)",
    )
    .execute(&mut *conn)
    .await
    .expect("a migration that is not ours");
    let error = migrate(&fresh.database).await.expect_err("it is refused");
    assert!(matches!(error, SchemaError::Newer { version: 9999, .. }), "{error}");
}

#[tokio::test]
async fn partitions_take_over_what_came_before_them() {
    let (store, _fresh) = harness::store().await;
    let mut conn = store.read().await.expect("a connection");
    sqlx::query("INSERT INTO events (kind) VALUES ('early')").execute(&mut *conn).await.expect("write");
    drop(conn);
    let (first, second) = tokio::join!(store.make_partitions(), store.make_partitions());
    first.expect("made");
    second.expect("found");
    assert_eq!(count(&store, "SELECT count(*) FROM events_default").await, 0);
    assert_eq!(count(&store, "SELECT count(*) FROM events").await, 1);
    let children = "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('events'::regclass, 'log_chunks'::regclass)";
    assert_eq!(count(&store, children).await, 10, "today, three days ahead and the default, of both");
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    let mut conn = store.read().await.expect("a connection");
    sqlx::query_scalar(sql).fetch_one(&mut *conn).await.expect("a count")
}

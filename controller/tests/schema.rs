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

/// Tasks from before there were users: their classes are divided by whose they are.
#[tokio::test]
async fn tasks_of_an_earlier_version_keep_what_they_need_and_get_to_be_somebodys() {
    let fresh = harness::bare_database().await;
    let store = Store::new(&fresh.database, 1);
    let mut conn = store.read().await.expect("a connection");
    for migration in [
        include_str!("../migrations/0001_ground.sql"),
        include_str!("../migrations/0002_brief.sql"),
        include_str!("../migrations/0003_leases.sql"),
        include_str!("../migrations/0004_space.sql"),
        include_str!("../migrations/0005_adopt.sql"),
        "INSERT INTO projects (id, name, root_commit) VALUES (gen_random_uuid(), 'web', repeat('a', 40));
         INSERT INTO classes (digest, pool, requirements, agent) VALUES
           (sha256('1'), 'gpu', '{\"arch\": \"amd64\"}', 'robot'), (sha256('2'), 'default', '{}', NULL),
           (sha256('3'), 'nobody needs it', '{}', NULL);
         INSERT INTO tasks (id, class_id, title, created_by, spec, next_attempt, project_id, base)
           SELECT gen_random_uuid(), c.id, c.pool, who, '', 1, p.id, p.root_commit
           FROM (SELECT * FROM classes WHERE pool <> 'nobody needs it') c,
             (VALUES ('ada'), ('ada'), ('bob with a name')) AS people (who),
             (SELECT id, root_commit FROM projects UNION ALL SELECT NULL, NULL) p;",
        include_str!("../migrations/0006_identity.sql"),
    ] {
        sqlx::raw_sql(migration).execute(&mut *conn).await.expect("it is taken");
    }
    drop(conn);
    let same = "SELECT count(*) FROM tasks t JOIN classes c ON c.id = t.class_id WHERE c.pool = t.title \
                AND c.requester = t.created_by AND c.project_id IS NOT DISTINCT FROM t.project_id \
                AND (c.agent IS NOT NULL) = (c.pool = 'gpu') AND (c.requirements = '{}') = (c.pool = 'default')";
    assert_eq!(count(&store, same).await, 12, "each task has a class of its own kind");
    assert_eq!(count(&store, "SELECT count(*) FROM classes").await, 8, "of two pools, two people, a project and none");
}

//! The service adds to the record and can do nothing else to it, because its role owns nothing.

use sculpt_controller::store::{Database, SchemaError, Store, let_serve, migrate};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::World;
use crate::{harness, make};

/// PostgreSQL's code for what a role may not do.
const FORBIDDEN: &str = "42501";

async fn said(store: &Store, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *store.read().await.unwrap()).await.map(drop)
}

#[tokio::test]
async fn who_serves_cannot_touch_what_stands_in_the_record() {
    let world = World::new().await;
    let service = world.stack.store();
    assert_eq!(service.power_over_record().await.unwrap(), None);
    for harm in [
        "UPDATE audit SET actor = 'eve'",
        "DELETE FROM audit",
        "TRUNCATE audit CASCADE",
        "UPDATE audit_chain SET hash = hash",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_chain",
        "INSERT INTO audit (id, actor, action) OVERRIDING SYSTEM VALUE VALUES (1, 'eve', 'test.act')",
        "INSERT INTO audit_chain (sequence, entry, hash) SELECT 1 + max(sequence), max(entry), sha256('x') FROM audit_chain",
        "INSERT INTO audit (at, actor, action) VALUES (now() - interval '1 day', 'eve', 'test.act')",
        "SELECT setval('audit_id_seq', 1)",
        "ALTER TABLE audit DISABLE TRIGGER audit_stands",
        "DROP TRIGGER audit_stands ON audit",
        "DROP TABLE audit_chain",
        "CREATE OR REPLACE FUNCTION audit_stands() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER mine BEFORE INSERT ON audit EXECUTE FUNCTION audit_stands()",
        "SET session_replication_role = replica",
        "SET ROLE sculpt",
        "SET SESSION AUTHORIZATION sculpt",
        "GRANT sculpt TO sculpt_service",
        "ALTER ROLE sculpt_service SUPERUSER",
        "CREATE ROLE eve",
        "DELETE FROM _sqlx_migrations",
    ] {
        let error = said(service, harm).await.expect_err(harm);
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some(FORBIDDEN), "{harm}: {error}");
    }
    // Refused by a warning alone.
    said(service, "GRANT DELETE ON audit TO sculpt_service").await.expect("it changes nothing");
    assert_eq!(service.power_over_record().await.unwrap(), None);
    // The rest it does as ever.
    said(service, "INSERT INTO audit (actor, action) VALUES ('ben', 'test.act')").await.expect("it adds");
    make::task(service).await;
    world.stack.stop().await;
}

/// A role of its own for one test.
async fn role(server: &Database, name: &str) -> String {
    let role = format!("{name}_{}", Uuid::new_v4().simple());
    server.ensure_role(&role).await.expect("a role");
    role
}

#[tokio::test]
async fn a_server_of_others_is_served_by_a_role_that_owns_nothing() {
    let fresh = harness::bare_database().await;
    let root = Store::new(&fresh.database, 2);
    let (owner, service) = (role(&fresh.database, "owner").await, role(&fresh.database, "service").await);
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut *root.read().await.unwrap()).await.unwrap();
    said(&root, &format!("ALTER DATABASE {name} OWNER TO {owner}")).await.unwrap();
    let (owner, service) = (fresh.database.as_role(&owner), fresh.database.as_role(&service));
    migrate(&owner).await.expect("the owner makes the tables");

    let alone = Store::new(&owner, 2);
    assert_eq!(alone.power_over_record().await.unwrap().as_deref(), Some("owns the database"));
    let_serve(&owner, &owner).await.expect("one role needs nothing");
    let (first, second) = tokio::join!(let_serve(&owner, &service), let_serve(&owner, &service));
    first.expect("it may serve");
    second.expect("two replicas at once");
    let serving = Store::new(&service, 4);
    assert_eq!(serving.power_over_record().await.unwrap(), None);
    make::task(&serving).await;
    alone.make_partitions().await.expect("the owner makes days");
    make::task(&serving).await;
    let by = harness::admin(&serving).await.may().unwrap();
    serving.chain().await.expect_err("it adds no link");
    assert!(alone.chain().await.expect("the notary writes") > 0);
    assert_eq!(serving.verify_audit(&by, None).await.unwrap().broken, None);
    for (given, power) in [
        ("DELETE ON audit", "may change the record"),
        ("INSERT ON audit_chain", "may forge the chain of the record"),
        ("INSERT (hash) ON audit_chain", "may forge the chain of the record"),
    ] {
        said(&root, &format!("GRANT {given} TO {}", who(&serving).await)).await.unwrap();
        assert_eq!(serving.power_over_record().await.unwrap().as_deref(), Some(power));
        let_serve(&owner, &service).await.expect("it may serve again");
        assert_eq!(serving.power_over_record().await.unwrap(), None, "what was given too much is taken back");
    }

    let elsewhere = harness::database().await;
    let error = let_serve(&owner, &elsewhere.database.as_role(&who(&serving).await)).await.expect_err("another one");
    assert!(matches!(error, SchemaError::Two { .. } | SchemaError::Rights { .. }), "{error}");
    assert_eq!(root.power_over_record().await.unwrap().as_deref(), Some("is a superuser"));
}

async fn who(store: &Store) -> String {
    sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut *store.read().await.unwrap()).await.unwrap()
}

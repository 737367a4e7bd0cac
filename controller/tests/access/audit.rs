//! The record: chained without holding anybody up, and not to be changed unseen.

use sculpt_controller::{
    access::{Administer, May},
    store::{
        Store,
        audit::{Filter, Verified},
    },
};
use sculpt_core::rights::Role;
use sculpt_proto::v1;
use uuid::Uuid;

use super::World;
use crate::{
    api::{command, create},
    harness,
};

async fn run(store: &Store, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(&mut *store.read().await.unwrap()).await.map(drop)
}

async fn write(store: &Store, subject: &'static str) {
    let sql = "INSERT INTO audit (actor, action, subject) VALUES ('ben', 'test.act', $1)";
    sqlx::query(sql).bind(subject).execute(&mut *store.read().await.unwrap()).await.unwrap();
}

async fn subjects(store: &Store, by: &May<Administer>) -> Vec<String> {
    let filter = Filter { actions: vec!["test.act".into()], ..Filter::default() };
    store.audit(by, 0, &filter).await.unwrap().0.into_iter().map(|entry| entry.subject).collect()
}

#[tokio::test]
async fn an_act_that_commits_late_is_waited_for_and_holds_nobody_up() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await.may().unwrap();
    write(&store, "first").await;
    store.chain().await.unwrap();
    let mut late = store.read().await.unwrap();
    sqlx::raw_sql("BEGIN; INSERT INTO audit (actor, action, subject) VALUES ('ben', 'test.act', 'late')")
        .execute(&mut *late)
        .await
        .unwrap();
    // It does not wait for the open one.
    write(&store, "early").await;
    let chaining = tokio::spawn({
        let store = store.clone();
        async move { store.chain().await.unwrap() }
    });
    for _ in 0..50 {
        store.cluster().await.unwrap();
    }
    assert!(!chaining.is_finished(), "the gap may still be filled");
    assert_eq!(subjects(&store, &by).await, ["first"]);
    sqlx::raw_sql("COMMIT").execute(&mut *late).await.unwrap();
    assert_eq!(chaining.await.unwrap(), 2);
    assert_eq!(subjects(&store, &by).await, ["first", "late", "early"]);
    assert_eq!(store.verify_audit(&by, None).await.unwrap().broken, None);
}

#[tokio::test]
async fn what_was_changed_removed_or_inserted_is_found() {
    let cases: [(&str, &str); 7] = [
        ("UPDATE audit SET actor = 'eve' WHERE subject = 'b'", "was changed"),
        ("UPDATE audit SET details = '{\"x\": 1}' WHERE subject = 'b'", "was changed"),
        (
            "DELETE FROM audit_chain WHERE entry = (SELECT id FROM audit WHERE subject = 'b'); \
          DELETE FROM audit WHERE subject = 'b'",
            "was removed",
        ),
        (
            "ALTER TABLE audit_chain DROP CONSTRAINT audit_chain_entry_fkey; DELETE FROM audit WHERE subject = 'b'",
            "was removed",
        ),
        (
            "INSERT INTO audit (id, actor, action, subject) OVERRIDING SYSTEM VALUE \
          SELECT id - 1, 'eve', 'test.act', 'forged' FROM audit WHERE subject = 'b'",
            "was inserted",
        ),
        (
            "UPDATE audit_chain SET hash = sha256('x') WHERE entry = (SELECT id FROM audit WHERE subject = 'b')",
            "changed",
        ),
        (
            "CREATE TEMP TABLE swapped AS SELECT b.sequence, c.entry FROM audit_chain b JOIN audit_chain c \
             ON abs(b.sequence - c.sequence) = 1 WHERE b.sequence >= (SELECT max(sequence) - 1 FROM audit_chain) \
             AND c.sequence >= (SELECT max(sequence) - 1 FROM audit_chain); \
          ALTER TABLE audit_chain DROP CONSTRAINT audit_chain_entry_key; \
          UPDATE audit_chain c SET entry = s.entry FROM swapped s WHERE s.sequence = c.sequence",
            "changed",
        ),
    ];
    for (harm, problem) in cases {
        let (store, _database) = harness::store().await;
        let by: May<Administer> = harness::admin(&store).await.may().unwrap();
        write(&store, "a").await;
        // An id that nobody has used.
        run(&store, "SELECT nextval('audit_id_seq')").await.unwrap();
        write(&store, "b").await;
        write(&store, "c").await;
        store.chain().await.unwrap();
        let Verified { entries, broken, .. } = store.verify_audit(&by, None).await.unwrap();
        assert_eq!(broken, None);
        run(&store, "ALTER TABLE audit DISABLE TRIGGER audit_stands; ALTER TABLE audit_chain DISABLE TRIGGER audit_chain_stands")
            .await
            .unwrap();
        run(&store, harm).await.unwrap();
        let (place, said) = store.verify_audit(&by, None).await.unwrap().broken.expect("it is found");
        assert_eq!(place, entries - 1, "{harm}: {said}");
        assert!(said.contains(problem), "{harm}: {said}");
    }
}

#[tokio::test]
async fn a_link_that_is_not_the_notarys_is_found() {
    let newest = "SELECT 1 + max(sequence), (SELECT max(id) FROM audit), {} FROM audit_chain";
    let forged: [(&str, &str); 4] = [
        (newest, "was changed"),
        ("SELECT 7 + max(sequence), (SELECT max(id) FROM audit), {} FROM audit_chain", "was removed"),
        ("SELECT 9223372036854775807, (SELECT max(id) FROM audit), {}", "was removed"),
        (newest, "was inserted"),
    ];
    for (link, problem) in forged {
        let (store, _database) = harness::store().await;
        let by: May<Administer> = harness::admin(&store).await.may().unwrap();
        write(&store, "a").await;
        store.chain().await.unwrap();
        let whole = store.verify_audit(&by, None).await.unwrap();
        // What the notary has not come to yet.
        write(&store, "b").await;
        if problem == "was inserted" {
            write(&store, "c").await;
        }
        let sql = format!("INSERT INTO audit_chain {}", link.replace("{}", "sha256('x')"));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *store.read().await.unwrap()).await.unwrap();
        // It goes on from what it finds, or not at all.
        write(&store, "d").await;
        let _chained = store.chain().await;
        let (place, said) = store.verify_audit(&by, None).await.unwrap().broken.expect("it is found");
        assert_eq!(place, whole.entries + 1, "{link}: {said}");
        assert!(said.contains(problem), "{link}: {said}");
    }
}

#[tokio::test]
async fn a_removed_end_is_found_by_the_hash_that_was_noted() {
    let (store, _database) = harness::store().await;
    let by: May<Administer> = harness::admin(&store).await.may().unwrap();
    write(&store, "a").await;
    store.chain().await.unwrap();
    let noted = store.verify_audit(&by, None).await.unwrap();
    write(&store, "b").await;
    store.chain().await.unwrap();
    assert_eq!(store.verify_audit(&by, Some(noted.hash)).await.unwrap().broken, None, "it went on from there");
    let newest = store.verify_audit(&by, None).await.unwrap();
    for harm in [
        "ALTER TABLE audit DISABLE TRIGGER audit_stands; ALTER TABLE audit_chain DISABLE TRIGGER audit_chain_stands",
        "DELETE FROM audit_chain WHERE entry = (SELECT id FROM audit WHERE subject = 'b')",
        "DELETE FROM audit WHERE subject = 'b'",
    ] {
        run(&store, harm).await.unwrap();
    }
    assert_eq!(store.verify_audit(&by, None).await.unwrap().broken, None, "what is left holds");
    let (place, said) = store.verify_audit(&by, Some(newest.hash)).await.unwrap().broken.expect("it is found");
    assert_eq!(place, newest.entries);
    assert!(said.contains("noted earlier"), "{said}");
}

#[tokio::test]
async fn a_long_record_is_verified_in_pieces() {
    let (store, database) = harness::store().await;
    let by: May<Administer> = harness::admin(&store).await.may().unwrap();
    run(
        &store,
        "INSERT INTO audit (actor, action, subject) SELECT 'ben', 'test.act', n FROM generate_series(1, 11000) n",
    )
    .await
    .unwrap();
    assert!(store.chain().await.unwrap() >= 11_000);
    let whole = store.verify_audit(&by, None).await.unwrap();
    assert!(whole.broken.is_none() && whole.entries >= 11_000, "{whole:?}");
    run(
        &store,
        "ALTER TABLE audit DISABLE TRIGGER audit_stands; UPDATE audit SET actor = 'eve' WHERE subject = '10999'",
    )
    .await
    .unwrap();
    assert_eq!(store.verify_audit(&by, None).await.unwrap().broken.expect("it is found").0, whole.entries - 1);

    let alone = Store::new(&database.database, 1);
    let verifying = alone.verify_audit(&by, None);
    tokio::pin!(verifying);
    tokio::select! {
        biased;
        _ = &mut verifying => panic!("others wait until all of it is verified"),
        cluster = alone.cluster() => drop(cluster.expect("it has its turn between two pieces")),
    }
    verifying.await.expect("it goes on");
}

#[tokio::test]
async fn the_record_is_only_ever_added_to() {
    let (store, _database) = harness::store().await;
    write(&store, "a").await;
    store.chain().await.unwrap();
    for table in ["audit", "audit_chain"] {
        for change in ["DELETE FROM {}", "TRUNCATE {} CASCADE", "UPDATE {} SET id = id"] {
            let sql = change
                .replace("{}", table)
                .replace("SET id = id", if table == "audit" { "SET actor = 'x'" } else { "SET hash = hash" });
            let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *store.read().await.unwrap()).await;
            let error = error.expect_err("it stands").to_string();
            assert!(error.contains("only ever added to"), "{error}");
        }
    }
}

#[tokio::test]
async fn who_did_what_can_be_read_and_followed() {
    let world = World::new().await;
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let channel = || world.stack.showing(&zoe);
    let mut audit = v1::audit_client::AuditClient::new(channel());
    let request = v1::ReadAuditRequest { follow: true, actor: "zoe".into(), ..Default::default() };
    let mut record = audit.read_audit(request).await.unwrap().into_inner();

    let mut tasks = v1::tasks_client::TasksClient::new(channel());
    let task = tasks.create_task(create(command(&["true"]))).await.unwrap().into_inner().task.unwrap();
    let stop = v1::StopTaskRequest {
        request_id: Uuid::new_v4().to_string(),
        task: task.uuid,
        reason: "enough".into(),
        ..Default::default()
    };
    tasks.stop_task(stop).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(record.message().await.unwrap().expect("it goes on").entries);
    }
    let told: Vec<_> = seen.iter().map(|entry| (entry.action.as_str(), entry.subject.as_str())).collect();
    assert_eq!(told, [("task.create", "task:1"), ("task.stop", "task:1")]);
    assert!(seen[1].details.contains("enough") && !seen[1].token.is_empty(), "{:?}", seen[1]);
    assert_eq!(seen[1].from, "127.0.0.1");
    let verified = audit.verify_audit(v1::VerifyAuditRequest::default()).await.unwrap().into_inner();
    assert_eq!((verified.broken_at, verified.hash.len()), (0, 64), "{verified:?}");
    assert!(verified.entries >= seen[1].sequence);
    world.stack.stop().await;
}

//! Machines that join, renew, and are found to be two.

use std::{collections::BTreeMap, time::Duration};

use sculpt_controller::{
    bus::Bus,
    dispatch::{Actor, Dispatch},
    store::{
        Store,
        certificates::{Asked, RenewError},
        executors::RemoveError,
        joins::{Join, JoinError, Joined, NewJoinToken},
        locks::Target,
        roles::Wish,
        sessions,
    },
};
use sculpt_core::{
    attempt::Fence,
    enrolment::{Refusal, Renewal},
    rights::Role,
    task::Event,
};
use sculpt_proto::id::ExecutorId;
use sqlx::Connection as _;
use uuid::Uuid;

use super::request;
use crate::{harness, make};

const HOUR: Duration = Duration::from_secs(3600);

/// A join token for so many machines.
async fn token(store: &Store, digest: [u8; 32], uses: u32) -> Uuid {
    let by = harness::admin(store).await.may().unwrap();
    let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned())]);
    let new = NewJoinToken { digest, pool: "build".into(), labels, uses, ttl: HOUR };
    store.create_join_token(by, request(), new).await.unwrap().id
}

fn machine(digest: [u8; 32], name: &str) -> Join {
    Join {
        digest,
        id: Uuid::new_v4(),
        executor: ExecutorId::fresh(),
        key: rand::random(),
        name: name.into(),
        hostname: "host".into(),
        version: "0.1.0".into(),
        address: "192.0.2.7".into(),
        valid_for: 24 * HOUR,
        authority: [9; 32],
        trusted: vec![vec![9; 32]],
    }
}

#[tokio::test]
async fn a_machine_joins_once_however_often_it_asks() {
    let (store, _database) = harness::store().await;
    token(&store, [1; 32], 1).await;
    let join = machine([1; 32], "one");
    let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned())]);
    let joined = Joined { executor: join.executor, name: "one".into(), pool: "build".into(), labels, generation: 1 };
    let both = tokio::join!(store.join(join.clone()), store.join(join.clone()));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (joined.clone(), joined.clone()), "two at once");
    assert_eq!(store.join(join.clone()).await.unwrap(), joined, "a lost answer");
    assert_eq!(store.certified_by([9; 32]).await.unwrap(), ["one"]);
    assert!(store.certified_by([8; 32]).await.unwrap().is_empty());

    let other_key = Join { key: [7; 32], ..join.clone() };
    assert!(matches!(store.join(other_key).await, Err(JoinError::Reused)));
    assert!(matches!(store.join(machine([1; 32], "two")).await, Err(JoinError::UsedUp)));
    assert!(matches!(store.join(machine([5; 32], "two")).await, Err(JoinError::Foreign)));
}

#[tokio::test]
async fn of_two_keys_that_join_as_one_executor_the_first_stays() {
    let (store, _database) = harness::store().await;
    token(&store, [1; 32], 1).await;
    token(&store, [2; 32], 1).await;
    let one = machine([1; 32], "one");
    let two = Join { executor: one.executor, ..machine([2; 32], "two") };
    let keys = [one.key, two.key];
    // Nobody writes a row before both have seen that there is none.
    let mut gate = store.read().await.unwrap();
    let mut held = gate.begin().await.unwrap();
    sqlx::query("LOCK TABLE executors IN SHARE MODE").execute(&mut *held).await.unwrap();
    let joins = [one, two].map(|join| {
        let store = store.clone();
        tokio::spawn(async move { store.join(join).await })
    });
    harness::until_waiting(&store, 2, || false).await;
    held.commit().await.unwrap();
    let mut joined = Vec::new();
    for join in joins {
        joined.push(join.await.unwrap());
    }
    let first = usize::from(joined[0].is_err());
    assert!(joined[first].is_ok(), "{joined:?}");
    assert!(matches!(joined[1 - first], Err(JoinError::OtherKey(_))), "{joined:?}");
    let (key, used): (Vec<u8>, i64) = sqlx::query_as("SELECT key, (SELECT sum(used) FROM join_tokens) FROM executors")
        .fetch_one(&mut *store.read().await.unwrap())
        .await
        .unwrap();
    assert_eq!((key.as_slice(), used), (&keys[first][..], 1), "and what it proves stays");
}

#[tokio::test]
async fn a_join_that_may_not_be_leaves_nothing_behind() {
    let (store, _database) = harness::store().await;
    let id = token(&store, [1; 32], 9).await;
    let one = machine([1; 32], "one");
    store.join(one.clone()).await.unwrap();
    assert!(matches!(store.join(machine([1; 32], "one")).await, Err(JoinError::NameTaken(_))));
    let takeover = Join { executor: one.executor, ..machine([1; 32], "one") };
    assert!(matches!(store.join(takeover).await, Err(JoinError::OtherKey(_))), "an id is no credential");
    let by = harness::admin(&store).await;
    let used = store.join_tokens(&by.may().unwrap()).await.unwrap()[0].used;
    assert_eq!(used, 1, "refusals use nothing up");

    let expire = "UPDATE join_tokens SET expires_at = now() - interval '1 s'";
    sqlx::query(expire).execute(&mut *store.read().await.unwrap()).await.unwrap();
    assert!(matches!(store.join(machine([1; 32], "two")).await, Err(JoinError::Expired)));
    assert_eq!(store.join(one.clone()).await.unwrap().generation, 1, "who has joined is still answered");
    store.revoke_join_token(by.may().unwrap(), request(), id.to_string()).await.unwrap();
    assert!(matches!(store.join(machine([1; 32], "two")).await, Err(JoinError::Revoked)));
}

#[tokio::test]
async fn who_has_no_key_yet_is_claimed_within_its_pool_alone() {
    let (store, _database) = harness::store().await;
    let (other, own) = (make::executor(&store, "one").await.executor, make::executor(&store, "two").await.executor);
    sqlx::query("UPDATE executors SET pool = 'build' WHERE name = 'two'")
        .execute(&mut *store.read().await.unwrap())
        .await
        .unwrap();
    token(&store, [1; 32], 2).await;
    let claim = Join { executor: other, ..machine([1; 32], "one") };
    let refused = store.join(claim).await.unwrap_err();
    assert!(matches!(&refused, JoinError::OtherPool { pool, .. } if pool == "default"), "{refused}");
    store.join(Join { executor: own, ..machine([1; 32], "two") }).await.expect("a token for its pool");
}

#[tokio::test]
async fn a_token_is_no_better_than_who_made_it() {
    let (store, _database) = harness::store().await;
    token(&store, [1; 32], 9).await;
    let one = machine([1; 32], "one");
    store.join(one.clone()).await.unwrap();
    store.reset_admin("zoe", [7; 32]).await.unwrap();
    let run = async |sql: &'static str| sqlx::query(sql).execute(&mut *store.read().await.unwrap()).await.unwrap();
    run("INSERT INTO locks (id, user_id, locked_by) SELECT gen_random_uuid(), id, 'zoe' FROM users WHERE name = 'ada'")
        .await;
    assert!(matches!(store.join(machine([1; 32], "two")).await, Err(JoinError::MakerLocked(ada)) if ada == "ada"));
    assert_eq!(store.join(one.clone()).await.unwrap().generation, 1, "who has joined is still answered");
    run("UPDATE locks SET lifted_at = now()").await;
    store.join(machine([1; 32], "two")).await.expect("it is lifted");

    let by = harness::admin(&store).await;
    store.remove_user(by.may().unwrap(), request(), "ada".into()).await.unwrap();
    assert!(matches!(store.join(machine([1; 32], "three")).await, Err(JoinError::Revoked)));
    let told: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit WHERE action = 'user.remove' \
         AND details -> 'join_tokens' = (SELECT jsonb_agg(id) FROM join_tokens)",
    )
    .fetch_one(&mut *store.read().await.unwrap())
    .await
    .unwrap();
    assert_eq!(told, 1);
    // One that was being made meanwhile.
    run("UPDATE join_tokens SET revoked_at = NULL").await;
    assert!(matches!(store.join(machine([1; 32], "three")).await, Err(JoinError::MakerRemoved(_))));
}

#[tokio::test]
async fn who_is_reset_or_no_admin_any_more_lets_no_machine_join() {
    let (store, _database) = harness::store().await;
    // Somebody is left who rules.
    store.reset_admin("zoe", [7; 32]).await.unwrap();
    let wish = |role| Wish { role, project: None };
    let revoke = async |role| {
        let by = harness::admin(&store).await.may().unwrap();
        store.revoke_role(by, request(), "ada".into(), wish(role)).await.unwrap();
    };
    let recorded = async |action: &'static str| {
        let sql = "SELECT count(*) FROM audit WHERE action = $1 AND subject = 'user:ada' \
                   AND details -> 'join_tokens' = (SELECT jsonb_agg(id) FROM join_tokens WHERE digest = $2)";
        let digest = if action == "user.reset" { [1_u8; 32] } else { [2; 32] };
        let count = sqlx::query_scalar::<_, i64>(sql).bind(action).bind(&digest[..]);
        count.fetch_one(&mut *store.read().await.unwrap()).await.unwrap()
    };

    token(&store, [1; 32], 9).await;
    store.reset_admin("ada", [8; 32]).await.unwrap();
    assert!(matches!(store.join(machine([1; 32], "one")).await, Err(JoinError::Revoked)));
    assert_eq!(recorded("user.reset").await, 1);

    token(&store, [2; 32], 9).await;
    let by = harness::admin(&store).await.may().unwrap();
    store.grant_role(by, request(), "ada".into(), wish(Role::Viewer)).await.unwrap();
    revoke(Role::Viewer).await;
    store.join(machine([2; 32], "two")).await.expect("another role than the one that lets them");
    revoke(Role::Admin).await;
    assert!(matches!(store.join(machine([2; 32], "three")).await, Err(JoinError::Revoked)));
    assert_eq!(recorded("role.revoke").await, 1);
}

#[tokio::test]
async fn a_copy_of_a_key_gives_itself_away() {
    let (store, _database) = harness::store().await;
    token(&store, [1; 32], 1).await;
    let join = machine([1; 32], "one");
    store.join(join.clone()).await.unwrap();
    let asked = |generation, id| Asked {
        executor: join.executor,
        renewal: Renewal { key: join.key, generation, id },
        valid_for: 24 * HOUR,
        authority: [9; 32],
        trusted: vec![vec![9; 32]],
    };
    let first = Uuid::new_v4();
    assert_eq!(store.renew(asked(1, first)).await.unwrap(), 2);
    assert_eq!(store.renew(asked(1, first)).await.unwrap(), 2, "a lost answer");
    assert!(matches!(store.join(join.clone()).await, Err(JoinError::Renewed(_))), "its used token makes no newest one");
    assert!(matches!(store.renew(asked(1, Uuid::new_v4())).await, Err(RenewError::Stolen)));
    assert!(matches!(store.renew(asked(2, Uuid::new_v4())).await, Err(RenewError::Refused(Refusal::Locked))), "both");
    let barred = store.barred(&[join.executor]).await.unwrap();
    assert!(barred.len() == 1 && barred[0].1.to_string().contains("two places"), "{barred:?}");
    let by = harness::admin(&store).await;
    let locks = store.locks(&by.may().unwrap()).await.unwrap();
    assert_eq!((locks[0].executor_name.as_deref(), locks[0].locked_by.as_str()), (Some("one"), "controller"));
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM audit WHERE action = 'executor.lock'")
        .fetch_one(&mut *store.read().await.unwrap())
        .await
        .unwrap();
    assert_eq!(told, 1);

    store.unlock(by.may().unwrap(), request(), Target::Executor("one".into())).await.unwrap();
    assert_eq!(store.renew(asked(2, Uuid::new_v4())).await.unwrap(), 3, "whose it is has been found out");
    store.remove_executor(by.may().unwrap(), request(), join.executor, false).await.unwrap();
    assert!(matches!(store.renew(asked(3, Uuid::new_v4())).await, Err(RenewError::Refused(Refusal::Removed))));
    assert_eq!(store.barred(&[join.executor]).await.unwrap().len(), 1);
    assert!(matches!(store.join(join).await, Err(JoinError::Removed(_))));
}

#[tokio::test]
async fn who_would_not_believe_the_next_authority_is_known() {
    let (store, _database) = harness::store().await;
    let (present, next) = ([9; 32], [8; 32]);
    token(&store, [1; 32], 5).await;
    let names = async || -> Vec<String> {
        store.untold_of(next).await.unwrap().into_iter().map(|untold| untold.name).collect()
    };
    let run = async |sql: &'static str| sqlx::query(sql).execute(&mut *store.read().await.unwrap()).await.unwrap();
    for name in ["gone", "lapsed", "renewed", "removed"] {
        store.join(machine([1; 32], name)).await.unwrap();
    }
    let told = Join { trusted: vec![present.to_vec(), next.to_vec()], ..machine([1; 32], "told") };
    store.join(told).await.unwrap();
    assert_eq!(names().await, ["gone", "lapsed", "removed", "renewed"]);
    assert!(store.untold_of(present).await.unwrap().is_empty());

    run("UPDATE executors SET removed_at = now() WHERE name = 'removed'").await;
    run("UPDATE executors SET certified_until = now() - interval '1 s' WHERE name IN ('gone', 'lapsed')").await;
    run("UPDATE executors SET last_seen = now() - interval '8 days' WHERE name = 'gone'").await;
    assert_eq!(names().await, ["lapsed", "renewed"], "who was heard of lately comes back");
    let (executor, key): (Uuid, Vec<u8>) = sqlx::query_as("SELECT id, key FROM executors WHERE name = 'renewed'")
        .fetch_one(&mut *store.read().await.unwrap())
        .await
        .unwrap();
    let asked = Asked {
        executor: ExecutorId(executor),
        renewal: Renewal { key: key.try_into().unwrap(), generation: 1, id: Uuid::new_v4() },
        valid_for: 24 * HOUR,
        authority: present,
        trusted: vec![present.to_vec(), next.to_vec()],
    };
    store.renew(asked).await.unwrap();
    assert_eq!(names().await, ["lapsed"]);
}

#[tokio::test]
async fn of_two_renewals_at_once_one_is_the_thief() {
    let (store, _database) = harness::store().await;
    token(&store, [1; 32], 1).await;
    let join = machine([1; 32], "one");
    store.join(join.clone()).await.unwrap();
    let asked = || Asked {
        executor: join.executor,
        renewal: Renewal { key: join.key, generation: 1, id: Uuid::new_v4() },
        valid_for: 24 * HOUR,
        authority: [9; 32],
        trusted: vec![vec![9; 32]],
    };
    let (one, two) = tokio::join!(store.renew(asked()), store.renew(asked()));
    assert_eq!([&one, &two].iter().filter(|renewed| renewed.is_ok()).count(), 1);
    let stolen = |renewed: &Result<u64, RenewError>| matches!(renewed, Err(RenewError::Stolen));
    assert!(stolen(&one) || stolen(&two));
}

#[tokio::test]
async fn an_executor_with_work_is_removed_by_force_alone() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await;
    let (task, epoch) = (make::task(&store).await, make::executor(&store, "one").await);
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    let fence = Fence { number: 1, id: Uuid::now_v7() };
    let claimed = Event::Claimed { fence, executor: epoch.executor.0 };
    let _ = dispatch.apply(task, claimed, Actor::system()).await.unwrap();
    let busy = store.remove_executor(by.may().unwrap(), request(), epoch.executor, false).await;
    assert!(matches!(busy, Err(RemoveError::Busy { count: 1, .. })), "{busy:?}");
    assert_eq!(store.executors(&by.sees()).await.unwrap().len(), 1, "nothing has happened");
    let again = request();
    let moved = store.remove_executor(by.may().unwrap(), again.clone(), epoch.executor, true).await.unwrap();
    assert_eq!(moved.len(), 1);
    assert!(store.remove_executor(by.may().unwrap(), again, epoch.executor, true).await.unwrap().is_empty());
    assert!(store.executors(&by.sees()).await.unwrap().is_empty());
    let intent = "SELECT intent::text FROM tasks";
    let intent: String = sqlx::query_scalar(intent).fetch_one(&mut *store.read().await.unwrap()).await.unwrap();
    assert_eq!(intent, "cancel", "it ends when its executor has been silent for long enough");
    let held = sessions::holds(&mut store.read().await.unwrap(), epoch).await.unwrap();
    assert!(!held, "its session writes nothing any more");
}

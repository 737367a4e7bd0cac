//! Whose tasks run where, and with what.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use sculpt_controller::{
    background::place::place_all,
    bus::Bus,
    dispatch::Dispatch,
    store::{
        Store,
        executors::Counters,
        joins::{Join, JoinError, NewJoinToken},
        locks::Target,
        pools::{PoolError, Wish},
        requests::Request,
        sessions::{Epoch, Introduction},
    },
};
use sculpt_core::rights::Role;
use sculpt_proto::{
    executor::v1::{AttemptSpec, Confinement, confinement::Network},
    id::ExecutorId,
    v1::{self, waiting::Reason},
};
use tonic::Code;
use uuid::Uuid;

use super::{in_order, request};
use crate::{
    api::{command, create},
    harness::{self, Authorised},
    make,
};

/// A pool that takes everybody's tasks, and limits nothing.
pub(super) fn open(name: &str) -> Wish {
    Wish {
        name: name.into(),
        projects: vec![],
        users: vec![],
        network: "host",
        memory: None,
        processes: None,
        cpu: None,
    }
}

async fn set(store: &Store, wish: Wish) {
    let by = harness::admin(store).await;
    store.set_pool(by.may().unwrap(), request(), wish).await.unwrap();
}

async fn placed(store: &Store, epoch: Epoch) -> usize {
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    place_all(&dispatch, store.cluster().await.unwrap(), &[epoch]).await.unwrap().count
}

/// What was asked for by who shows this.
async fn asked(channel: Authorised, spec: v1::TaskSpec) -> v1::Task {
    let mut tasks = v1::tasks_client::TasksClient::new(channel);
    tasks.create_task(create(spec)).await.unwrap().into_inner().task.unwrap()
}

async fn waits(channel: Authorised, task: &v1::Task) -> (Reason, String) {
    let mut tasks = v1::tasks_client::TasksClient::new(channel);
    let task = tasks.get_task(v1::GetTaskRequest { task: task.uuid.clone() }).await.unwrap().into_inner().task.unwrap();
    let waiting = task.waiting.expect("it says what it waits for");
    (waiting.reason(), waiting.text)
}

/// An executor that joined with a token of the admin of these tests, and connects.
async fn joined(store: &Store, pool: &str, separates: bool) -> Epoch {
    let by = harness::admin(store).await;
    let new = invitation(pool);
    store.create_join_token(by.may().unwrap(), request(), new.clone()).await.unwrap();
    let join = machine(new.digest);
    store.join(join.clone()).await.unwrap();
    let unseparated = if separates { "" } else { "bwrap is not installed" };
    let says = Introduction {
        id: join.executor,
        separates,
        unseparated: unseparated.into(),
        closes_network: separates,
        ..make::introduction("own", 4)
    };
    make::open(store, says).await
}

/// A join token for one machine.
fn invitation(pool: &str) -> NewJoinToken {
    let ttl = Duration::from_secs(60);
    NewJoinToken { digest: rand::random(), pool: pool.into(), labels: BTreeMap::new(), uses: 1, ttl }
}

/// One that joins with the token of this digest.
fn machine(digest: [u8; 32]) -> Join {
    Join {
        digest,
        id: Uuid::new_v4(),
        executor: ExecutorId::fresh(),
        key: rand::random(),
        name: "own".into(),
        hostname: "host".into(),
        version: "0.1.0".into(),
        address: "192.0.2.7".into(),
        valid_for: Duration::from_secs(60),
        authority: [9; 32],
        trusted: vec![],
    }
}

#[tokio::test]
async fn a_pool_takes_whose_tasks_it_was_told_to_take() {
    let world = super::World::new().await;
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let mut executors = v1::executors_client::ExecutorsClient::new(world.stack.showing(&zoe));
    let pool = v1::Pool {
        name: "default".into(),
        projects: vec!["web".into()],
        network: "none".into(),
        memory: 1 << 30,
        ..Default::default()
    };
    let request = v1::SetPoolRequest { request_id: Uuid::new_v4().to_string(), pool: Some(pool.clone()) };
    assert_eq!(executors.set_pool(request).await.unwrap().into_inner().pool.unwrap(), pool);
    let mut tasks = v1::tasks_client::TasksClient::new(world.stack.showing(&zoe));
    let refused = tasks.create_task(create(command(&["true"]))).await.expect_err("it has no project");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("the pool default takes tasks of certain projects only"), "{refused}");
    make::task_on(world.stack.store(), world.web.id(), &"c".repeat(40)).await;
    let listed = executors.list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
    assert_eq!(listed, [v1::Pool { waiting: 1, ..pool }]);
    for (projects, users) in [(vec!["nowhere".to_owned()], vec![]), (vec![], vec!["nobody".to_owned()])] {
        let pool = Some(v1::Pool { name: "gpu".into(), projects, users, ..Default::default() });
        let request = v1::SetPoolRequest { request_id: Uuid::new_v4().to_string(), pool };
        assert_eq!(executors.set_pool(request).await.expect_err("there is none").code(), Code::NotFound);
    }
    let listed = executors.list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
    assert_eq!(listed.len(), 1, "nothing of it is kept");
    world.stack.stop().await;
}

#[tokio::test]
async fn what_waited_before_its_pool_was_closed_to_it_waits_on_and_says_why() {
    let world = super::World::new().await;
    let store = world.stack.store();
    let zoe = world.user("zoe", &[(Role::Operator, None)]).await;
    let task = asked(world.stack.showing(&zoe), command(&["true"])).await;
    make::task(store).await;
    set(store, Wish { users: vec!["ada".into()], ..open("default") }).await;
    let epoch = make::open(store, make::introduction("one", 4)).await;
    assert_eq!(placed(store, epoch).await, 1, "that of ada");
    let (reason, text) = waits(world.stack.showing(&zoe), &task).await;
    assert_eq!(reason, Reason::NotAdmitted);
    assert!(text.contains("certain users only, and zoe is not one of those"), "{text}");
    assert!(text.contains("`sculpt pool set default`"), "{text}");
    set(store, open("default")).await;
    assert_eq!(placed(store, epoch).await, 1, "that of zoe");
    world.stack.stop().await;
}

#[tokio::test]
async fn an_executor_that_does_not_separate_runs_its_owners_tasks() {
    let world = super::World::new().await;
    let store = world.stack.store();
    let epoch = joined(store, "default", false).await;
    let zoe = world.user("zoe", &[(Role::Operator, None)]).await;
    let task = asked(world.stack.showing(&zoe), command(&["true"])).await;
    let waiting = task.waiting.clone().expect("it is said at once");
    assert_eq!(waiting.reason(), Reason::NotTheOwner);
    assert!(waiting.text.contains("takes only tasks of ada, whose it is"), "{}", waiting.text);
    assert_eq!(placed(store, epoch).await, 0);
    make::task(store).await;
    assert_eq!(placed(store, epoch).await, 1, "ada made the token that it joined with");
    let mut executors = v1::executors_client::ExecutorsClient::new(world.stack.showing(&zoe));
    let shown = v1::GetExecutorRequest { executor: "own".into() };
    let shown = executors.get_executor(shown).await.unwrap().into_inner().executor.unwrap();
    assert_eq!((shown.owner.as_str(), shown.unseparated.as_str()), ("ada", "bwrap is not installed"));
    assert!(!shown.separates && !shown.locked && shown.certified_until.is_some(), "{shown:?}");
    world.stack.stop().await;
}

#[tokio::test]
async fn whose_an_executor_is_it_does_not_say_itself() {
    let (store, _database) = harness::store().await;
    make::task(&store).await;
    let unknown = Introduction { separates: false, ..make::introduction("stray", 4) };
    let epoch = make::open(&store, unknown.clone()).await;
    assert_eq!(placed(&store, epoch).await, 0, "nobody knows whose it is");
    let epoch = make::open(&store, Introduction { separates: true, ..unknown.clone() }).await;
    assert_eq!(placed(&store, epoch).await, 1);
    make::task(&store).await;
    let by = harness::admin(&store).await;
    store.want_adoptions(by.may().unwrap(), request(), epoch.executor, BTreeSet::new()).await.unwrap();
    let epoch = make::open(&store, unknown).await;
    assert_eq!(placed(&store, epoch).await, 1, "ada has taken it on");
}

#[tokio::test]
async fn a_locked_executor_is_given_nothing() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await;
    make::task(&store).await;
    let epoch = joined(&store, "default", true).await;
    let target = || Target::Executor("own".into());
    store.lock(by.may().unwrap(), request(), target(), String::new(), None).await.unwrap();
    assert_eq!(placed(&store, epoch).await, 0);
    store.unlock(by.may().unwrap(), request(), target()).await.unwrap();
    assert_eq!(placed(&store, epoch).await, 1);
}

#[tokio::test]
async fn an_attempt_is_told_what_its_pool_allows_when_it_is_placed() {
    let (store, _database) = harness::store().await;
    let epoch = joined(&store, "default", true).await;
    let limits =
        Wish { network: "none", memory: Some(1 << 30), processes: Some(64), cpu: Some(1500), ..open("default") };
    let strict = Confinement { network: Network::None.into(), memory: 1 << 30, processes: 64, cpu: 1500 };
    let loose = Confinement { network: Network::Host.into(), ..Confinement::default() };
    for (wish, expected) in [(None, loose), (Some(limits), strict), (Some(open("default")), loose)] {
        if let Some(wish) = wish {
            set(&store, wish).await;
        }
        let task = make::task(&store).await;
        assert_eq!(placed(&store, epoch).await, 1);
        let sql = "SELECT s.body FROM attempt_specs s JOIN attempts a ON a.id = s.attempt_id WHERE a.task_id = $1";
        let mut conn = store.read().await.unwrap();
        let spec: Vec<u8> = sqlx::query_scalar(sql).bind(task.0).fetch_one(&mut *conn).await.unwrap();
        assert_eq!(AttemptSpec::decode(&spec[..]).unwrap().confinement, Some(expected));
    }
}

/// An attempt is placed there all the same: a limit keeps a host from harm, and its owner has let it run so.
#[tokio::test]
async fn limits_that_nothing_counts_are_said_of_the_executor_and_of_its_pool() {
    let world = super::World::new().await;
    let store = world.stack.store();
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let counted = |memory: &str, cpu: &str| {
        let lacking = if cpu.is_empty() { "it can make no cgroups" } else { "" };
        Some(Counters {
            memory: memory.into(),
            processes: "the attempt's account".into(),
            cpu: cpu.into(),
            lacking: lacking.into(),
        })
    };
    for (name, counters) in [
        ("counts", counted("cgroup v2", "cgroup v2")),
        ("counts-not", counted("", "")),
        ("counts-some", counted("cgroup v1", "")),
        ("says-nothing", None),
    ] {
        make::open(store, Introduction { counters, ..make::introduction(name, 4) }).await;
    }
    let mut executors = v1::executors_client::ExecutorsClient::new(world.stack.showing(&zoe));
    for (limits, expected) in [
        (open("default"), [vec![], vec![]]),
        (Wish { memory: Some(1 << 30), processes: Some(8), ..open("default") }, [vec!["memory"], vec![]]),
        (Wish { memory: Some(1 << 30), cpu: Some(500), ..open("default") }, [vec!["memory", "cpu"], vec!["cpu"]]),
    ] {
        set(store, limits).await;
        let all = executors.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner().executors;
        let of = |name: &str| all.iter().find(|executor| executor.name == name).unwrap();
        assert_eq!([&of("counts-not").unmet[..], &of("counts-some").unmet[..]], [&expected[0][..], &expected[1][..]]);
        assert!(of("counts").unmet.is_empty() && of("says-nothing").unmet.is_empty());
        let pools = executors.list_pools(v1::ListPoolsRequest {}).await.unwrap().into_inner().pools;
        let lacking = ["counts-not", "counts-some"].iter().zip(&expected);
        let lacking: Vec<_> = lacking.filter_map(|(name, unmet)| (!unmet.is_empty()).then_some(*name)).collect();
        assert_eq!(pools[0].unlimited, lacking);
    }
    let shown = v1::GetExecutorRequest { executor: "counts-not".into() };
    let shown = executors.get_executor(shown).await.unwrap().into_inner().executor.unwrap();
    assert_eq!(shown.separated_by, "account");
    assert_eq!(shown.counters.unwrap().lacking, "it can make no cgroups");
    world.stack.stop().await;
}

#[tokio::test]
async fn a_pool_that_somebody_is_in_or_may_come_into_is_not_forgotten() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await;
    let remove = |request: Request| store.remove_pool(by.may().unwrap(), request, "default".into());
    assert!(matches!(remove(request()).await, Err(PoolError::Unknown(_))));
    set(&store, Wish { users: vec!["ada".into()], ..open("default") }).await;
    let epoch = joined(&store, "default", true).await;
    match remove(request()).await {
        Err(PoolError::Inhabited { executors, .. }) => assert_eq!(executors, "own"),
        other => panic!("{other:?}"),
    }
    store.remove_executor(by.may().unwrap(), request(), epoch.executor, false).await.unwrap();
    let token = store.create_join_token(by.may().unwrap(), request(), invitation("default")).await.unwrap();
    assert!(matches!(remove(request()).await, Err(PoolError::Invited { .. })));
    store.revoke_join_token(by.may().unwrap(), request(), token.id.to_string()).await.unwrap();
    make::task(&store).await;
    let once = request();
    let removed = remove(once.clone()).await.unwrap().expect("as it was");
    assert_eq!((removed.users, removed.waiting), (vec!["ada".to_owned()], 1));
    assert!(remove(once).await.unwrap().is_none(), "again changes nothing");
    assert!(store.pools(&by.may().unwrap()).await.unwrap().is_empty());
}

/// Pools that join tokens or executors name.
async fn named(store: &Store) -> Vec<String> {
    let sql = "SELECT pool FROM join_tokens WHERE used < uses UNION SELECT pool FROM executors";
    sqlx::query_scalar(sql).fetch_all(&mut *store.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn nobody_is_invited_into_a_pool_while_it_is_removed() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await;
    let gate = "SELECT FROM pools FOR UPDATE";
    let remove = || {
        let (store, by) = (store.clone(), by.may().unwrap());
        async move { store.remove_pool(by, request(), "gpu".into()).await }
    };
    let invite = || {
        let (store, by) = (store.clone(), by.may().unwrap());
        async move { store.create_join_token(by, request(), invitation("gpu")).await }
    };
    set(&store, open("gpu")).await;
    let (removed, invited) = in_order(&store, gate, remove(), invite()).await;
    assert!(removed.expect("it is removed").is_some());
    assert!(matches!(invited, Err(JoinError::PoolRemoved(pool)) if pool == "gpu"));
    assert_eq!(named(&store).await, Vec::<String>::new());

    set(&store, open("gpu")).await;
    let (invited, removed) = in_order(&store, gate, invite(), remove()).await;
    invited.expect("it is made");
    assert!(matches!(removed, Err(PoolError::Invited { .. })));
    assert_eq!(named(&store).await, ["gpu"]);
    assert_eq!(store.pools(&by.may().unwrap()).await.unwrap().len(), 1, "with its rules");
}

#[tokio::test]
async fn nobody_joins_a_pool_while_it_is_removed() {
    let (store, _database) = harness::store().await;
    let by = harness::admin(&store).await;
    let gate = "SELECT FROM join_tokens FOR UPDATE";
    set(&store, open("gpu")).await;
    for joins_first in [true, false] {
        let new = invitation("gpu");
        store.create_join_token(by.may().unwrap(), request(), new.clone()).await.unwrap();
        let join = {
            let (store, join) = (store.clone(), machine(new.digest));
            async move { store.join(join).await }
        };
        let remove = {
            let (store, by) = (store.clone(), by.may().unwrap());
            async move { store.remove_pool(by, request(), "gpu".into()).await }
        };
        let (joined, removed) = if joins_first {
            in_order(&store, gate, join, remove).await
        } else {
            let (removed, joined) = in_order(&store, gate, remove, join).await;
            (joined, removed)
        };
        let joined = joined.expect("it joins");
        match removed {
            Err(PoolError::Inhabited { .. }) if joins_first => {}
            Err(PoolError::Invited { .. }) if !joins_first => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(named(&store).await, ["gpu"]);
        assert_eq!(store.pools(&by.may().unwrap()).await.unwrap()[0].executors, ["own"], "with its rules");
        store.remove_executor(by.may().unwrap(), request(), joined.executor, false).await.unwrap();
    }
}

//! Placement: who takes what, in which order, and why something waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use sculpt_core::{
    liveness::Liveness,
    placement::{AgentNeed, Candidate, Class, Misfit, Needs, Pool, Queued, Serves, Unwelcome, choose, place, why},
};
use uuid::Uuid;

use crate::states::start;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace().filter_map(|label| label.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

const WEB: Uuid = Uuid::from_u128(1);
const OPS: Uuid = Uuid::from_u128(2);

fn class(requirements: &str) -> Class {
    let needs = Needs { pool: "default".into(), requirements: labels(requirements), agent: AgentNeed::None };
    Class { needs, executor: None, project: Some(WEB), requester: "ada".into() }
}

/// Without labels, with this agent.
fn agent(agent: AgentNeed) -> Class {
    let class = class("");
    Class { needs: Needs { agent, ..class.needs }, ..class }
}

fn pool(projects: Option<&[Uuid]>, users: Option<&[&str]>) -> Pool {
    Pool {
        projects: projects.map(|projects| projects.iter().copied().collect()),
        users: users.map(|users| users.iter().map(ToString::to_string).collect()),
        ..Pool::open("default")
    }
}

fn executor(name: &str, slots: u32, used: u32) -> Candidate {
    Candidate {
        id: Uuid::from_u128(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte))),
        name: name.into(),
        pool: Pool::open("default").into(),
        serves: Serves::Everybody,
        closes_network: true,
        labels: labels("arch=amd64 os=linux"),
        agents: vec!["robot".into()],
        default_agent: None,
        slots,
        used,
        closed: None,
        liveness: Liveness::Connected,
    }
}

fn queue(classes: &[Class]) -> Vec<Queued> {
    let queued = |(task, class): (usize, &Class)| Queued { task: Uuid::from_u128(task as u128), class: class.clone() };
    classes.iter().enumerate().map(queued).collect()
}

fn label(key: &str, value: &str) -> Misfit {
    Misfit::Label { key: key.into(), value: value.into() }
}

#[test]
fn one_executor_and_its_answer() {
    let silent = Liveness::Unreachable { since: start() };
    let lost = Liveness::Lost { since: start() };
    let named = |name: &str| agent(AgentNeed::Named(name.into()));
    let default = agent(AgentNeed::Default);
    let gpu = Class { needs: Needs { pool: "gpu".into(), ..class("").needs }, ..class("") };
    let pinned = |name: &str| Class { executor: Some(executor(name, 0, 0).id), ..gpu.clone() };
    let free = || executor("a", 4, 0);
    let unreachable = Misfit::Unreachable { executor: "a".into() };
    let closed = |reason: &str| Misfit::Closed { executor: "a".into(), reason: reason.into() };
    let rows = [
        ("free", free(), class(""), Ok(())),
        ("the last slot", executor("a", 4, 3), class(""), Ok(())),
        ("full", executor("a", 4, 4), class(""), Err(Misfit::NoFreeSlot { slots: 4 })),
        ("over-full, by sessions that woke up", executor("a", 4, 9), class(""), Err(Misfit::NoFreeSlot { slots: 4 })),
        ("no slots at all", executor("a", 0, 0), class(""), Err(Misfit::NoFreeSlot { slots: 0 })),
        ("another pool", free(), gpu.clone(), Err(Misfit::Pool)),
        ("the one that is named, whatever its pool", free(), pinned("a"), Ok(())),
        ("another than is named", free(), pinned("b"), Err(Misfit::Elsewhere)),
        ("named and full", executor("a", 4, 4), pinned("a"), Err(Misfit::NoFreeSlot { slots: 4 })),
        ("named and silent", Candidate { liveness: silent, ..free() }, pinned("a"), Err(unreachable.clone())),
        (
            "named, but without the agent",
            free(),
            Class { executor: Some(free().id), ..named("other") },
            Err(Misfit::Agent),
        ),
        ("a label it has", free(), class("arch=amd64"), Ok(())),
        ("another value", free(), class("arch=arm64"), Err(label("arch", "arm64"))),
        ("a label it lacks", free(), class("arch=amd64 zone=b"), Err(label("zone", "b"))),
        ("its agent", free(), named("robot"), Ok(())),
        ("another agent", free(), named("other"), Err(Misfit::Agent)),
        ("no default agent", free(), default.clone(), Err(Misfit::Agent)),
        ("a default agent", Candidate { default_agent: Some("robot".into()), ..free() }, default, Ok(())),
        ("silent", Candidate { liveness: silent, ..free() }, class(""), Err(unreachable.clone())),
        ("lost", Candidate { liveness: lost, ..free() }, class(""), Err(unreachable)),
        ("closed", Candidate { closed: Some("draining".into()), ..free() }, class(""), Err(closed("draining"))),
    ];
    for (what, candidate, class, expected) in rows {
        assert_eq!(candidate.takes(&class), expected, "{what}");
        assert_eq!(choose(&class, std::slice::from_ref(&candidate)).is_some(), expected.is_ok(), "{what}");
        assert_eq!(why(&class, &[candidate]), expected.err(), "{what}");
    }
}

/// From far to near; of two executors the nearer one says why.
#[test]
fn the_nearest_miss_counts() {
    let needs = Needs { agent: AgentNeed::Named("robot".into()), ..class("arch=amd64 os=linux").needs };
    let wanted = Class { needs, ..class("") };
    let base = || executor("a", 1, 1);
    let ladder: Vec<(Candidate, Misfit)> = vec![
        (Candidate { pool: Pool::open("gpu").into(), ..base() }, Misfit::Pool),
        (
            Candidate { pool: pool(Some(&[OPS]), None).into(), ..base() },
            Misfit::Unwelcome(Unwelcome::Project { pool: "default".into() }),
        ),
        (Candidate { labels: labels(""), ..base() }, label("arch", "amd64")),
        (Candidate { labels: labels("arch=amd64"), ..base() }, label("os", "linux")),
        (Candidate { agents: vec![], ..base() }, Misfit::Agent),
        (Candidate { serves: Serves::Owner(None), ..base() }, Misfit::Owned { executor: "a".into(), owner: None }),
        (
            Candidate {
                pool: Pool { no_network: true, ..Pool::open("default") }.into(),
                closes_network: false,
                ..base()
            },
            Misfit::Network { executor: "a".into() },
        ),
        (
            Candidate { liveness: Liveness::Lost { since: start() }, ..base() },
            Misfit::Unreachable { executor: "a".into() },
        ),
        (
            Candidate { closed: Some("disk".into()), ..base() },
            Misfit::Closed { executor: "a".into(), reason: "disk".into() },
        ),
        (base(), Misfit::NoFreeSlot { slots: 1 }),
    ];
    assert_eq!(why(&wanted, &[]), Some(Misfit::NoExecutor));
    for (i, (near, expected)) in ladder.iter().enumerate() {
        for (far, _) in &ladder[..i] {
            for both in [[far.clone(), near.clone()], [near.clone(), far.clone()]] {
                assert_eq!(why(&wanted, &both).as_ref(), Some(expected));
            }
        }
    }
    assert_eq!(why(&wanted, &[base(), executor("b", 2, 1)]), None);
}

/// A pool's lists and an executor's owner, by project and requester.
#[test]
fn whose_tasks_run_where() {
    let project = || Err(Misfit::Unwelcome(Unwelcome::Project { pool: "default".into() }));
    let user =
        |name: &str| Err(Misfit::Unwelcome(Unwelcome::Requester { pool: "default".into(), requester: name.into() }));
    let owned = |owner: Option<&str>| Err(Misfit::Owned { executor: "a".into(), owner: owner.map(ToOwned::to_owned) });
    let everybody = || Serves::Everybody;
    let of = |owner: &str| Serves::Owner(Some(owner.into()));
    let none: &[Uuid] = &[];
    type Row = (&'static str, Pool, Serves, [Result<(), Misfit>; 4]);
    let rows: [Row; 9] = [
        // Of web by ada, of ops by ada, of web by bob, of no project by bob.
        ("no rules", pool(None, None), everybody(), [Ok(()), Ok(()), Ok(()), Ok(())]),
        ("one project", pool(Some(&[WEB]), None), everybody(), [Ok(()), project(), Ok(()), project()]),
        ("two projects", pool(Some(&[WEB, OPS]), None), everybody(), [Ok(()), Ok(()), Ok(()), project()]),
        ("no project at all", pool(Some(none), None), everybody(), [project(), project(), project(), project()]),
        ("one user", pool(None, Some(&["ada"])), everybody(), [Ok(()), Ok(()), user("bob"), user("bob")]),
        ("both", pool(Some(&[WEB]), Some(&["bob"])), everybody(), [user("ada"), project(), Ok(()), project()]),
        ("an owner", pool(None, None), of("ada"), [Ok(()), Ok(()), owned(Some("ada")), owned(Some("ada"))]),
        ("nobody's", pool(None, None), Serves::Owner(None), [owned(None), owned(None), owned(None), owned(None)]),
        ("both, and an owner", pool(Some(&[WEB]), None), of("bob"), [owned(Some("bob")), project(), Ok(()), project()]),
    ];
    for (what, pool, serves, expected) in rows {
        let candidate = Candidate { pool: Arc::new(pool), serves, ..executor("a", 4, 0) };
        let askers = [(Some(WEB), "ada"), (Some(OPS), "ada"), (Some(WEB), "bob"), (None, "bob")];
        for ((project, requester), expected) in askers.into_iter().zip(expected) {
            let class = Class { project, requester: requester.into(), ..class("") };
            assert_eq!(candidate.takes(&class), expected, "{what}: {requester} in {project:?}");
            // Who goes on where they were is asked the same.
            let pinned = Class { executor: Some(candidate.id), ..class };
            assert_eq!(candidate.takes(&pinned), expected, "{what}: {requester} in {project:?}, pinned");
        }
    }
}

#[test]
fn a_pool_without_network_needs_executors_that_can_close_it() {
    let closed = Arc::new(Pool { no_network: true, ..Pool::open("default") });
    let open = Candidate { pool: Arc::clone(&closed), closes_network: false, ..executor("a", 4, 0) };
    assert_eq!(open.takes(&class("")), Err(Misfit::Network { executor: "a".into() }));
    let both = [open, Candidate { pool: closed, ..executor("b", 1, 0) }];
    assert_eq!(choose(&class(""), &both).map(|chosen| chosen.name.as_str()), Some("b"));
}

/// The other tasks of a queue go where they may.
#[test]
fn who_may_not_be_there_blocks_nobody() {
    let own = Candidate { serves: Serves::Owner(Some("bob".into())), ..executor("a", 2, 0) };
    let bobs = Class { requester: "bob".into(), ..class("") };
    let placed = place(&queue(&[class(""), bobs.clone(), class(""), bobs]), &mut [own.clone()]);
    assert_eq!(placed, [(Uuid::from_u128(1), own.id), (Uuid::from_u128(3), own.id)]);
}

/// However near the others are, only the one that is named says why.
#[test]
fn who_is_named_says_why() {
    let class = Class { executor: Some(executor("b", 1, 0).id), ..class("") };
    let closed = Candidate { closed: Some("drained".into()), ..executor("b", 1, 0) };
    let reason = Misfit::Closed { executor: "b".into(), reason: "drained".into() };
    assert_eq!(why(&class, &[executor("a", 4, 0), closed.clone(), executor("c", 4, 4)]), Some(reason));
    assert_eq!(why(&class, &[executor("a", 4, 0)]), Some(Misfit::Elsewhere));
    let both = [executor("a", 4, 0), executor("b", 1, 0)];
    assert_eq!(choose(&class, &both).map(|chosen| chosen.name.as_str()), Some("b"));
    assert_eq!(place(&queue(&[class]), &mut [executor("a", 4, 0), closed]), []);
}

#[test]
fn full_executors_add_up_their_slots() {
    let full =
        [executor("a", 2, 2), Candidate { pool: Pool::open("gpu").into(), ..executor("g", 8, 0) }, executor("b", 3, 3)];
    assert_eq!(why(&class(""), &full), Some(Misfit::NoFreeSlot { slots: 5 }));
    let endless = [executor("a", u32::MAX, u32::MAX), executor("b", u32::MAX, u32::MAX)];
    assert_eq!(why(&class(""), &endless), Some(Misfit::NoFreeSlot { slots: u32::MAX }));
}

#[test]
fn the_emptiest_takes_it_and_names_decide_among_equals() {
    let chosen = |candidates: &[Candidate]| choose(&class(""), candidates).map(|candidate| candidate.name.clone());
    assert_eq!(chosen(&[executor("a", 4, 3), executor("b", 4, 1)]), Some("b".into()));
    assert_eq!(chosen(&[executor("b", 2, 0), executor("a", 4, 2)]), Some("a".into()));
    assert_eq!(chosen(&[executor("a", 1, 1)]), None);
}

#[test]
fn work_is_spread_and_slots_are_used_up() {
    let mut candidates = [executor("a", 2, 0), executor("b", 2, 0)];
    let placed = place(&queue(&vec![class(""); 6]), &mut candidates);
    let names: Vec<&str> = placed
        .iter()
        .map(|(_, id)| candidates.iter().find(|candidate| candidate.id == *id).unwrap().name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "a", "b"]);
    assert_eq!(candidates.map(|candidate| candidate.free()), [0, 0]);
}

#[test]
fn what_cannot_be_placed_blocks_nobody() {
    let mut candidates = [executor("a", 1, 0)];
    let placed = place(&queue(&[class("gpu=yes"), class("zone=x"), class("arch=amd64")]), &mut candidates);
    assert_eq!(placed, [(Uuid::from_u128(2), candidates[0].id)]);
}

fn any_class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(""), Just("arch=amd64"), Just("zone=b"), Just("gpu=yes")].prop_map(class)
}

fn any_candidate() -> impl Strategy<Value = (u32, u32, bool, bool)> {
    (0..5_u32, 0..5_u32, any::<bool>(), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_slot_is_given_twice_and_none_is_kept_back(
        classes in vec(any_class(), 0..30),
        fleet in vec(any_candidate(), 0..6),
    ) {
        let mut candidates: Vec<Candidate> = fleet.iter().enumerate().map(|(i, (slots, used, zone, closed))| Candidate {
            labels: labels(if *zone { "arch=amd64 zone=b" } else { "arch=amd64" }),
            closed: closed.then(|| "draining".into()),
            ..executor(&format!("e{i}"), *slots, *used)
        }).collect();
        let before = candidates.clone();
        let queue = queue(&classes);
        let placed = place(&queue, &mut candidates);
        let mut given: HashMap<Uuid, u32> = HashMap::new();
        for (task, executor) in &placed {
            *given.entry(*executor).or_default() += 1;
            let queued = queue.iter().find(|queued| queued.task == *task).unwrap();
            let candidate = before.iter().find(|candidate| candidate.id == *executor).unwrap();
            prop_assert_eq!(candidate.takes(&queued.class), Ok(()));
        }
        for (old, new) in before.iter().zip(&candidates) {
            let given = given.get(&old.id).copied().unwrap_or_default();
            prop_assert!(given <= old.free());
            prop_assert_eq!(new.used, old.used + given);
        }
        // Whoever was passed over fits nowhere, also at the end; and the queue's order is kept.
        let order: Vec<Uuid> = placed.iter().map(|(task, _)| *task).collect();
        prop_assert!(order.is_sorted());
        for queued in queue.iter().filter(|queued| !order.contains(&queued.task)) {
            prop_assert!(why(&queued.class, &candidates).is_some());
        }
        // Equal needs are served by age.
        for (i, queued) in queue.iter().enumerate() {
            let later = queue[i..].iter().filter(|other| other.class == queued.class);
            let served = order.contains(&queued.task);
            prop_assert!(served || later.into_iter().all(|other| !order.contains(&other.task)));
        }
    }
}

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const ROOMY: Space = Space { used: 0, budget: 1_000 };

fn id(n: u128) -> AttemptId {
    AttemptId(uuid::Uuid::from_u128(n))
}

/// Released so long ago, with a workspace of 100 bytes and a record of 10.
fn attempt(n: u128, standing: Standing) -> Attempt {
    Attempt {
        id: id(n),
        task_number: 17,
        number: 1,
        standing,
        hold: None,
        log_complete: true,
        workspace: Some(100),
        record: 10,
        pack: None,
    }
}

fn released(n: u128, age: Duration) -> Attempt {
    attempt(n, Standing::Released(age))
}

fn planned(attempts: &[Attempt], space: Space, occasion: Occasion) -> Vec<Decision> {
    plan(&Inventory { attempts: attempts.to_vec(), loose: Vec::new() }, DAY, space, occasion)
}

fn gone(decisions: &[Decision]) -> Vec<Subject> {
    decisions.iter().filter(|decision| decision.removes()).map(|decision| decision.subject.clone()).collect()
}

#[test]
fn age_alone_decides_while_there_is_room() {
    use Occasion::{Asked, AskedForAll, Sweep};
    let (workspace, record) = (Subject::Workspace(id(1)), Subject::Record(id(1)));
    let both = vec![workspace.clone(), record.clone()];
    for (age, log_complete, occasion, expected) in [
        (Duration::ZERO, true, Sweep, vec![]),
        (DAY - HOUR, true, Sweep, vec![]),
        (DAY - HOUR, true, Asked, vec![]),
        (DAY, true, Sweep, both.clone()),
        (DAY, false, Sweep, both.clone()),
        (Duration::ZERO, true, AskedForAll, vec![workspace.clone()]),
        (HOUR, true, AskedForAll, both.clone()),
        (HOUR, false, AskedForAll, vec![workspace.clone()]),
    ] {
        let attempts = [Attempt { log_complete, ..released(1, age) }];
        assert_eq!(gone(&planned(&attempts, ROOMY, occasion)), expected, "{age:?} {log_complete} {occasion:?}");
    }
}

#[test]
fn nothing_that_somebody_needs_goes_for_any_reason() {
    let over = Space { used: 1_000, budget: 1_000 };
    let holds = [Hold::Attached, Hold::Marked("why".into()), Hold::Unpublished, Hold::Wanted];
    let held = holds.into_iter().map(|hold| Attempt { hold: Some(hold), ..released(1, DAY * 400) });
    let needed = [attempt(2, Standing::AtWork), attempt(3, Standing::Owed)];
    for attempt in held.chain(needed) {
        for occasion in [Occasion::Sweep, Occasion::Asked, Occasion::AskedForAll] {
            assert_eq!(gone(&planned(std::slice::from_ref(&attempt), over, occasion)), [], "{attempt:?} {occasion:?}");
        }
    }
}

#[test]
fn a_record_outlives_its_workspace() {
    let inventory = Inventory { attempts: vec![released(1, DAY * 2)], loose: Vec::new() };
    let decisions = plan(&inventory, DAY * 7, ROOMY, Occasion::Sweep);
    assert_eq!(gone(&decisions), []);
    assert_eq!(decisions[1].verdict, Verdict::Keep(Kept::WithWorkspace));
    let alone = Attempt { workspace: None, ..released(1, DAY * 2) };
    assert_eq!(gone(&planned(&[alone], ROOMY, Occasion::Sweep)), [Subject::Record(id(1))]);
}

#[test]
fn room_is_made_from_78_to_70_percent_oldest_first_and_no_further() {
    let attempts = [released(1, HOUR * 2), released(2, HOUR * 3), released(3, Duration::ZERO)];
    let workspace = |n| Subject::Workspace(id(n));
    let record = |n| Subject::Record(id(n));
    for (used, expected) in [
        (779, vec![]),
        (780, vec![workspace(2)]),
        (800, vec![workspace(2)]),
        (801, vec![workspace(2), workspace(1)]),
        (1000, vec![workspace(2), workspace(1), workspace(3)]),
        // Records go last, and none before its hour.
        (1001, vec![workspace(2), workspace(1), workspace(3), record(2)]),
        (2000, vec![workspace(2), workspace(1), workspace(3), record(2), record(1)]),
    ] {
        let space = Space { used, budget: 1_000 };
        assert_eq!(gone(&planned(&attempts, space, Occasion::Sweep)), expected, "{used}");
    }
}

#[test]
fn what_goes_by_its_age_counts_as_room() {
    let attempts = [released(1, DAY), released(2, HOUR)];
    let space = Space { used: 800, budget: 1_000 };
    assert_eq!(gone(&planned(&attempts, space, Occasion::Sweep)), [Subject::Workspace(id(1)), Subject::Record(id(1))]);
}

#[test]
fn a_log_that_the_controller_may_not_hold_is_kept_for_its_day() {
    let space = Space { used: 2_000, budget: 1_000 };
    let attempts = [Attempt { log_complete: false, ..released(1, HOUR * 20) }];
    assert_eq!(gone(&planned(&attempts, space, Occasion::Sweep)), [Subject::Workspace(id(1))]);
}

#[test]
fn a_person_may_give_up_a_young_record_that_the_controller_holds_when_room_is_needed() {
    let over = Space { used: 1_000, budget: 1_000 };
    let (workspace, record) = (Subject::Workspace(id(1)), Subject::Record(id(1)));
    for (space, log_complete, occasion, goes) in [
        (over, true, Occasion::AskedForAll, true),
        (ROOMY, true, Occasion::AskedForAll, false),
        (over, false, Occasion::AskedForAll, false),
        (over, true, Occasion::Asked, false),
        (over, true, Occasion::Sweep, false),
    ] {
        let attempts = [Attempt { log_complete, ..released(1, Duration::ZERO) }];
        let gone = gone(&planned(&attempts, space, occasion));
        assert_eq!(gone.contains(&record), goes, "{space:?} {log_complete} {occasion:?}");
        assert!(!goes || gone.contains(&workspace), "a record outlives its workspace");
    }
}

#[test]
fn what_was_put_aside_goes_when_it_is_old_and_somebody_wants_it_gone() {
    use Occasion::{Asked, AskedForAll, Sweep};
    let over = Space { used: 1_000, budget: 1_000 };
    for (origin, space, occasion, goes) in [
        (Origin::Aside(ASIDE), ROOMY, Sweep, false),
        (Origin::Aside(ASIDE), ROOMY, Asked, true),
        (Origin::Aside(ASIDE), over, Sweep, true),
        (Origin::Aside(ASIDE - HOUR), over, Sweep, false),
        (Origin::Aside(ASIDE - HOUR), over, AskedForAll, false),
        (Origin::Stray, over, AskedForAll, false),
        (Origin::Home, ROOMY, Sweep, true),
    ] {
        let loose = Loose { path: "quarantine/x".into(), bytes: 1, origin };
        let inventory = Inventory { attempts: Vec::new(), loose: vec![loose] };
        let decisions = plan(&inventory, DAY, space, occasion);
        assert_eq!(decisions[0].removes(), goes, "{origin:?} {space:?} {occasion:?}");
    }
}

#[test]
fn every_decision_says_why() {
    let young = Verdict::Keep(Kept::Young(HOUR * 23 + Duration::from_secs(1)));
    assert_eq!(young.to_string(), "kept for 23h 1m more, as long as there is room");
    let marked = Verdict::Keep(Kept::Held(Hold::Marked("its recording is damaged".into())));
    assert_eq!(marked.to_string(), "marked to be kept: its recording is damaged");
}

#[test]
fn what_the_controller_has_not_confirmed_in_this_session_is_held_and_says_why() {
    let over = Space { used: 1_000, budget: 1_000 };
    for (connected, expected) in [(true, "sculpt executor adopt"), (false, "the controller is away")] {
        for occasion in [Occasion::Sweep, Occasion::Asked, Occasion::AskedForAll] {
            let decisions = planned(&[attempt(1, Standing::Unconfirmed { connected })], over, occasion);
            assert_eq!(gone(&decisions), []);
            assert!(decisions.iter().all(|decision| decision.verdict.to_string().contains(expected)));
        }
    }
}

#[test]
fn what_was_published_outlives_its_workspace_and_goes_alone_only_for_room() {
    let full = |used| Space { used, budget: 1_000 };
    let with_pack = |n, age| Attempt { pack: Some(4), log_complete: false, ..released(n, age) };
    let (workspace, pack) = (Subject::Workspace(id(1)), Subject::Pack(id(1)));
    let young = [with_pack(1, HOUR)];
    assert_eq!(
        gone(&planned(&young, ROOMY, Occasion::AskedForAll)),
        std::slice::from_ref(&workspace),
        "a person asks for the workspace"
    );
    assert_eq!(
        gone(&planned(&young, full(790), Occasion::Sweep)),
        std::slice::from_ref(&workspace),
        "which made room enough"
    );
    assert_eq!(gone(&planned(&young, full(900), Occasion::Sweep)), [workspace, pack.clone()]);
    let held = [Attempt { hold: Some(Hold::Unpublished), ..with_pack(1, HOUR) }];
    assert_eq!(gone(&planned(&held, full(900), Occasion::Sweep)), []);
    let alone = [Attempt { workspace: None, ..with_pack(1, HOUR) }];
    let decisions = planned(&alone, full(900), Occasion::Sweep);
    assert_eq!(gone(&decisions), [pack]);
    assert_eq!(decisions.iter().map(|decision| decision.bytes).sum::<u64>(), 10, "nothing is counted twice");
    let old = [Attempt { workspace: None, ..with_pack(1, DAY) }];
    assert_eq!(gone(&planned(&old, full(900), Occasion::Sweep)), [Subject::Record(id(1))], "it goes with its record");
}

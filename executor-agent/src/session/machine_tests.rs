use uuid::Uuid;

use super::*;

#[path = "machine_lossy.rs"]
mod lossy;

fn id(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

fn cluster(number: u128) -> ClusterId {
    ClusterId(Uuid::from_u128(number))
}

fn wanted(attempt: AttemptId, wish: Wish) -> Wanted {
    Wanted { attempt, digest: vec![7], wish }
}

fn delta(attempts: Vec<Wanted>) -> Input {
    Input::Desired { full: false, last: true, attempts, released: vec![] }
}

fn welcomed() -> Machine {
    let mut machine = Machine::default();
    assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe]);
    machine
}

fn present(attempt: AttemptId, last: u64) -> Input {
    Input::Present { attempt, cluster: cluster(1), last, released: false }
}

#[test]
fn a_wish_only_grows_stricter_except_that_a_hold_is_lifted() {
    use Wish::{Fence, Hold, Run, Stop};
    let table = [
        (Run, [Run, Hold, Stop, Fence]),
        (Hold, [Run, Hold, Stop, Fence]),
        (Stop, [Stop, Stop, Stop, Fence]),
        (Fence, [Fence, Fence, Fence, Fence]),
    ];
    for (before, after) in table {
        for (new, expected) in [Run, Hold, Stop, Fence].into_iter().zip(after) {
            assert_eq!(before.follow(new), expected, "{before:?} then {new:?}");
        }
    }
}

#[test]
fn what_is_wanted_is_started_once_and_wishes_are_handed_on() {
    let mut machine = welcomed();
    let start = wanted(id(1), Wish::Run);
    assert_eq!(machine.apply(delta(vec![start.clone()])), [Effect::Start(start.clone())]);
    assert_eq!(machine.apply(delta(vec![start.clone()])), []);
    assert_eq!(machine.apply(delta(vec![wanted(id(1), Wish::Stop)])), [Effect::Wish(id(1), Wish::Stop)]);
    assert_eq!(machine.apply(delta(vec![start])), []);
    assert_eq!(machine.wish(id(1)), Some(Wish::Stop));
}

#[test]
fn what_is_taken_over_owes_everything_from_the_beginning() {
    let foreign = |released| Input::Present { attempt: id(1), cluster: cluster(9), last: 3, released };
    let everything = Effect::Report { attempt: id(1), from: 1, through: 3 };
    let handed_in = |by| Input::HandedIn { attempt: id(1), cluster: by };
    for released in [false, true] {
        let mut machine = welcomed();
        machine.apply(foreign(released));
        machine.apply(Input::Acked { attempt: id(1), through: 0, refusal: Some(Refusal::Unknown) });
        assert_eq!(machine.apply(Input::Adopt(vec![id(1), id(2)])), [Effect::HandIn(vec![id(1)])], "only what is here");
        assert_eq!(machine.apply(Input::Adopt(vec![id(1)])), [], "it is being handed in");
        assert_eq!(machine.apply(handed_in(None)), []);
        assert_eq!(machine.apply(Input::Adopt(vec![id(1)])), [Effect::HandIn(vec![id(1)])], "it is asked for again");
        assert_eq!(machine.apply(handed_in(Some(cluster(1)))), std::slice::from_ref(&everything));
        assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 4 }).len(), 1, "it goes on");
    }
}

#[test]
fn a_fence_counts_in_the_name_of_whoever_has_it_now() {
    let fence = || delta(vec![wanted(id(1), Wish::Fence)]);
    let refused = || Input::Acked { attempt: id(1), through: 0, refusal: Some(Refusal::Fenced) };
    let mut machine = welcomed();
    machine.apply(Input::Present { attempt: id(1), cluster: cluster(9), last: 3, released: false });
    for before in [fence(), refused()] {
        assert!(matches!(machine.apply(before).as_slice(), [Effect::Warn(..)]));
    }
    machine.apply(Input::HandedIn { attempt: id(1), cluster: Some(cluster(1)) });
    assert_eq!(machine.wish(id(1)), Some(Wish::Run), "what was said before does not count");
    assert_eq!(machine.apply(fence()), [Effect::Wish(id(1), Wish::Fence)]);
    // And no longer in the name of the one that minted it.
    let mut machine = Machine::default();
    machine.apply(Input::Present { attempt: id(1), cluster: cluster(1), last: 3, released: false });
    machine.apply(Input::Welcomed { cluster: cluster(9) });
    assert!(matches!(machine.apply(fence()).as_slice(), [Effect::Warn(..)]));
}

#[test]
fn an_attempt_in_no_desired_is_left_alone() {
    let mut machine = Machine::default();
    machine.apply(present(id(1), 3));
    machine.apply(Input::Welcomed { cluster: cluster(1) });
    let full = Input::Desired { full: true, last: true, attempts: vec![], released: vec![] };
    assert_eq!(machine.apply(full), [Effect::Ready]);
    assert_eq!(machine.wish(id(1)), Some(Wish::Run));
}

#[test]
fn what_has_not_begun_is_abandoned_when_a_full_set_leaves_it_out() {
    let mut machine = welcomed();
    machine.apply(delta(vec![wanted(id(1), Wish::Run), wanted(id(2), Wish::Run)]));
    let piece = |full, last, attempt| Input::Desired {
        full,
        last,
        attempts: vec![wanted(attempt, Wish::Run)],
        released: vec![],
    };
    assert_eq!(machine.apply(piece(true, false, id(1))), []);
    let start = Effect::Start(wanted(id(3), Wish::Run));
    assert_eq!(machine.apply(piece(false, true, id(3))), [start, Effect::Abandon(id(2)), Effect::Ready]);
}

#[test]
fn only_the_cluster_that_minted_it_can_fence_an_attempt() {
    let mut machine = Machine::default();
    machine.apply(Input::Present { attempt: id(1), cluster: cluster(2), last: 1, released: false });
    machine.apply(Input::Present { attempt: id(2), cluster: cluster(1), last: 1, released: false });
    machine.apply(Input::Welcomed { cluster: cluster(1) });
    for attempt in [id(1), id(2)] {
        machine.apply(delta(vec![wanted(attempt, Wish::Fence)]));
        machine.apply(Input::Acked { attempt, through: 0, refusal: Some(Refusal::Fenced) });
    }
    assert_eq!(machine.wish(id(1)), Some(Wish::Run));
    assert_eq!(machine.wish(id(2)), Some(Wish::Fence));
}

#[test]
fn reports_wait_for_a_session_and_are_sent_again_in_the_next() {
    let mut machine = Machine::default();
    assert_eq!(machine.apply(present(id(1), 2)), []);
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 3 }), []);
    let report = |from, through| Effect::Report { attempt: id(1), from, through };
    assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe, report(1, 3)]);
    machine.apply(Input::Acked { attempt: id(1), through: 2, refusal: None });
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 4 }), [report(4, 4)]);
    machine.apply(Input::Lost);
    assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe, report(3, 4)]);
    machine.apply(Input::Acked { attempt: id(1), through: 4, refusal: None });
    assert!(machine.settled(id(1)));
}

#[test]
fn every_refusal_has_its_answer() {
    let report = |from, through| Effect::Report { attempt: id(1), from, through };
    let refused = |refusal| Input::Acked { attempt: id(1), through: 1, refusal: Some(refusal) };
    let fresh = || {
        let mut machine = Machine::default();
        machine.apply(present(id(1), 3));
        machine.apply(Input::Welcomed { cluster: cluster(1) });
        machine
    };
    let mut machine = fresh();
    assert_eq!(machine.apply(refused(Refusal::Gap)), [report(2, 3)]);
    assert_eq!(machine.apply(refused(Refusal::Gap)), [], "the same gap again would go on for ever");
    let mut machine = fresh();
    assert!(matches!(machine.apply(refused(Refusal::Unknown))[..], [Effect::Warn(..)]));
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 4 }), []);
    assert_eq!(machine.wish(id(1)), Some(Wish::Run), "it goes on");
    assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe, report(1, 4)]);
    let mut machine = fresh();
    assert!(matches!(machine.apply(refused(Refusal::Illegal))[..], [Effect::Warn(..)]));
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 4 }), [report(4, 4)], "it was consumed");
    assert!(matches!(machine.apply(refused(Refusal::Illegal))[..], [Effect::Warn(..)]));
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 5 }), [], "it was not, so the rest waits");
    assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe, report(2, 5)]);
    assert_eq!(fresh().apply(refused(Refusal::Fenced)), [Effect::Wish(id(1), Wish::Fence)]);
}

#[test]
fn what_the_controller_has_lost_is_published_again_once_a_session_before_the_end_is_told_again() {
    let refused = || Input::Acked { attempt: id(1), through: 4, refusal: Some(Refusal::Illegal) };
    let report = Effect::Report { attempt: id(1), from: 5, through: 5 };
    let mut machine = welcomed();
    machine.apply(present(id(1), 5));
    machine.apply(Input::Acked { attempt: id(1), through: 4, refusal: None });
    for _session in 0..2 {
        let effects = machine.apply(refused());
        assert!(matches!(effects[..], [Effect::Warn(..), Effect::PublishAgain(_)]));
        assert!(!machine.settled(id(1)));
        assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 5 }), [], "not before");
        assert_eq!(machine.apply(Input::PublishedAgain(id(1))), std::slice::from_ref(&report));
        assert!(matches!(machine.apply(refused())[..], [Effect::Warn(..)]), "it was not that");
        machine.apply(Input::Lost);
        assert_eq!(machine.apply(Input::Welcomed { cluster: cluster(1) }), [Effect::Observe, report.clone()]);
    }
    machine.apply(Input::Acked { attempt: id(1), through: 5, refusal: None });
    assert!(machine.settled(id(1)));
}

#[test]
fn the_end_of_a_fenced_attempt_is_told_in_the_same_session() {
    let mut machine = welcomed();
    machine.apply(present(id(1), 3));
    let fenced = |through| Input::Acked { attempt: id(1), through, refusal: Some(Refusal::Fenced) };
    assert_eq!(machine.apply(fenced(1)), [Effect::Wish(id(1), Wish::Fence)]);
    assert_eq!(machine.apply(fenced(3)), []);
    let ended = Effect::Report { attempt: id(1), from: 4, through: 4 };
    assert_eq!(machine.apply(Input::Recorded { attempt: id(1), sequence: 4 }), [ended]);
    assert_eq!(machine.apply(fenced(4)), []);
    assert!(machine.settled(id(1)));
}

#[test]
fn what_is_released_is_not_reported_until_it_is_wanted_again() {
    let mut machine = Machine::default();
    machine.apply(present(id(1), 3));
    machine.apply(Input::Welcomed { cluster: cluster(1) });
    machine.apply(Input::Acked { attempt: id(1), through: 3, refusal: None });
    let released = Input::Desired { full: false, last: true, attempts: vec![], released: vec![id(1), id(9)] };
    assert_eq!(machine.apply(released.clone()), [Effect::Release(id(1))]);
    assert_eq!(machine.apply(released), [Effect::Release(id(1))], "the note may not have been written");
    assert_eq!(
        machine.apply(delta(vec![wanted(id(1), Wish::Run)])),
        [Effect::Unrelease(id(1)), Effect::Report { attempt: id(1), from: 1, through: 3 }]
    );
}

#[test]
fn a_broken_log_is_told_when_everything_else_is_committed() {
    let mut machine = Machine::default();
    machine.apply(present(id(1), 3));
    assert_eq!(machine.apply(Input::Broken(id(1))), [], "nobody is there to be told");
    machine.apply(Input::Welcomed { cluster: cluster(1) });
    let acked = |through| Input::Acked { attempt: id(1), through, refusal: None };
    assert_eq!(machine.apply(acked(2)), []);
    assert_eq!(machine.apply(acked(3)), [Effect::Observe]);
    assert_eq!(machine.apply(acked(3)), []);
    assert_eq!(machine.apply(Input::Broken(id(1))), [Effect::Observe], "it was found to be worse");
    assert_eq!(machine.apply(Input::Delivered(id(1))), [Effect::Observe], "what can be read has arrived");
    machine.apply(Input::Recorded { attempt: id(1), sequence: 4 });
    assert_eq!(machine.apply(Input::Delivered(id(1))), [], "its reports come first");
}

#[test]
fn what_is_damaged_is_neither_started_nor_given_up_and_can_be_ended() {
    let mut machine = welcomed();
    let damaged = |over| Input::Damaged { attempt: id(1), cluster: None, over };
    assert_eq!(machine.apply(damaged(false)), []);
    let nothing = Input::Desired { full: true, last: true, attempts: vec![], released: vec![] };
    assert_eq!(machine.apply(nothing), [Effect::Ready]);
    assert_eq!(machine.apply(delta(vec![wanted(id(1), Wish::Run)])), []);
    let fence = delta(vec![wanted(id(1), Wish::Fence)]);
    assert_eq!(machine.apply(fence), [Effect::Wish(id(1), Wish::Fence)]);
    assert_eq!(machine.apply(damaged(true)), [Effect::Observe]);
    assert!(machine.settled(id(1)), "nothing is reported of it");
    let released = Input::Desired { full: false, last: true, attempts: vec![], released: vec![id(1)] };
    assert_eq!(machine.apply(released), [Effect::Release(id(1))]);
}

#[test]
fn an_acknowledgement_beyond_the_journal_is_cut_to_it() {
    let mut machine = Machine::default();
    machine.apply(present(id(1), 1));
    machine.apply(Input::Welcomed { cluster: cluster(1) });
    machine.apply(Input::Acked { attempt: id(1), through: 99, refusal: None });
    let next = machine.apply(Input::Recorded { attempt: id(1), sequence: 2 });
    assert_eq!(next, [Effect::Report { attempt: id(1), from: 2, through: 2 }]);
}

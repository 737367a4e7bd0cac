use proptest::prelude::*;
use sculpt_proto::id::TaskId;
use uuid::Uuid;

use super::*;
use crate::store::sessions::Said;

type In = Input<u32, u32>;
type Out = Output<u32, u32>;

const START: Duration = Duration::ZERO;

fn attempt(n: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(n))
}

fn wish(phase: Phase, may_begin: bool) -> Wish {
    Wish {
        task: TaskId(Uuid::nil()),
        task_number: 1,
        number: 1,
        digest: vec![7],
        phase,
        said: Said::default(),
        may_begin,
    }
}

fn seen(n: u128) -> Observed {
    Observed { attempt: attempt(n), cluster: None, ended: false, reports: 0, unreadable: None }
}

fn full(attempts: Vec<(AttemptId, Wish)>) -> Out {
    Out::Desired { full: true, last: true, attempts, released: vec![] }
}

fn delta(attempts: Vec<(AttemptId, Wish)>, released: Vec<AttemptId>) -> Out {
    Out::Desired { full: false, last: true, attempts, released }
}

/// A session whose first, empty set was sent.
fn settled() -> Session {
    let mut session = Session::new();
    session.step::<u32, u32>(START, In::Observed { attempts: vec![], last: true });
    session.step::<u32, u32>(START, In::Reconciled { released: vec![], owed: vec![], behind: vec![] });
    assert_eq!(session.step(START, In::Wishes(BTreeMap::new())), vec![full(vec![])]);
    session
}

#[test]
fn nothing_is_desired_before_the_executor_said_what_it_has() {
    let mut session = Session::new();
    assert_eq!(session.step(START, In::Told), Vec::<Out>::new());
    assert_eq!(session.step(POLL, In::Tick), Vec::<Out>::new());
    assert_eq!(session.step(START, In::Observed { attempts: vec![seen(1)], last: false }), Vec::<Out>::new());
    let census = Census::from([(attempt(1), seen(1)), (attempt(2), seen(2))]);
    let output = session.step(START, In::Observed { attempts: vec![seen(2)], last: true });
    assert_eq!(output, vec![Out::Reconcile(census)]);
    assert_eq!(session.step(START, In::Told), Vec::<Out>::new());
    assert_eq!(
        session.step(START, In::Reconciled { released: vec![attempt(2)], owed: vec![attempt(1)], behind: vec![] }),
        vec![Out::Read]
    );
    let run = wish(Phase::Run, false);
    let expected =
        Out::Desired { full: true, last: false, attempts: vec![(attempt(1), run.clone())], released: vec![] };
    let released = Out::Desired { full: false, last: true, attempts: vec![], released: vec![attempt(2)] };
    let output = session.step(START, In::Wishes(BTreeMap::from([(attempt(1), run)])));
    assert_eq!(output, vec![expected, released]);
}

#[test]
fn what_was_released_before_it_was_ever_told_is_released() {
    let mut session = Session::new();
    session.step::<u32, u32>(START, In::Observed { attempts: vec![seen(1)], last: true });
    session.step::<u32, u32>(START, In::Reconciled { released: vec![], owed: vec![attempt(1)], behind: vec![] });
    // Between the census and the first reading its last report and the rest of its log were committed.
    let released = Out::Desired { full: true, last: true, attempts: vec![], released: vec![attempt(1)] };
    assert_eq!(session.step(START, In::Wishes(BTreeMap::new())), vec![released]);
}

#[test]
fn what_was_reported_while_a_census_was_gathered_counts_as_had() {
    let mut session = Session::new();
    session.step::<u32, u32>(START, In::Observed { attempts: vec![seen(1)], last: false });
    assert_eq!(session.step(START, In::Report { attempt: attempt(9), report: 5 }), vec![Out::Apply(5)]);
    let output = session.step::<u32, u32>(START, In::Observed { attempts: vec![], last: true });
    let [Out::Reconcile(census)] = output.as_slice() else { panic!("{output:?}") };
    assert!(census.contains_key(&attempt(9)));
}

#[test]
fn only_differences_are_sent() {
    let mut session = settled();
    let wishes = |phase| In::Wishes(BTreeMap::from([(attempt(1), wish(phase, true))]));
    for (input, expected) in [
        (wishes(Phase::Run), vec![delta(vec![(attempt(1), wish(Phase::Run, true))], vec![])]),
        (wishes(Phase::Run), vec![]),
        (In::Wishes(BTreeMap::from([(attempt(1), wish(Phase::Run, false))])), vec![]),
        (wishes(Phase::Stop), vec![delta(vec![(attempt(1), wish(Phase::Stop, true))], vec![])]),
        (In::Wishes(BTreeMap::new()), vec![delta(vec![], vec![attempt(1)])]),
        (In::Wishes(BTreeMap::new()), vec![]),
    ] {
        session.step::<u32, u32>(START, In::Told);
        assert_eq!(session.step(START, input), expected);
    }
}

#[test]
fn an_executor_is_not_asked_to_end_or_begin_what_it_never_had() {
    let mut session = settled();
    let wishes = BTreeMap::from([
        (attempt(1), wish(Phase::Fence, false)),
        (attempt(2), wish(Phase::Run, false)),
        (attempt(3), wish(Phase::Fence, true)),
    ]);
    assert_eq!(session.step(START, In::Wishes(wishes.clone())), Vec::<Out>::new());
    session.step::<u32, u32>(START, In::Report { attempt: attempt(2), report: 0 });
    let expected = delta(vec![(attempt(2), wish(Phase::Run, false))], vec![]);
    assert_eq!(session.step(START, In::Wishes(wishes)), vec![expected]);
}

#[test]
fn one_read_is_under_way_and_one_follows_when_something_changed_meanwhile() {
    let mut session = settled();
    assert_eq!(session.step(START, In::Told), vec![Out::Read]);
    assert_eq!(session.step(START, In::Told), Vec::<Out>::new());
    assert_eq!(session.step(START, In::Told), Vec::<Out>::new());
    assert_eq!(session.step(START, In::Wishes(BTreeMap::new())), vec![Out::Read]);
    assert_eq!(session.step(START, In::Wishes(BTreeMap::new())), Vec::<Out>::new());
}

fn ack(sequence: u64, leased: u64) -> Out {
    Out::HeartbeatAck { sequence, leased }
}

fn noted(closed: Option<&str>, beat: u64) -> Out {
    Out::Seen { closed: closed.map(str::to_owned), beat }
}

#[test]
fn heartbeats_are_answered_at_once_and_written_now_and_then() {
    let mut session = settled();
    let beat = |sequence, closed: Option<&str>| In::Heartbeat { sequence, closed: closed.map(str::to_owned) };
    let seconds = Duration::from_secs;
    for (now, input, expected) in [
        (1, beat(1, None), vec![ack(1, 0)]),
        (5, beat(2, None), vec![ack(2, 0), noted(None, 2)]),
        (6, beat(3, None), vec![ack(3, 0)]),
        (7, beat(4, Some("disk")), vec![ack(4, 0), noted(Some("disk"), 4)]),
        (8, beat(5, Some("disk")), vec![ack(5, 0)]),
        (8, beat(5, Some("disk")), vec![ack(5, 0)]),
        (9, beat(6, None), vec![ack(6, 0), noted(None, 6)]),
    ] {
        assert_eq!(session.step(seconds(now), input), expected, "at {now} s");
    }
}

#[test]
fn a_heartbeat_is_a_lease_once_the_database_has_committed_what_covers_it() {
    let mut session = settled();
    let beat = |sequence| In::Heartbeat { sequence, closed: None };
    for (now, input, expected) in [
        // What is written before the first heartbeat covers none.
        (5, In::Report { attempt: attempt(1), report: 7 }, vec![noted(None, 0), Out::Apply(7)]),
        (5, In::Leased(0), vec![]),
        (6, beat(1), vec![ack(1, 0)]),
        // Nothing else is heard: it is written as soon as something may be written again.
        (9, In::Tick, vec![Out::Read]),
        (10, In::Tick, vec![noted(None, 1)]),
        (11, In::Tick, vec![]),
        // The next one comes before the commit of the first, and is not covered by it.
        (16, beat(2), vec![ack(2, 0), noted(None, 2)]),
        (16, In::Leased(1), vec![ack(2, 1)]),
        (17, beat(3), vec![ack(3, 1)]),
        (18, In::Leased(2), vec![ack(3, 2)]),
        // A lease never goes back, and a replayed heartbeat is no newer one.
        (18, In::Leased(1), vec![]),
        (19, beat(1), vec![ack(1, 2)]),
        (21, In::Report { attempt: attempt(1), report: 8 }, vec![noted(None, 3), Out::Apply(8)]),
        (21, In::Leased(3), vec![ack(3, 3)]),
        (21, In::Leased(3), vec![]),
    ] {
        let shown = format!("at {now} s: {input:?}");
        assert_eq!(session.step(Duration::from_secs(now), input), expected, "{shown}");
    }
}

#[test]
fn silence_ends_the_session() {
    let mut session = settled();
    let almost = WATCHDOG - Duration::from_millis(1);
    assert!(!session.step(almost, In::Tick).contains(&Out::Close(Closed::Silent)));
    session.step(almost, In::Heartbeat { sequence: 1, closed: None });
    assert!(!session.step(WATCHDOG, In::Tick).contains(&Out::Close(Closed::Silent)));
    assert_eq!(session.step(almost + WATCHDOG, In::Tick), vec![Out::Close(Closed::Silent)]);
}

#[test]
fn a_newer_session_and_a_flood_end_it() {
    assert_eq!(settled().step(START, In::Superseded), vec![Out::Close(Closed::Superseded)]);
    let many = (0..=MOST_OBSERVED as u128).map(seen).collect();
    let output = settled().step(START, In::Observed { attempts: many, last: false });
    assert_eq!(output, vec![Out::Close(Closed::Flood)]);
    let mut session = settled();
    let mut report = |n| session.step(START, In::Report { attempt: attempt(n), report: 0 });
    assert!((0..MOST_KNOWN as u128).all(|n| report(n) == vec![Out::Apply(0)]));
    assert_eq!(report(MOST_KNOWN as u128), vec![Out::Close(Closed::Flood)]);
}

#[test]
fn a_large_set_goes_in_pieces() {
    let mut session = Session::new();
    session.step::<u32, u32>(START, In::Observed { attempts: vec![], last: true });
    session.step::<u32, u32>(START, In::Reconciled { released: vec![], owed: vec![], behind: vec![] });
    let wishes = (0..2 * PIECE as u128 + 1).map(|n| (attempt(n), wish(Phase::Run, true))).collect();
    let shape: Vec<_> = session
        .step::<u32, u32>(START, In::Wishes(wishes))
        .into_iter()
        .map(|output| match output {
            Out::Desired { full, last, attempts, .. } => (full, last, attempts.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shape, [(true, false, PIECE), (false, false, PIECE), (false, true, 1)]);
}

/// What an executor makes of the sets it is sent.
#[derive(Default)]
struct Model {
    desired: BTreeMap<AttemptId, Phase>,
    gathering: Option<BTreeSet<AttemptId>>,
}

impl Model {
    fn take(&mut self, output: &Out) {
        let Out::Desired { full, last, attempts, released } = output else { return };
        if *full {
            self.gathering = Some(BTreeSet::new());
        }
        for (attempt, wish) in attempts {
            self.desired.insert(*attempt, wish.phase);
            if let Some(set) = &mut self.gathering {
                set.insert(*attempt);
            }
        }
        for attempt in released {
            self.desired.remove(attempt);
        }
        if *last && let Some(set) = self.gathering.take() {
            self.desired.retain(|attempt, _| set.contains(attempt));
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    /// The database's wish for this attempt becomes that.
    Wish(u128, Option<bool>),
    /// The session reads it.
    Read,
    /// The message at this place of those under way arrives, and stays under way.
    Arrive(usize),
    /// The message at this place of those under way is lost.
    Lose(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0_u128..6, proptest::option::of(any::<bool>())).prop_map(|(n, stop)| Happening::Wish(n, stop)),
        Just(Happening::Read),
        any::<usize>().prop_map(Happening::Arrive),
        any::<usize>().prop_map(Happening::Lose),
    ]
}

proptest! {
    /// Whatever was lost, doubled or reordered: one full set that arrives makes all good.
    #[test]
    fn both_sides_converge(happenings in proptest::collection::vec(happening(), 0..60)) {
        let mut session = settled();
        let mut database: BTreeMap<AttemptId, Wish> = BTreeMap::new();
        let mut executor = Model::default();
        let mut under_way: Vec<Out> = Vec::new();
        for happening in happenings {
            match happening {
                Happening::Wish(n, None) => {
                    database.remove(&attempt(n));
                }
                Happening::Wish(n, Some(stop)) => {
                    let phase = if stop { Phase::Stop } else { Phase::Run };
                    database.insert(attempt(n), wish(phase, true));
                }
                Happening::Read => {
                    session.step::<u32, u32>(START, In::Told);
                    under_way.extend(session.step(START, In::Wishes(database.clone())));
                }
                Happening::Arrive(at) => {
                    if let Some(at) = at.checked_rem(under_way.len()) {
                        executor.take(&under_way[at]);
                    }
                }
                Happening::Lose(at) => {
                    if let Some(at) = at.checked_rem(under_way.len()) {
                        under_way.remove(at);
                    }
                }
            }
        }
        session.step::<u32, u32>(REFRESH, In::Heartbeat { sequence: 1, closed: None });
        prop_assert_eq!(session.step(REFRESH, In::Tick), vec![Out::Read]);
        for output in session.step(REFRESH, In::Wishes(database.clone())) {
            executor.take(&output);
        }
        let wanted: BTreeMap<_, _> = database.iter().map(|(attempt, wish)| (*attempt, wish.phase)).collect();
        prop_assert_eq!(executor.desired, wanted);
    }
}

#[test]
fn who_told_more_than_the_database_holds_is_asked_for_the_rest_unless_it_tells_already() {
    let mut session = Session::new();
    session.step::<u32, u32>(START, In::Observed { attempts: vec![seen(1), seen(2)], last: true });
    session.step::<u32, u32>(START, In::Report { attempt: attempt(2), report: 6 });
    let behind = vec![(attempt(1), 10), (attempt(2), 20)];
    let output = session.step(START, In::Reconciled { released: vec![], owed: vec![], behind });
    assert_eq!(output, vec![Out::Ack(10), Out::Read]);
}

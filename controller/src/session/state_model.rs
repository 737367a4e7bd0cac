//! The reducer between a model of the database and a model of an executor, over a connection that loses, doubles and reorders.

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*};
use sculpt_proto::id::TaskId;
use uuid::Uuid;

use super::*;
use crate::store::sessions::Said;

/// Reports of one attempt; with the last one it is over.
const LAST: u64 = 3;

/// Has been with the executor since another history: the database does not know it.
const STRANGER: u128 = 99;

type Answer = (AttemptId, u64);
type In = Input<Answer, Answer>;
type Out = Output<Answer, Answer>;

fn attempt(n: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(n))
}

/// What the database holds of an attempt.
#[derive(Clone, Copy, Debug)]
struct Row {
    phase: Phase,
    applied: u64,
}

impl Row {
    fn over(self) -> bool {
        self.applied == LAST
    }
}

/// What the executor holds of an attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    told: u64,
    acked: u64,
}

#[derive(Debug)]
enum Work {
    Apply(Answer),
    Reconcile(Census),
    Read,
    Seen(u64),
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Place(u128),
    Stop(u128),
    Step(u128),
    Observe,
    /// The database does what comes next.
    Work,
    /// The message at this place arrives: at the session, at the executor; and perhaps stays under way.
    In(usize, bool),
    Out(usize, bool),
    /// The message at this place is lost.
    LoseIn(usize),
    LoseOut(usize),
    Told,
    Tick,
}

fn happening() -> impl Strategy<Value = Happening> {
    let place = any::<usize>;
    prop_oneof![
        2 => (0_u128..4).prop_map(Happening::Place),
        1 => (0_u128..4).prop_map(Happening::Stop),
        4 => prop_oneof![0_u128..4, Just(STRANGER)].prop_map(Happening::Step),
        1 => Just(Happening::Observe),
        8 => Just(Happening::Work),
        8 => (place(), any::<bool>()).prop_map(|(at, stays)| Happening::In(at, stays)),
        8 => (place(), any::<bool>()).prop_map(|(at, stays)| Happening::Out(at, stays)),
        1 => place().prop_map(Happening::LoseIn),
        1 => place().prop_map(Happening::LoseOut),
        2 => Just(Happening::Told),
        2 => Just(Happening::Tick),
    ]
}

struct World {
    session: Session,
    now: Duration,
    rows: BTreeMap<AttemptId, Row>,
    held: BTreeMap<AttemptId, Held>,
    desired: BTreeMap<AttemptId, Phase>,
    gathering: Option<BTreeSet<AttemptId>>,
    inward: Vec<In>,
    outward: Vec<Out>,
    work: VecDeque<Work>,
    beat: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            session: Session::new(),
            now: Duration::ZERO,
            rows: BTreeMap::new(),
            held: BTreeMap::from([(attempt(STRANGER), Held::default())]),
            desired: BTreeMap::new(),
            gathering: None,
            inward: Vec::new(),
            outward: Vec::new(),
            work: VecDeque::new(),
            beat: 0,
        };
        let first = world.census();
        world.step(first);
        world
    }

    fn census(&self) -> In {
        let seen = |(attempt, held): (&AttemptId, &Held)| Observed {
            attempt: *attempt,
            cluster: None,
            ended: held.told == LAST,
            reports: held.told,
            unreadable: None,
        };
        In::Observed { attempts: self.held.iter().map(seen).collect(), last: true }
    }

    fn step(&mut self, input: In) {
        for output in self.session.step(self.now, input) {
            match output {
                Out::Apply(report) => self.work.push_back(Work::Apply(report)),
                Out::Reconcile(census) => self.work.push_back(Work::Reconcile(census)),
                Out::Read => self.work.push_back(Work::Read),
                Out::Seen { beat, .. } => self.work.push_back(Work::Seen(beat)),
                Out::Close(closed) => panic!("{closed:?}"),
                said => {
                    self.judge(&said);
                    self.outward.push(said);
                }
            }
        }
    }

    /// What must hold of everything that is said to an executor.
    fn judge(&self, said: &Out) {
        match said {
            Out::Ack((attempt, through)) => {
                let applied = self.rows.get(attempt).map_or(0, |row| row.applied);
                assert!(*through <= applied, "acknowledged before it was applied: {said:?}");
            }
            Out::Desired { attempts, released, .. } => {
                for attempt in released {
                    assert!(self.rows[attempt].over(), "released while it is wished: {said:?}");
                }
                assert!(attempts.iter().all(|(attempt, _)| self.rows.contains_key(attempt)), "not ours: {said:?}");
            }
            Out::HeartbeatAck { leased, .. } => assert!(*leased <= self.beat, "a lease of nothing: {said:?}"),
            Out::Adopt(_) | Out::Apply(_) | Out::Reconcile(_) | Out::Read | Out::Seen { .. } | Out::Close(_) => {}
        }
    }

    fn wishes(&self) -> BTreeMap<AttemptId, Wish> {
        let wish = |(attempt, row): (&AttemptId, &Row)| {
            let task = TaskId(Uuid::nil());
            let may_begin = row.applied == 0;
            (
                *attempt,
                Wish {
                    task,
                    task_number: 1,
                    number: 1,
                    digest: vec![7],
                    phase: row.phase,
                    said: Said::default(),
                    may_begin,
                },
            )
        };
        self.rows.iter().filter(|(_, row)| !row.over()).map(wish).collect()
    }

    fn work(&mut self) -> bool {
        let Some(work) = self.work.pop_front() else { return false };
        let done = match work {
            Work::Apply((attempt, sequence)) => {
                let through = self.rows.get_mut(&attempt).map_or(0, |row| {
                    row.applied += u64::from(sequence == row.applied + 1);
                    row.applied
                });
                In::Applied((attempt, through))
            }
            Work::Reconcile(census) => {
                let ours = || census.values().filter_map(|seen| Some((seen, *self.rows.get(&seen.attempt)?)));
                let behind = ours().filter(|(seen, row)| seen.reports > row.applied);
                In::Reconciled {
                    released: ours().filter(|(_, row)| row.over()).map(|(seen, _)| seen.attempt).collect(),
                    owed: ours().filter(|(_, row)| !row.over()).map(|(seen, _)| seen.attempt).collect(),
                    behind: behind.map(|(seen, row)| (seen.attempt, (seen.attempt, row.applied))).collect(),
                }
            }
            Work::Read => In::Wishes(self.wishes()),
            Work::Seen(beat) => In::Leased(beat),
        };
        self.step(done);
        true
    }

    /// What the executor makes of a message.
    fn hear(&mut self, said: &Out) {
        match said {
            Out::Ack((attempt, through)) => {
                if let Some(held) = self.held.get_mut(attempt) {
                    held.acked = held.acked.max(*through).min(held.told);
                }
            }
            Out::Desired { full, last, attempts, released } => {
                if *full {
                    self.gathering = Some(BTreeSet::new());
                }
                for (attempt, wish) in attempts {
                    self.desired.insert(*attempt, wish.phase);
                    if let Some(set) = &mut self.gathering {
                        set.insert(*attempt);
                    }
                    // Whoever wants it again has lost what it had.
                    self.held.entry(*attempt).or_default();
                }
                for attempt in released {
                    self.desired.remove(attempt);
                }
                if *last && let Some(set) = self.gathering.take() {
                    self.desired.retain(|attempt, _| set.contains(attempt));
                }
            }
            Out::HeartbeatAck { .. } | Out::Adopt(_) => {}
            Out::Apply(_) | Out::Reconcile(_) | Out::Read | Out::Seen { .. } | Out::Close(_) => {}
        }
    }

    fn happen(&mut self, happening: Happening) {
        let take = |messages: usize, at: usize| at.checked_rem(messages);
        match happening {
            Happening::Place(n) => {
                self.rows.entry(attempt(n)).or_insert(Row { phase: Phase::Run, applied: 0 });
            }
            Happening::Stop(n) => {
                self.rows.entry(attempt(n)).and_modify(|row| row.phase = Phase::Stop);
            }
            Happening::Step(n) => {
                if let Some(held) = self.held.get_mut(&attempt(n)).filter(|held| held.told < LAST) {
                    held.told += 1;
                    let report = (attempt(n), held.told);
                    self.inward.push(In::Report { attempt: report.0, report });
                }
            }
            Happening::Observe => self.inward.push(self.census()),
            Happening::Work => {
                self.work();
            }
            Happening::In(at, stays) => {
                if let Some(at) = take(self.inward.len(), at) {
                    let message = if stays { self.inward[at].clone() } else { self.inward.swap_remove(at) };
                    self.step(message);
                }
            }
            Happening::Out(at, stays) => {
                if let Some(at) = take(self.outward.len(), at) {
                    let message = if stays { self.outward[at].clone() } else { self.outward.swap_remove(at) };
                    self.hear(&message);
                }
            }
            Happening::LoseIn(at) => {
                take(self.inward.len(), at).map(|at| self.inward.swap_remove(at));
            }
            Happening::LoseOut(at) => {
                take(self.outward.len(), at).map(|at| self.outward.swap_remove(at));
            }
            Happening::Told => self.step(In::Told),
            Happening::Tick => {
                self.now += Duration::from_secs(1);
                self.beat += 1;
                self.step(In::Heartbeat { sequence: self.beat, closed: None });
                self.step(In::Tick);
            }
        }
    }

    /// Nothing is lost any more: the executor says what it has and what was not acknowledged, and a full set comes.
    fn settle(&mut self) {
        (self.inward, self.outward) = (Vec::new(), Vec::new());
        self.gathering = None;
        for _ in 0..3 {
            self.now += REFRESH;
            self.step(In::Heartbeat { sequence: self.beat, closed: None });
            let census = self.census();
            self.step(census);
            for (attempt, held) in self.held.clone() {
                for sequence in held.acked + 1..=held.told {
                    self.step(In::Report { attempt, report: (attempt, sequence) });
                }
            }
            self.step(In::Tick);
            while self.work() {}
            for said in std::mem::take(&mut self.outward) {
                self.hear(&said);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_doubled_or_reordered_both_sides_agree_in_the_end(happenings in vec(happening(), 0..150)) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(happening);
        }
        world.settle();
        let wished: BTreeMap<_, _> = world.wishes().into_iter().map(|(attempt, wish)| (attempt, wish.phase)).collect();
        prop_assert_eq!(&world.desired, &wished);
        for (attempt, row) in &world.rows {
            let held = world.held[attempt];
            prop_assert_eq!((held.told, held.acked), (row.applied, row.applied), "{:?}", attempt);
        }
        prop_assert_eq!(world.held[&attempt(STRANGER)].acked, 0);
    }
}

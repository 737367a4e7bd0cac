//! What must hold of the machine whatever is lost, doubled or overtaken between it and a controller that changes its mind.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// How many attempts there are.
const ATTEMPTS: u128 = 4;

fn id(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(1))
}

#[derive(Clone, Debug)]
enum Move {
    /// The controller wants this, as far as it can still be wanted.
    Want(u128, Wish),
    /// The controller takes back what it has not heard of.
    Withdraw(u128),
    /// The executor begins what it was given, or takes the next step.
    Step(u128),
    /// A message arrives, whichever it is.
    Deliver(usize),
    /// It arrives twice.
    Double(usize),
    Lose(usize),
    Reconnect,
    /// The executor's process starts anew, with what is on its disk.
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    let wish = prop_oneof![Just(Wish::Run), Just(Wish::Hold), Just(Wish::Stop), Just(Wish::Fence)];
    prop_oneof![
        3 => (0..ATTEMPTS, wish).prop_map(|(attempt, wish)| Move::Want(attempt, wish)),
        1 => (0..ATTEMPTS).prop_map(Move::Withdraw),
        3 => (0..ATTEMPTS).prop_map(Move::Step),
        5 => any::<usize>().prop_map(Move::Deliver),
        1 => any::<usize>().prop_map(Move::Double),
        1 => any::<usize>().prop_map(Move::Lose),
        1 => Just(Move::Reconnect),
        1 => Just(Move::Restart),
    ]
}

/// Both sides, and what is under way between them.
#[derive(Default)]
struct World {
    machine: Machine,
    /// What the executor has started, and how many reports stand in its journal.
    disk: BTreeMap<AttemptId, u64>,
    /// What the controller has taken back; no attempt is wanted anew.
    withdrawn: BTreeSet<AttemptId>,
    /// What the controller wants, and how many reports it has committed.
    wanted: BTreeMap<AttemptId, Wish>,
    committed: BTreeMap<AttemptId, u64>,
    /// The strictest wish that has reached an attempt.
    reached: BTreeMap<AttemptId, Wish>,
    to_executor: Vec<Input>,
    reports: Vec<(AttemptId, u64)>,
}

impl World {
    fn feed(&mut self, input: Input) {
        for effect in self.machine.apply(input) {
            match effect {
                Effect::Start(wanted) => {
                    self.disk.entry(wanted.attempt).or_default();
                    self.reached.insert(wanted.attempt, wanted.wish);
                }
                Effect::Wish(attempt, wish) => {
                    let before = self.reached.insert(attempt, wish).unwrap_or(Wish::Run);
                    assert!(before < Wish::Stop || wish > before, "{before:?} became {wish:?}");
                }
                Effect::Abandon(attempt) => {
                    assert_eq!(self.disk.get(&attempt).copied().unwrap_or(0), 0, "it has begun");
                    self.disk.remove(&attempt);
                    self.reached.remove(&attempt);
                    assert_eq!(self.machine.apply(Input::Gone(attempt)), []);
                }
                Effect::Report { attempt, from, through } => {
                    assert!(from <= through && through <= self.disk[&attempt], "only what is on disk is sent");
                    self.reports.extend((from..=through).map(|sequence| (attempt, sequence)));
                }
                Effect::Release(_) | Effect::Unrelease(_) | Effect::HandIn(_) | Effect::PublishAgain(_) => {
                    panic!("nobody asked for {effect:?}")
                }
                Effect::Observe | Effect::Ready | Effect::Warn(..) => {}
            }
        }
    }

    fn commit(&mut self, index: usize) {
        let (attempt, sequence) = self.reports.remove(index);
        let through = self.committed.entry(attempt).or_default();
        let gap = sequence > *through + 1;
        if sequence == *through + 1 {
            *through = sequence;
        }
        let through = *through;
        self.to_executor.push(Input::Acked { attempt, through, refusal: gap.then_some(Refusal::Gap) });
    }

    fn desired(&self, full: bool, attempts: impl Iterator<Item = AttemptId>) -> Input {
        let of = |attempt: AttemptId| Some(Wanted { attempt, digest: vec![], wish: *self.wanted.get(&attempt)? });
        Input::Desired { full, last: true, attempts: attempts.filter_map(of).collect(), released: vec![] }
    }

    fn reconnect(&mut self) {
        self.to_executor.clear();
        self.reports.clear();
        self.feed(Input::Lost);
        self.feed(Input::Welcomed { cluster: cluster() });
        self.feed(self.desired(true, self.wanted.keys().copied()));
    }

    fn restart(&mut self) {
        self.machine = Machine::default();
        // What was not on disk yet is not known any more.
        self.disk.retain(|_, last| *last > 0);
        self.reached.retain(|attempt, _| self.disk.contains_key(attempt));
        for (attempt, last) in self.disk.clone() {
            self.reached.insert(attempt, Wish::Run);
            self.feed(Input::Present { attempt, cluster: cluster(), last, released: false });
        }
        self.reconnect();
    }

    fn make(&mut self, a_move: Move) {
        let messages = self.to_executor.len() + self.reports.len();
        let pick = |index: usize| (messages > 0).then(|| index % messages.max(1));
        match a_move {
            Move::Want(number, _) if self.withdrawn.contains(&id(number)) => {}
            Move::Want(number, wish) => {
                let now = self.wanted.get(&id(number)).map_or(wish, |before| before.follow(wish));
                self.wanted.insert(id(number), now);
                self.to_executor.push(self.desired(false, std::iter::once(id(number))));
            }
            Move::Withdraw(number) => {
                if !self.committed.contains_key(&id(number)) && self.wanted.remove(&id(number)).is_some() {
                    self.withdrawn.insert(id(number));
                }
            }
            Move::Step(number) => {
                if let Some(last) = self.disk.get_mut(&id(number)) {
                    *last += 1;
                    let sequence = *last;
                    self.feed(Input::Recorded { attempt: id(number), sequence });
                }
            }
            Move::Deliver(index) => pick(index).into_iter().for_each(|at| self.deliver(at)),
            Move::Double(index) => {
                if let Some(at) = pick(index) {
                    match at.checked_sub(self.to_executor.len()) {
                        Some(report) => self.reports.push(self.reports[report]),
                        None => self.to_executor.push(self.to_executor[at].clone()),
                    }
                }
            }
            Move::Lose(index) => {
                if let Some(at) = pick(index) {
                    match at.checked_sub(self.to_executor.len()) {
                        Some(report) => drop(self.reports.remove(report)),
                        None => drop(self.to_executor.remove(at)),
                    }
                }
            }
            Move::Reconnect => self.reconnect(),
            Move::Restart => self.restart(),
        }
    }

    fn deliver(&mut self, at: usize) {
        match at.checked_sub(self.to_executor.len()) {
            Some(report) => self.commit(report),
            None => {
                let message = self.to_executor.remove(at);
                self.feed(message);
            }
        }
    }
}

proptest! {
    #[test]
    fn both_sides_converge_and_nothing_that_has_begun_is_given_up(moves in prop::collection::vec(moves(), 0..200)) {
        let mut world = World::default();
        world.reconnect();
        for a_move in moves {
            world.make(a_move);
        }
        world.reconnect();
        while !world.to_executor.is_empty() || !world.reports.is_empty() {
            world.deliver(0);
        }
        for (attempt, wish) in &world.wanted {
            prop_assert_eq!(world.machine.wish(*attempt), Some(*wish), "what is wanted has arrived");
            prop_assert!(world.disk.contains_key(attempt), "what is wanted was started");
        }
        for (attempt, last) in &world.disk {
            prop_assert_eq!(world.committed.get(attempt).copied().unwrap_or(0), *last, "no report is skipped");
            prop_assert!(world.machine.settled(*attempt));
        }
    }
}

//! Reports and answers that are lost, doubled and reordered on their way.

use proptest::prelude::*;

use super::*;

/// A controller as the machine sees it: it takes the next report of an attempt, refuses gaps, and forgets nothing.
#[derive(Default)]
struct Model {
    committed: BTreeMap<AttemptId, u64>,
}

impl Model {
    fn take(&mut self, attempt: AttemptId, sequence: u64) -> Input {
        let through = self.committed.entry(attempt).or_default();
        let gap = sequence > *through + 1;
        *through = (*through).max(if gap { 0 } else { sequence });
        Input::Acked { attempt, through: *through, refusal: gap.then_some(Refusal::Gap) }
    }
}

#[derive(Clone, Debug)]
enum Move {
    Record(u128),
    Want(u128, Wish),
    Deliver(usize),
    Duplicate(usize),
    DropReport(usize),
    Answer(usize),
    DropAnswer(usize),
    Reconnect,
}

fn moves() -> impl Strategy<Value = Move> {
    let wish = prop_oneof![Just(Wish::Run), Just(Wish::Hold), Just(Wish::Stop)];
    prop_oneof![
        (1_u128..4).prop_map(Move::Record),
        (1_u128..4, wish).prop_map(|(attempt, wish)| Move::Want(attempt, wish)),
        any::<usize>().prop_map(Move::Deliver),
        any::<usize>().prop_map(Move::Duplicate),
        any::<usize>().prop_map(Move::DropReport),
        any::<usize>().prop_map(Move::Answer),
        any::<usize>().prop_map(Move::DropAnswer),
        Just(Move::Reconnect),
    ]
}

#[derive(Default)]
struct World {
    machine: Machine,
    model: Model,
    journal: BTreeMap<AttemptId, u64>,
    strictest: BTreeMap<AttemptId, Wish>,
    reports: Vec<(AttemptId, u64)>,
    answers: Vec<Input>,
}

impl World {
    fn feed(&mut self, input: Input) {
        for effect in self.machine.apply(input) {
            if let Effect::Report { attempt, from, through } = effect {
                assert!(through <= self.journal[&attempt], "only what is in the journal is sent");
                self.reports.extend((from..=through).map(|sequence| (attempt, sequence)));
            }
        }
    }

    fn deliver(&mut self, index: usize) {
        let (attempt, sequence) = self.reports.remove(index);
        let answer = self.model.take(attempt, sequence);
        self.answers.push(answer);
    }

    fn make(&mut self, a_move: Move) {
        let pick = |length: usize, index: usize| (length > 0).then(|| index % length);
        match a_move {
            Move::Record(number) => {
                let last = self.journal.entry(id(number)).or_default();
                *last += 1;
                let input = Input::Recorded { attempt: id(number), sequence: *last };
                self.feed(input);
            }
            Move::Want(number, wish) => {
                let strictest = self.strictest.entry(id(number)).or_insert(wish);
                *strictest = strictest.follow(wish);
                self.feed(delta(vec![wanted(id(number), wish)]));
            }
            Move::Deliver(index) => pick(self.reports.len(), index).into_iter().for_each(|at| self.deliver(at)),
            Move::Duplicate(index) => {
                let copy = pick(self.reports.len(), index).map(|at| self.reports[at]);
                self.reports.extend(copy);
            }
            Move::DropReport(index) => {
                if let Some(at) = pick(self.reports.len(), index) {
                    self.reports.remove(at);
                }
            }
            Move::Answer(index) => {
                if let Some(at) = pick(self.answers.len(), index) {
                    let answer = self.answers.remove(at);
                    self.feed(answer);
                }
            }
            Move::DropAnswer(index) => {
                if let Some(at) = pick(self.answers.len(), index) {
                    self.answers.remove(at);
                }
            }
            Move::Reconnect => self.reconnect(),
        }
    }

    fn reconnect(&mut self) {
        self.reports.clear();
        self.answers.clear();
        self.feed(Input::Lost);
        self.feed(Input::Welcomed { cluster: cluster(1) });
    }
}

proptest! {
    #[test]
    fn every_report_is_committed_whatever_the_wire_does(moves in prop::collection::vec(moves(), 0..120)) {
        let mut world = World::default();
        world.reconnect();
        for a_move in moves {
            world.make(a_move);
        }
        world.reconnect();
        while !world.reports.is_empty() || !world.answers.is_empty() {
            if world.reports.is_empty() {
                let answer = world.answers.remove(0);
                world.feed(answer);
            } else {
                world.deliver(0);
            }
        }
        for (attempt, last) in &world.journal {
            prop_assert_eq!(world.model.committed.get(attempt).copied().unwrap_or(0), *last);
            prop_assert!(world.machine.settled(*attempt));
        }
        for (attempt, wish) in &world.strictest {
            prop_assert_eq!(world.machine.wish(*attempt), Some(*wish));
        }
    }
}

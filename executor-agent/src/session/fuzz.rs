//! Fuzz target: whatever a controller sends, in any order with what happens here, ends no attempt that it must not end and
//! makes no report up.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use prost::Message as _;
use sculpt_proto::{
    executor::v1::{ControlResponse, control_response::Part},
    id::{AttemptId, ClusterId},
};
use uuid::Uuid;

use super::{
    machine::{Effect, Input, Machine, Refusal, Wanted, Wish},
    wire,
};

#[derive(Debug, Arbitrary)]
enum Event<'a> {
    /// Bytes of the controller, as they come out of the stream.
    Message(&'a [u8]),
    Welcomed {
        cluster: u8,
    },
    Lost,
    Desired {
        full: bool,
        last: bool,
        attempts: Vec<(u8, u8)>,
        released: Vec<u8>,
    },
    Acked {
        attempt: u8,
        through: u64,
        refusal: u8,
    },
    Present {
        attempt: u8,
        cluster: u8,
        last: u8,
        released: bool,
    },
    Recorded {
        attempt: u8,
    },
    Gone {
        attempt: u8,
    },
}

/// Few, so that events meet.
fn attempt(number: u8) -> AttemptId {
    AttemptId(Uuid::from_u128(u128::from(number % 4) + 1))
}

fn cluster(number: u8) -> ClusterId {
    ClusterId(Uuid::from_u128(u128::from(number % 2) + 0x11))
}

/// What is true of the attempts here, kept apart from the machine.
#[derive(Default)]
struct World {
    ours: Option<ClusterId>,
    minted: BTreeMap<AttemptId, ClusterId>,
    last: BTreeMap<AttemptId, u64>,
    strictest: BTreeMap<AttemptId, Wish>,
}

impl World {
    fn input(&mut self, event: Event<'_>) -> Option<Input> {
        Some(match event {
            Event::Message(bytes) => message(bytes)?,
            Event::Welcomed { cluster: number } => {
                self.ours = Some(cluster(number));
                Input::Welcomed { cluster: cluster(number) }
            }
            Event::Lost => Input::Lost,
            Event::Desired { full, last, attempts, released } => {
                let wish = |number: u8| [Wish::Run, Wish::Hold, Wish::Stop, Wish::Fence][usize::from(number % 4)];
                let attempts = attempts.into_iter().map(|(number, phase)| Wanted {
                    attempt: attempt(number),
                    digest: Vec::new(),
                    wish: wish(phase),
                });
                let (attempts, released) = (attempts.collect(), released.into_iter().map(attempt).collect());
                Input::Desired { full, last, attempts, released }
            }
            Event::Acked { attempt: number, through, refusal } => {
                let refusals = [Refusal::Unknown, Refusal::Fenced, Refusal::Gap, Refusal::Illegal];
                let refusal = refusals.get(usize::from(refusal % 8)).copied();
                Input::Acked { attempt: attempt(number), through, refusal }
            }
            Event::Present { attempt: number, cluster: minted, last, released } => {
                let id = attempt(number);
                // A directory keeps its cluster.
                let minted = *self.minted.entry(id).or_insert(cluster(minted));
                let known = self.last.entry(id).or_default();
                *known = (*known).max(u64::from(last));
                Input::Present { attempt: id, cluster: minted, last: u64::from(last), released }
            }
            Event::Recorded { attempt: number } => {
                let last = self.last.entry(attempt(number)).or_default();
                *last += 1;
                Input::Recorded { attempt: attempt(number), sequence: *last }
            }
            Event::Gone { attempt: number } => {
                let id = attempt(number);
                self.minted.remove(&id);
                self.last.remove(&id);
                self.strictest.remove(&id);
                Input::Gone(id)
            }
        })
    }

    fn check(&mut self, effect: Effect) {
        let last = |id: &AttemptId| self.last.get(id).copied().unwrap_or(0);
        match effect {
            Effect::Report { attempt, from, through } => {
                assert!(1 <= from && from <= through, "reports {from} to {through}");
                assert!(through <= last(&attempt), "report {through} of {} is not in the journal", last(&attempt));
            }
            Effect::Wish(attempt, wish) => {
                let before = self.strictest.get(&attempt).copied().unwrap_or(Wish::Run);
                assert!(before < Wish::Stop || wish >= before, "{before:?} was taken back by {wish:?}");
                self.strictest.insert(attempt, wish);
                let foreign = self.minted.get(&attempt).is_some_and(|minted| Some(*minted) != self.ours);
                assert!(wish != Wish::Fence || !foreign, "another cluster's controller has fenced {attempt}");
            }
            Effect::Start(wanted) => {
                assert_eq!(last(&wanted.attempt), 0, "an attempt that has reported is begun again");
                self.strictest.insert(wanted.attempt, wanted.wish);
            }
            Effect::Abandon(attempt) => assert_eq!(last(&attempt), 0, "an attempt that has reported is abandoned"),
            Effect::Observe
            | Effect::Release(_)
            | Effect::Unrelease(_)
            | Effect::HandIn(_)
            | Effect::PublishAgain(_)
            | Effect::Ready
            | Effect::Warn(..) => {}
        }
    }
}

/// Only what passes all checks goes on.
fn message(bytes: &[u8]) -> Option<Input> {
    let part = ControlResponse::decode(bytes).ok()?.part?;
    match part {
        Part::Welcome(_) | Part::Reject(_) => {
            let _refused = wire::first(Some(part));
            None
        }
        part => wire::input(part).ok().flatten(),
    }
}

/// Lets the events happen, and looks at everything that is to be done about them.
pub fn executor_session(data: &[u8]) {
    let Ok(events) = Vec::<Event<'_>>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let (mut machine, mut world) = (Machine::default(), World::default());
    for event in events {
        let Some(input) = world.input(event) else { continue };
        for effect in machine.apply(input) {
            world.check(effect);
        }
    }
    for number in 0..4 {
        let _settled = machine.settled(attempt(number));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("executor_session", super::executor_session);
    }
}

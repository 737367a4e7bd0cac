//! Attempt: state × step.

use sculpt_core::attempt::{Attempt, AttemptState, Offer, Step};

use crate::{
    notation::check,
    states::{EXECUTOR, State, What, fence, start},
};

const TABLE: &str = include_str!("tables/attempt.txt");

fn attempt(state: State) -> Option<Attempt> {
    Some(Attempt { state: state.attempt()?, ..Attempt::offered(fence(1), EXECUTOR) })
}

fn steps() -> Vec<(What, Step)> {
    let step = |what: &What| match what.event(fence(1)) {
        sculpt_core::task::Event::Stepped { step, .. } => Some((*what, step)),
        _ => None,
    };
    What::ALL.iter().filter_map(step).collect()
}

#[test]
fn state_by_step() {
    let steps = steps();
    let columns: Vec<&str> = steps.iter().map(|(what, _)| what.text()).collect();
    let rows: Vec<&str> =
        State::ALL.iter().filter(|state| state.attempt().is_some()).map(|state| state.text()).collect();
    check(TABLE, &rows, &columns, |row, column| {
        let step = &steps[columns.iter().position(|name| *name == column).unwrap()].1;
        let after = attempt(State::read(row)).unwrap().after(step, start());
        after.map_or("-", |state| State::of_attempt(&state).text()).to_owned()
    });
}

#[test]
fn a_step_keeps_what_it_says_and_when() {
    let at = start() + chrono::TimeDelta::seconds(7);
    let after = |state: State, step: &Step| attempt(state).unwrap().after(step, at).unwrap();
    assert_eq!(
        after(State::Preparing, &Step::Running),
        AttemptState::Running { since: at, turn: sculpt_core::turn::Turn::Working }
    );
    let exit = Some(sculpt_core::outcome::Exit::Signal(9));
    assert_eq!(after(State::Working, &Step::Finalizing { exit }), AttemptState::Finalizing { exit });
    let outcome = sculpt_core::outcome::Outcome::Failed(crate::states::failure());
    assert_eq!(
        after(State::Finalizing, &Step::Ended { outcome: outcome.clone() }),
        AttemptState::Ended { outcome, at }
    );
}

#[test]
fn slots_and_rest() {
    let table = "
        state        slot  rest  ended
        unread       yes   no    no
        read         yes   no    no
        accepted     yes   no    no
        preparing    yes   no    no
        working      yes   no    no
        question     yes   no    no
        permission   yes   no    no
        idle         no    yes   no
        parked       no    yes   no
        limited      no    no    no
        finalizing   yes   no    no
        completed    no    no    yes
        failed       no    no    yes
        stopped      no    no    yes
        fenced       no    no    yes
        left         no    no    yes
    ";
    let rows: Vec<&str> = State::texts().into_iter().filter(|state| *state != "queued").collect();
    check(table, &rows, &["slot", "rest", "ended"], |row, column| {
        let attempt = attempt(State::read(row)).unwrap();
        let holds = match column {
            "slot" => attempt.takes_slot(),
            "rest" => attempt.at_rest(),
            _ => attempt.ended(),
        };
        if holds { "yes" } else { "no" }.to_owned()
    });
}

#[test]
fn a_fresh_claim_has_begun_nothing() {
    let fresh = Attempt::offered(fence(3), EXECUTOR);
    assert_eq!(fresh.state, AttemptState::Offered { offer: Offer::Unread });
    assert_eq!((fresh.fence, fresh.executor, fresh.head), (fence(3), EXECUTOR, None));
}

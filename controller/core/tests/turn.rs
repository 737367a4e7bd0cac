//! Turn: state × step.

use sculpt_core::{
    task::Event,
    turn::{Ask, Turn, TurnStep},
};

use crate::{
    notation::check,
    states::{State, What, fence, late},
};

const TABLE: &str = include_str!("tables/turn.txt");

#[test]
fn state_by_step() {
    let step = |what: &What| match what.event(fence(1)) {
        Event::Turned { step, .. } => Some((what.text(), step)),
        _ => None,
    };
    let steps: Vec<(&str, TurnStep)> = What::ALL.iter().filter_map(step).collect();
    let columns: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    let rows: Vec<&str> = State::ALL.iter().filter(|state| state.turn().is_some()).map(|state| state.text()).collect();
    check(TABLE, &rows, &columns, |row, column| {
        let step = &steps.iter().find(|(name, _)| *name == column).unwrap().1;
        let after = State::read(row).turn().unwrap().after(step);
        after.map_or("-", |turn| State::of_turn(&turn).text()).to_owned()
    });
}

#[test]
fn the_newest_question_and_limit_count() {
    let first = Turn::Asking { ask: Ask::Question, text: "which?".into() };
    let asked = TurnStep::Asked { ask: Ask::Permission, text: "rm -r?".into() };
    assert_eq!(first.after(&asked), Some(Turn::Asking { ask: Ask::Permission, text: "rm -r?".into() }));
    let limited = Turn::Limited { until: None };
    let until = Some(late());
    assert_eq!(limited.after(&TurnStep::Limited { until }), Some(Turn::Limited { until }));
}

#[test]
fn a_parked_session_still_knows_when_its_limit_ends() {
    let limited = Turn::Limited { until: Some(late()) };
    assert_eq!(limited.after(&TurnStep::Parked), Some(limited));
}

//! What people do, and when.

use std::{cmp::Reverse, time::Duration};

use chrono::TimeDelta;
use sculpt_core::task::OnLost;

use crate::dice::Dice;

/// Something that a person does. Tasks are counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Makes the next task.
    Create(OnLost, TimeDelta),
    /// Stops a task.
    Stop(usize),
    /// Tries a task again.
    Retry(usize),
}

/// Everything that is done within `span`; the first comes last.
pub fn plan(dice: &Dice, span: Duration) -> Vec<(Duration, Deed)> {
    let most = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut deeds = Vec::new();
    for number in 0..dice.roll(1..8) {
        let at = dice.millis(0..most / 2);
        let on_lost = *dice.pick(&[OnLost::Wait, OnLost::Retry, OnLost::Retry, OnLost::Fail]);
        deeds.push((at, Deed::Create(on_lost, TimeDelta::seconds(dice.roll(30..60)))));
        if dice.chance(25) {
            deeds.push((at + dice.millis(0..most / 2), Deed::Stop(number)));
        }
        for _ in 0..dice.roll(0..3) {
            deeds.push((at + dice.millis(0..most), Deed::Retry(number)));
        }
    }
    deeds.sort_by_key(|(at, _)| Reverse(*at));
    deeds
}

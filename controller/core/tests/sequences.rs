//! Random histories: events of living, dead and foreign attempts in any order, at any time.

use std::collections::HashMap;

use chrono::TimeDelta;
use proptest::{collection::vec, prelude::*, sample::select};
use sculpt_core::{
    attempt::Fence,
    review::Review,
    task::{Effect, OnLost, Run, Task},
};
use uuid::Uuid;

use crate::{
    laws::{about, apply, has_a_way_on, own_fence},
    states::{What, fence, policy, start},
};

#[derive(Clone, Copy, Debug)]
enum Whose {
    Own,
    Older,
    Foreign,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    what: What,
    whose: Whose,
    after_seconds: i64,
}

fn any_move() -> impl Strategy<Value = Move> {
    let whose = prop_oneof![8 => Just(Whose::Own), 1 => Just(Whose::Older), 1 => Just(Whose::Foreign)];
    let seconds = prop_oneof![3 => 0..30_i64, 1 => 30..2_000_i64];
    (select(What::ALL), whose, seconds).prop_map(|(what, whose, after_seconds)| Move { what, whose, after_seconds })
}

/// The way of a task that goes well, so that random moves do not all die at the door.
fn mostly_forward() -> impl Strategy<Value = Vec<Move>> {
    let way =
        [What::Claim, What::SpecRead, What::StepAccepted, What::StepPreparing, What::StepRunning, What::PublishH1];
    let way = way.map(|what| Move { what, whose: Whose::Own, after_seconds: 1 });
    (0..=way.len(), vec(any_move(), 0..60)).prop_map(move |(steps, moves)| [&way[..steps], &moves].concat())
}

fn minted(task: &Task, whose: Whose) -> Fence {
    let own = own_fence(task);
    match whose {
        Whose::Own => own,
        Whose::Older => fence(own.number.saturating_sub(1)),
        Whose::Foreign => Fence { id: Uuid::from_u128(0xbad), ..own },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_a_law(moves in mostly_forward(), on_lost in select(&[OnLost::Wait, OnLost::Retry, OnLost::Fail][..])) {
        let mut task = Task::new(policy(on_lost));
        let mut now = start();
        let mut ends: HashMap<Fence, u32> = HashMap::new();
        let mut claimed: Vec<Fence> = Vec::new();
        let mut merged = None;
        for Move { what, whose, after_seconds } in moves {
            now += TimeDelta::seconds(after_seconds);
            let event = what.event(minted(&task, whose));
            let was_over = task.attempt().is_some_and(|attempt| attempt.ended());
            let own = task.attempt().map(|attempt| attempt.fence);
            let result = apply(&mut task, &event, now);
            if let (Some(fence), Ok(_)) = (about(&event), &result) {
                prop_assert_eq!(Some(fence), own);
            }
            match task.attempt() {
                Some(attempt) if attempt.ended() && !was_over => *ends.entry(attempt.fence).or_default() += 1,
                _ => {}
            }
            if matches!(what, What::Claim | What::Adopt) && result.is_ok() {
                let fence = own_fence(&task);
                prop_assert!(claimed.last().is_none_or(|last| last.number < fence.number), "{:?} then {:?}", claimed, fence);
                claimed.push(fence);
            }
            if merged.is_some() {
                prop_assert_eq!(&merged, &Some(task.review.clone()));
            } else if let Review::Merged { .. } = task.review {
                merged = Some(task.review.clone());
            }
            has_a_way_on(&task, now);
        }
        prop_assert!(ends.values().all(|times| *times == 1), "{:?}", ends);
    }

    #[test]
    fn the_same_event_twice_ends_or_claims_nothing_twice(moves in mostly_forward()) {
        let mut task = Task::new(policy(OnLost::Retry));
        let mut now = start();
        for Move { what, whose, after_seconds } in moves {
            now += TimeDelta::seconds(after_seconds);
            let event = what.event(minted(&task, whose));
            if apply(&mut task, &event, now).is_ok() {
                let once = task.clone();
                let again = apply(&mut task, &event, now);
                // Delivered twice, it is refused or changes nothing of weight.
                prop_assert_eq!(&task, &once, "{:?} said {:?}", event, again);
            }
        }
    }

    #[test]
    fn a_claim_tells_its_executor_alone(number in 1_u32..1_000) {
        let mut task = Task { run: Run::Queued { next: number }, ..Task::new(policy(OnLost::Wait)) };
        let executor = Uuid::from_u128(u128::from(number));
        let event = sculpt_core::task::Event::Claimed { fence: fence(number), executor };
        prop_assert_eq!(apply(&mut task, &event, start()), Ok(vec![Effect::Tell(executor)]));
    }
}

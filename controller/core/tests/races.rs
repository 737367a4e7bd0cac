//! Ends that race: whatever comes first wins, and wins once.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::{collection::vec, prelude::*, sample::select};
use sculpt_core::{
    attempt::Fence,
    task::{Event, IllegalTransition, OnLost, Task},
};
use uuid::Uuid;

use crate::{
    laws::{about, apply, own_fence},
    states::{What, fence, policy, start},
};

/// What can end an attempt, take a task from it, or move a ref, and what gets in between.
const RACERS: &[What] = &[
    What::Stop,
    What::Retry,
    What::RetryInWorkspace,
    What::Claim,
    What::SpecRead,
    What::Withdraw,
    What::StepAccepted,
    What::StepPreparing,
    What::StepRunning,
    What::StepFinalizing,
    What::EndCompleted,
    What::EndFailed,
    What::EndCancelled,
    What::EndFenced,
    What::EndLeft,
    What::PublishH1,
    What::PublishH2,
    What::Connected,
    What::Lost,
    What::Expire,
    What::Replace,
];

#[derive(Clone, Copy, Debug)]
enum Whose {
    /// The task's own attempt, or the number that is next.
    Own,
    /// An attempt of this number, whether the task has gone on without it or not.
    Number(u32),
    /// An attempt of the task's number, minted by a database that lost its last seconds.
    Foreign,
}

fn whose() -> impl Strategy<Value = Whose> {
    prop_oneof![6 => Just(Whose::Own), 3 => (1_u32..6).prop_map(Whose::Number), 1 => Just(Whose::Foreign)]
}

/// What the journal and the refs would hold.
#[derive(Default)]
struct Record {
    claimed: Vec<Fence>,
    over: HashMap<Fence, u32>,
    /// Who moved the branch last.
    branch: Option<Fence>,
}

impl Record {
    /// Moves `task` as the controller does, with what follows in the same transaction.
    fn dispatch(&mut self, task: &mut Task, event: &Event, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        let before = task.clone();
        apply(task, event, now)?;
        self.write(&before, event, task);
        if let Some(next) = task.follow_up(&before, event, now) {
            let between = task.clone();
            apply(task, &next, now)?;
            self.write(&between, &next, task);
        }
        Ok(())
    }

    fn write(&mut self, before: &Task, event: &Event, after: &Task) {
        if let Some(live) = before.attempt().filter(|attempt| !attempt.ended()) {
            let goes_on = after.attempt().is_some_and(|now| now.fence == live.fence && !now.ended());
            if !goes_on {
                let times = self.over.entry(live.fence).or_default();
                *times += 1;
                assert_eq!(*times, 1, "{:?} is over twice: {event:?} on {before:?}", live.fence);
            }
        }
        match event {
            Event::Claimed { fence, .. } => {
                assert!(self.claimed.last().is_none_or(|last| last.number < fence.number), "{:?}", self.claimed);
                self.claimed.push(*fence);
            }
            Event::Published { fence, .. } => {
                assert_eq!(self.claimed.last(), Some(fence), "an attempt that is not the newest moved a ref");
                assert!(!self.over.contains_key(fence), "an attempt that was over moved a ref");
                self.branch = Some(*fence);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_end_whatever_races(
        moves in vec((select(RACERS), whose(), 0..400_i64), 0..120),
        on_lost in select(&[OnLost::Wait, OnLost::Retry, OnLost::Fail][..]),
    ) {
        let mut task = Task::new(policy(on_lost));
        let mut record = Record::default();
        let mut now = start();
        for (what, whose, seconds) in moves {
            now += TimeDelta::seconds(seconds);
            let own = own_fence(&task);
            let fence = match whose {
                Whose::Own => own,
                Whose::Number(number) => fence(number),
                Whose::Foreign => Fence { id: Uuid::from_u128(0xbad), ..own },
            };
            let event = what.event(fence);
            let newest = task.attempt().map(|attempt| attempt.fence);
            let done = record.dispatch(&mut task, &event, now);
            if about(&event).is_some_and(|fence| Some(fence) != newest) {
                prop_assert_eq!(done, Err(IllegalTransition::Fenced { fence }));
            }
        }
        let live = task.attempt().filter(|attempt| !attempt.ended()).map(|attempt| attempt.fence);
        for fence in record.claimed {
            let expected = (Some(fence) != live).then_some(1);
            prop_assert_eq!(record.over.get(&fence).copied(), expected, "{:?}", fence);
        }
    }
}

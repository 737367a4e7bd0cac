//! Every task that can come to be, through two attempts: all laws hold on all of them.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::LazyLock,
};

use sculpt_core::{
    attempt::Fence,
    task::{Event, OnLost, Run, Task},
};
use uuid::Uuid;

use crate::{
    laws::{about, apply, has_a_way_on, own_fence},
    states::{What, describe, late, policy, soon},
};

const ATTEMPTS: u32 = 2;

/// By what the task says about a lost executor.
static REACHABLE: LazyLock<[Vec<Task>; 3]> =
    LazyLock::new(|| [OnLost::Wait, OnLost::Retry, OnLost::Fail].map(|on_lost| reach(Task::new(policy(on_lost)))));

fn reach(first: Task) -> Vec<Task> {
    let mut seen = HashSet::from([format!("{first:?}")]);
    let mut all = vec![first.clone()];
    let mut open = VecDeque::from([first]);
    while let Some(task) = open.pop_front() {
        for what in What::ALL {
            for now in [soon(), late()] {
                let mut after = task.clone();
                let moved = apply(&mut after, &what.event(own_fence(&task)), now).is_ok() && after != task;
                if moved && own_fence(&after).number <= ATTEMPTS && seen.insert(format!("{after:?}")) {
                    all.push(after.clone());
                    open.push_back(after);
                }
            }
        }
    }
    all
}

#[test]
fn all_have_a_way_on() {
    for all in REACHABLE.iter() {
        assert!(all.len() > 1_000, "only {} were reached", all.len());
        for task in all {
            has_a_way_on(task, late());
        }
    }
}

#[test]
fn another_fence_moves_none() {
    for task in REACHABLE.iter().flatten() {
        let own = own_fence(task);
        let foreign = Fence { id: Uuid::from_u128(0xbad), ..own };
        let older = Fence { number: own.number.wrapping_sub(1), ..own };
        let newer = Fence { number: own.number + 1, ..own };
        for what in What::ALL {
            for fence in [foreign, older, newer] {
                let event = what.event(fence);
                let stranger = match event {
                    // What had come after it in a history that was lost.
                    Event::Adopted { .. } if fence.number > own.number => continue,
                    // A claim mints its fence, of the number that is next.
                    Event::Claimed { .. } | Event::Adopted { .. } => {
                        fence.number != own.number || matches!(task.run, Run::Attempt(_))
                    }
                    _ => about(&event).is_some(),
                };
                if stranger {
                    assert!(apply(&mut task.clone(), &event, late()).is_err(), "{event:?} moved {task:?}");
                }
            }
        }
    }
}

#[test]
fn the_tables_speak_of_nothing_else() {
    let names: BTreeSet<String> = REACHABLE.iter().flatten().map(describe).collect();
    let stray: Vec<_> = crate::task::all_rows().into_iter().filter(|row| !names.contains(*row)).collect();
    assert!(stray.is_empty(), "rows that no task can be in: {stray:?}");
}

#[test]
fn every_event_moves_some_task_and_is_refused_by_another() {
    let [_, all, _] = &*REACHABLE;
    for what in What::ALL {
        let fits = |task: &Task| apply(&mut task.clone(), &what.event(own_fence(task)), late()).is_ok();
        assert!(all.iter().any(fits), "{} fits nothing", what.text());
        assert!(!all.iter().all(fits), "{} fits everything", what.text());
    }
}

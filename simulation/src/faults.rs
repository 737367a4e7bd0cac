//! What goes wrong, and when.

use std::time::Duration;

use crate::dice::Dice;

/// A way between a controller and an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The controller.
    pub controller: usize,
    /// The executor.
    pub executor: usize,
}

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No message passes.
    Cut(Link),
    /// None passes from the executor to the controller.
    CutUp(Link),
    /// None passes from the controller to the executor.
    CutDown(Link),
    /// Messages wait, and come all at once.
    Stall(Link),
    /// A controller is killed, and started again.
    KillController(usize),
    /// An executor is killed, and started again.
    KillExecutor(usize),
    /// A host is rebooted under its agents.
    Reboot(usize),
    /// The database refuses and forgets to answer.
    FoulDatabase,
    /// The database takes its time.
    SlowDatabase,
}

impl Fault {
    /// Whether both would work on the same thing, and end each other.
    pub fn collides(self, other: Self) -> bool {
        let place = |fault| match fault {
            Self::Cut(link) | Self::CutUp(link) | Self::CutDown(link) | Self::Stall(link) => {
                (0, link.controller, link.executor)
            }
            Self::KillController(controller) => (1, controller, 0),
            Self::KillExecutor(executor) | Self::Reboot(executor) => (2, executor, 0),
            Self::FoulDatabase | Self::SlowDatabase => (3, 0, 0),
        };
        place(self) == place(other)
    }
}

/// When a fault begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// From.
    pub from: Duration,
    /// Until.
    pub until: Duration,
    /// What.
    pub fault: Fault,
}

/// What goes wrong within `span`, in the order of its beginning.
pub fn plan(dice: &Dice, controllers: usize, executors: usize, span: Duration) -> Vec<Planned> {
    let most = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut planned: Vec<Planned> = (0..dice.roll(2..12))
        .map(|_| {
            let from = dice.millis(0..most);
            let link = Link { controller: dice.roll(0..controllers), executor: dice.roll(0..executors) };
            let fault = fault(dice, link);
            let lasts = match dice.roll(0..10) {
                0..5 => dice.millis(50..5_000),
                5..8 => dice.millis(5_000..40_000),
                _ => dice.millis(60_000..200_000),
            };
            Planned { from, until: from + lasts, fault }
        })
        .collect();
    planned.sort_by_key(|planned| planned.from);
    planned
}

fn fault(dice: &Dice, link: Link) -> Fault {
    match dice.roll(0..20) {
        0..3 => Fault::Cut(link),
        3..6 => Fault::CutUp(link),
        6..9 => Fault::CutDown(link),
        9..11 => Fault::Stall(link),
        11..14 => Fault::KillController(link.controller),
        14..17 => Fault::KillExecutor(link.executor),
        17 => Fault::Reboot(link.executor),
        18 => Fault::FoulDatabase,
        _ => Fault::SlowDatabase,
    }
}

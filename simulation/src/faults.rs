//! What goes wrong, and when.

use std::time::Duration;

use crate::dice::Dice;

/// The ways between an executor and controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The controller; none: all of them.
    pub controller: Option<usize>,
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
    /// A controller's database refuses and forgets to answer.
    FoulDatabase(usize),
    /// A controller's database takes its time.
    SlowDatabase(usize),
    /// A controller's database neither answers nor refuses, and takes up then what it was asked.
    HungDatabase(usize),
    /// Messages come twice, late and again.
    Noise,
    /// When this is over the database fails over to a copy that lacks everything since it began.
    Failover,
    /// What follows: nobody is answered until the copy has been promoted.
    Promotion,
}

/// How long a promotion takes: no session lives through it unawares, since each asks the database more often.
pub const PROMOTION: Duration = Duration::from_secs(8);

impl Fault {
    /// Whether both would work on the same thing, and end each other.
    pub fn collides(self, other: Self) -> bool {
        let place = |fault| match fault {
            Self::Cut(link) | Self::CutUp(link) | Self::CutDown(link) | Self::Stall(link) => {
                (0, link.executor, link.controller)
            }
            Self::KillController(controller) => (1, controller, None),
            Self::KillExecutor(executor) | Self::Reboot(executor) => (2, executor, None),
            Self::FoulDatabase(controller) | Self::SlowDatabase(controller) | Self::HungDatabase(controller) => {
                (3, controller, None)
            }
            Self::Noise => (4, 0, None),
            Self::Failover | Self::Promotion => (5, 0, None),
        };
        match (place(self), place(other)) {
            ((0, one, ways), (0, another, others)) => {
                one == another && (ways.is_none() || others.is_none() || ways == others)
            }
            (one, another) => one == another,
        }
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
            let (fault, lasts) = fault(dice, dice.roll(0..controllers), dice.roll(0..executors));
            Planned { from, until: from + lasts, fault }
        })
        .collect();
    planned.sort_by_key(|planned| planned.from);
    planned
}

/// What goes wrong, and for how long.
fn fault(dice: &Dice, controller: usize, executor: usize) -> (Fault, Duration) {
    let way = Link { controller: Some(controller), executor };
    let lasts = match dice.roll(0..10) {
        0..5 => dice.millis(50..5_000),
        5..8 => dice.millis(5_000..40_000),
        _ => dice.millis(60_000..200_000),
    };
    let fault = match dice.roll(0..30) {
        0..3 => Fault::Cut(way),
        3..6 => Fault::CutUp(way),
        6..9 => Fault::CutDown(way),
        9..11 => Fault::Stall(way),
        11..14 => Fault::KillController(controller),
        14..17 => Fault::KillExecutor(executor),
        17 => Fault::Reboot(executor),
        18 => Fault::FoulDatabase(controller),
        19 => Fault::SlowDatabase(controller),
        20..24 => Fault::Noise,
        24..26 => return (Fault::Failover, dice.millis(100..8_000)),
        // What outlasts a lease and the margin behind it.
        _ => return (lasting(dice, controller, executor), dice.millis(60_000..300_000)),
    };
    (fault, lasts)
}

fn lasting(dice: &Dice, controller: usize, executor: usize) -> Fault {
    let ways = Link { controller: None, executor };
    *dice.pick(&[Fault::Cut(ways), Fault::CutUp(ways), Fault::CutDown(ways), Fault::HungDatabase(controller)])
}

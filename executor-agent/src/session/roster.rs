//! The attempts of an executor, as its control session uses them.

use sculpt_proto::{
    executor::v1::{ObservedAttempt, Report},
    id::{AttemptId, ClusterId},
};

use super::{Wanted, Wish, wire::report};
use crate::{
    attempts::{Attempts, Damage, Handle},
    journal::{Entry, Journal, Stamp},
    report::Step,
    tmux::Status,
};

/// What a session learns of an attempt that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// The cluster that minted it.
    pub cluster: ClusterId,
    /// Last sequence in its journal.
    pub last: u64,
    /// The controller has released it before.
    pub released: bool,
}

/// What a session learns of an attempt that cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The cluster that minted it, if that can be read.
    pub cluster: Option<ClusterId>,
    /// It is over.
    pub over: bool,
}

/// Attempts as a control session uses them. The simulation has others.
pub trait Roster: Send + Sync + 'static {
    /// Everything that is here, for the controller.
    fn observed(&self) -> Vec<ObservedAttempt>;

    /// An attempt whose spec is on disk.
    fn present(&self, attempt: AttemptId) -> Option<Present>;

    /// An attempt that cannot be gone on with.
    fn damaged(&self, attempt: AttemptId) -> Option<Damaged>;

    /// Remarks for people on what is here.
    fn notes(&self) -> Vec<String>;

    /// Its reports from `from` to `through`, both included, as they are told at `now`.
    fn reports(&self, attempt: AttemptId, from: u64, through: u64, now: &Stamp) -> Vec<Report>;

    /// How many slots are taken.
    fn slots_used(&self) -> u32;

    /// Begins an attempt, unless it is here already.
    fn start(&self, wanted: Wanted);

    /// Hands a wish to an attempt.
    fn wish(&self, attempt: AttemptId, wish: Wish);

    /// Tells an attempt what people at its screen are to read. Nobody looks on in the simulation.
    fn say(&self, _attempt: AttemptId, _said: Status) {}

    /// Gives up an attempt of which nothing has been reported.
    fn abandon(&self, attempt: AttemptId);

    /// Takes note that the controller holds everything of an attempt.
    fn release(&self, attempt: AttemptId);

    /// The controller wants it again.
    fn unrelease(&self, attempt: AttemptId);

    /// Publishes again what the controller has lost of it, and tells the session when its end can be told once more.
    fn publish_again(&self, attempt: AttemptId);

    /// Hands their specs to a controller that takes them over. Nobody asks for that in the simulation.
    fn hand_in(&self, _attempts: Vec<AttemptId>) {}
}

impl Roster for Attempts {
    fn observed(&self) -> Vec<ObservedAttempt> {
        self.all().iter().filter_map(|handle| observe(handle)).collect()
    }

    fn present(&self, attempt: AttemptId) -> Option<Present> {
        let handle = self.get(attempt)?;
        let (spec, journal) = (handle.spec()?, handle.journal()?);
        Some(Present {
            cluster: handle.cluster().unwrap_or(spec.cluster),
            last: journal.last(),
            released: handle.released(),
        })
    }

    fn damaged(&self, attempt: AttemptId) -> Option<Damaged> {
        let handle = self.get(attempt)?;
        handle.damage()?;
        Some(Damaged { cluster: handle.cluster(), over: handle.over() })
    }

    fn notes(&self) -> Vec<String> {
        let all = self.all();
        let damaged = all.iter().filter_map(|handle| Some((handle.id, handle.damage()?)));
        let damaged = damaged.map(|(id, damage)| format!("attempt {id}: {}", damage.text()));
        damaged.chain(self.unlimited()).collect()
    }

    fn reports(&self, attempt: AttemptId, from: u64, through: u64, now: &Stamp) -> Vec<Report> {
        let entries = self.get(attempt).and_then(|handle| Some(handle.journal()?.range(from, through)));
        let unpublished = self.get(attempt).and_then(|handle| handle.unpublished());
        let step = |step: Step| match &unpublished {
            Some(why) => step.unpublished(why),
            None => step,
        };
        let told = |entry: Entry| report(attempt, entry.sequence, entry.at.age(now), step(entry.step));
        entries.into_iter().flatten().map(told).collect()
    }

    fn slots_used(&self) -> u32 {
        self.slots_used()
    }

    fn start(&self, wanted: Wanted) {
        self.start(wanted);
    }

    fn wish(&self, attempt: AttemptId, wish: Wish) {
        self.wish(attempt, wish);
    }

    fn say(&self, attempt: AttemptId, said: Status) {
        self.say(attempt, said);
    }

    fn abandon(&self, attempt: AttemptId) {
        self.abandon(attempt);
    }

    fn release(&self, attempt: AttemptId) {
        self.release(attempt);
    }

    fn unrelease(&self, attempt: AttemptId) {
        self.unrelease(attempt);
    }

    fn publish_again(&self, attempt: AttemptId) {
        self.publish_again(attempt);
    }

    fn hand_in(&self, attempts: Vec<AttemptId>) {
        self.hand_in(attempts);
    }
}

/// None for what is only about to begin.
fn observe(handle: &Handle) -> Option<ObservedAttempt> {
    let (spec, journal) = (handle.spec(), handle.journal());
    if handle.damage().is_none() && (spec.is_none() || journal.is_none()) {
        return None;
    }
    let unreadable = match handle.damage() {
        // Once it is named the controller asks nothing more of it.
        _ if !handle.log_delivered() => None,
        Some(Damage::Aside(text)) => Some(text.clone()),
        Some(Damage::Watched(_)) => None,
        None => handle.log_break().filter(|_| handle.ended()).map(|found| found.note()),
    };
    Some(ObservedAttempt {
        attempt_id: handle.id.to_string(),
        task_id: spec.map(|spec| spec.task.to_string()).unwrap_or_default(),
        number: spec.map_or(0, |spec| spec.number),
        cluster_id: handle.cluster().map(|cluster| cluster.to_string()).unwrap_or_default(),
        report_sequence: journal.map_or(0, Journal::last),
        log_length: handle.log_end().length,
        ended: handle.over(),
        unreadable: unreadable.unwrap_or_default(),
    })
}

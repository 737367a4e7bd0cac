//! The attempts of an executor, as its control session uses them.

use sculpt_proto::{
    executor::v1::{ObservedAttempt, Report},
    id::{AttemptId, ClusterId},
};

use super::{Wanted, Wish, wire::report};
use crate::{
    attempts::Attempts,
    journal::{Entry, Stamp},
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

/// Attempts as a control session uses them. The simulation has others.
pub trait Roster: Send + Sync + 'static {
    /// Everything that is here, for the controller.
    fn observed(&self) -> Vec<ObservedAttempt>;

    /// An attempt whose spec is on disk.
    fn present(&self, attempt: AttemptId) -> Option<Present>;

    /// Its reports from `from` to `through`, both included, as they are told at `now`.
    fn reports(&self, attempt: AttemptId, from: u64, through: u64, now: &Stamp) -> Vec<Report>;

    /// How many slots are taken.
    fn slots_used(&self) -> u32;

    /// Begins an attempt, unless it is here already.
    fn start(&self, wanted: Wanted);

    /// Hands a wish to an attempt.
    fn wish(&self, attempt: AttemptId, wish: Wish);

    /// Gives up an attempt of which nothing has been reported.
    fn abandon(&self, attempt: AttemptId);

    /// Takes note that the controller holds everything of an attempt.
    fn release(&self, attempt: AttemptId);

    /// The controller wants it again.
    fn unrelease(&self, attempt: AttemptId);
}

impl Roster for Attempts {
    fn observed(&self) -> Vec<ObservedAttempt> {
        let all = self.all();
        let observed = all.iter().filter_map(|handle| {
            let (spec, journal) = (handle.spec()?, handle.journal()?);
            Some(ObservedAttempt {
                attempt_id: handle.id.to_string(),
                task_id: spec.task.to_string(),
                number: spec.number,
                cluster_id: spec.cluster.to_string(),
                report_sequence: journal.last(),
                log_length: handle.log_end().length,
                ended: handle.ended(),
                unreadable: String::new(),
            })
        });
        observed.collect()
    }

    fn present(&self, attempt: AttemptId) -> Option<Present> {
        let handle = self.get(attempt)?;
        let (spec, journal) = (handle.spec()?, handle.journal()?);
        Some(Present { cluster: spec.cluster, last: journal.last(), released: handle.released() })
    }

    fn reports(&self, attempt: AttemptId, from: u64, through: u64, now: &Stamp) -> Vec<Report> {
        let entries = self.get(attempt).and_then(|handle| Some(handle.journal()?.range(from, through)));
        let told = |entry: Entry| report(attempt, entry.sequence, entry.at.age(now), entry.step);
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

    fn abandon(&self, attempt: AttemptId) {
        self.abandon(attempt);
    }

    fn release(&self, attempt: AttemptId) {
        self.release(attempt);
    }

    fn unrelease(&self, attempt: AttemptId) {
        self.unrelease(attempt);
    }
}

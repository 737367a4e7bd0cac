//! The attempts of a simulated executor: what the real ones do with processes and files, done with a [`Machine`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use sculpt_executor::{
    attempts::{Context, News},
    journal::Stamp,
    report::Step,
    session::{Damaged, Present, Roster, Wanted, Wish, report},
    spec::Spec,
};
use sculpt_proto::{
    executor::v1::{AttemptSpec, ObservedAttempt, Report},
    id::AttemptId,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    life,
    machine::{Machine, Record},
};
use crate::world::World;

/// The attempts. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    /// What they share with the session.
    pub(super) context: Arc<Context>,
    /// Where they are.
    pub(super) machine: Machine,
    /// Time and chance.
    pub(super) world: World,
    held: Arc<Mutex<BTreeMap<AttemptId, Handle>>>,
}

/// One attempt in memory.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    /// What is wanted of it.
    pub(super) wish: watch::Sender<Wish>,
    /// Nothing of it was ever reported, and it is not wanted any more.
    pub(super) abandoned: CancellationToken,
}

impl Attempts {
    /// Takes up everything that is on the machine's disk.
    pub(super) fn adopt(context: Arc<Context>, machine: Machine, world: World) -> Self {
        let attempts = Self { context, machine, world, held: Arc::default() };
        for id in attempts.machine.ids() {
            attempts.spawn(id, Wish::Run, None);
        }
        attempts
    }

    /// What an attempt is to do.
    pub(super) fn spec(&self, attempt: AttemptId) -> Option<Spec> {
        let record = self.machine.record(attempt)?;
        Spec::try_from(AttemptSpec::decode(record.spec.as_slice()).ok()?).ok()
    }

    /// Writes a step down and tells the session. A crash in the middle of it leaves nothing, or the step alone.
    pub(super) async fn record(&self, attempt: AttemptId, step: Step) {
        tokio::time::sleep(self.world.dice.millis(0..8)).await;
        let sequence = self.machine.write_step(attempt, step);
        // The session is gone only when everything ends.
        let _ending = self.context.news.send(News::Recorded(attempt, sequence)).await;
    }

    /// Until something is looked at again.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(self.world.dice.millis(20..400)).await;
    }

    /// Drops an attempt that never began.
    pub(super) async fn forget(&self, attempt: AttemptId) {
        self.held().remove(&attempt);
        let _ending = self.context.news.send(News::Gone(attempt)).await;
    }

    fn spawn(&self, attempt: AttemptId, wish: Wish, digest: Option<Vec<u8>>) {
        let handle = Handle { wish: watch::Sender::new(wish), abandoned: CancellationToken::new() };
        self.held().insert(attempt, handle.clone());
        tokio::spawn(life::run(self.clone(), attempt, handle, digest));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Handle>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_a_head((step, _): &(Step, Duration)) -> bool {
    matches!(step, Step::Ended(ended) if ended.head.is_some())
}

impl Roster for Attempts {
    fn observed(&self) -> Vec<ObservedAttempt> {
        let records = self.machine.records();
        let observed = records.iter().filter_map(|(id, record)| {
            let spec = self.spec(*id)?;
            Some(ObservedAttempt {
                attempt_id: id.to_string(),
                task_id: spec.task.to_string(),
                number: spec.number,
                cluster_id: spec.cluster.to_string(),
                report_sequence: record.journal.len() as u64,
                log_length: record.spool.len() as u64,
                ended: record.ended(),
                unreadable: String::new(),
            })
        });
        observed.collect()
    }

    fn present(&self, attempt: AttemptId) -> Option<Present> {
        let record = self.machine.record(attempt)?;
        let cluster = self.spec(attempt)?.cluster;
        Some(Present { cluster, last: record.journal.len() as u64, released: record.released })
    }

    fn damaged(&self, _attempt: AttemptId) -> Option<Damaged> {
        None
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn reports(&self, attempt: AttemptId, from: u64, through: u64, _now: &Stamp) -> Vec<Report> {
        let Some(record) = self.machine.record(attempt) else { return Vec::new() };
        let now = self.world.now();
        let step = |step: Step| if record.unpublished { step.unpublished("refused") } else { step };
        let told = |(told, at): (Step, Duration)| (step(told), at);
        let numbered = record.journal.into_iter().map(told).zip(1_u64..);
        let wanted = numbered.filter(|(_, sequence)| (from..=through).contains(sequence));
        wanted.map(|((step, at), sequence)| report(attempt, sequence, now.saturating_sub(at), step)).collect()
    }

    fn slots_used(&self) -> u32 {
        let ids = self.machine.ids().into_iter();
        let live = ids.filter(|id| self.machine.peek(*id, Record::ended) == Some(false)).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    fn start(&self, wanted: Wanted) {
        if !self.held().contains_key(&wanted.attempt) {
            self.spawn(wanted.attempt, wanted.wish, Some(wanted.digest));
        }
    }

    fn wish(&self, attempt: AttemptId, wish: Wish) {
        if let Some(handle) = self.held().get(&attempt) {
            handle.wish.send_replace(wish);
        }
    }

    fn abandon(&self, attempt: AttemptId) {
        if self.machine.peek(attempt, |_| ()).is_none()
            && let Some(handle) = self.held().get(&attempt)
        {
            handle.abandoned.cancel();
        }
    }

    fn release(&self, attempt: AttemptId) {
        if self.machine.peek(attempt, Record::ended) == Some(true) {
            self.machine.write_released(attempt, true);
        }
    }

    fn publish_again(&self, attempt: AttemptId) {
        let attempts = self.clone();
        tokio::spawn(async move {
            let published = attempts.machine.peek(attempt, |record| record.journal.last().is_some_and(names_a_head));
            if published == Some(true) && life::publish(&attempts, attempt).await.is_none() {
                attempts.machine.write_unpublished(attempt);
            }
            let _ending = attempts.context.news.send(News::PublishedAgain(attempt)).await;
        });
    }

    fn unrelease(&self, attempt: AttemptId) {
        self.machine.write_released(attempt, false);
        self.context.log_growth.notify_one();
    }
}

/// How long a shim may take to end its agent.
pub(super) const GRACE: Duration = Duration::from_secs(4);

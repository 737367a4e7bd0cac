//! Who saw what really happened, and compares what the book says with it at each commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sculpt_controller::{
    session::reports::{Report, Told},
    store::sessions::Epoch,
};
use sculpt_core::{
    attempt::AttemptState,
    outcome::{Cause, Outcome},
    task::{Intent, OnLost},
};
use sculpt_proto::id::{AttemptId, ExecutorId, TaskId};

use crate::{
    book::rows::{Next, Rows},
    world::World,
};

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Itself(i32),
    /// Somebody wanted it to stop.
    Stopped,
    /// It was fenced.
    Fenced,
    /// Its lease ran out.
    Lease,
    /// Its host was restarted.
    Rebooted,
}

/// What an agent really did.
#[derive(Clone, Debug)]
struct Deed {
    /// None: the database has forgotten it.
    task: Option<TaskId>,
    executor: ExecutorId,
    /// Everything that it printed.
    printed: Vec<u8>,
    ended: Option<(Duration, Ending)>,
}

/// Saw everything. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Witness {
    world: World,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    deeds: BTreeMap<AttemptId, Deed>,
    ends: BTreeMap<AttemptId, String>,
    stopped: BTreeSet<TaskId>,
    /// What went on when the database was set back: some of what it was promised is lost, and another attempt may stand
    /// beside it.
    set_back: BTreeSet<AttemptId>,
}

impl Witness {
    /// Has seen nothing yet.
    pub fn new(world: World) -> Self {
        Self { world, seen: Arc::default() }
    }

    /// An agent begins on `executor`. One that may be replaced must have no other beside it.
    pub fn begins(&self, rows: &Rows, attempt: AttemptId, executor: ExecutorId) {
        let mut seen = self.seen();
        let task = rows.attempts.get(&attempt).map(|row| row.task);
        if task.is_none() && !seen.set_back.contains(&attempt) {
            self.world.wrong(format_args!("{attempt} runs, and the book has never heard of it"));
        }
        let policy = task.and_then(|task| Some(rows.tasks.get(&task)?.policy));
        let retried = policy.is_some_and(|policy| policy.on_lost == OnLost::Retry);
        for (other, deed) in seen.deeds.iter().filter(|(other, _)| !seen.set_back.contains(other)) {
            if retried && deed.task == task && deed.ended.is_none() {
                self.world
                    .wrong(format_args!("{attempt} begins on {executor} while {other} runs on {}", deed.executor));
            }
        }
        let deed = Deed { task, executor, printed: Vec::new(), ended: None };
        if seen.deeds.insert(attempt, deed).is_some() {
            self.world.wrong(format_args!("{attempt} was begun twice"));
        }
    }

    /// An agent prints.
    pub fn prints(&self, attempt: AttemptId, bytes: &[u8]) {
        if let Some(deed) = self.seen().deeds.get_mut(&attempt) {
            deed.printed.extend_from_slice(bytes);
        }
    }

    /// An agent has ended, and there must be a reason.
    pub fn ends(&self, rows: &Rows, attempt: AttemptId, ending: Ending) {
        let row = rows.attempts.get(&attempt);
        let mut seen = self.seen();
        let stopped = row.is_some_and(|row| seen.stopped.contains(&row.task));
        let task = row.and_then(|row| rows.tasks.get(&row.task));
        let right = match ending {
            Ending::Itself(_) | Ending::Rebooted => true,
            Ending::Stopped => stopped,
            Ending::Fenced => row.is_some_and(|row| row.fenced),
            Ending::Lease => task.is_some_and(|task| task.policy.on_lost == OnLost::Retry),
        };
        if !right && !seen.set_back.contains(&attempt) {
            self.world.wrong(format_args!("{attempt} was ended without a reason: {ending:?}"));
        }
        if let Some(deed) = seen.deeds.get_mut(&attempt) {
            deed.ended.get_or_insert((self.world.now(), ending));
        }
    }

    /// The database was set back to `copy`, and held `lost` before.
    pub fn set_back(&self, lost: &Rows, copy: &Rows) {
        let mut seen = self.seen();
        let over = |attempt: &&AttemptId| copy.attempts.get(*attempt).is_some_and(|row| row.released);
        let open: Vec<AttemptId> = lost.attempts.keys().filter(|attempt| !over(attempt)).copied().collect();
        seen.ends.retain(|attempt, _| !open.contains(attempt));
        seen.set_back.extend(open);
    }

    /// Somebody stopped a task.
    pub fn stopped(&self, task: TaskId) {
        self.seen().stopped.insert(task);
    }

    /// A session wrote; it must have been the newest of its executor.
    pub fn wrote(&self, rows: &Rows, epoch: Epoch) {
        let newest = rows.executors.get(&epoch.executor).map(|row| row.epoch);
        if newest != Some(epoch.number) {
            self.world
                .wrong(format_args!("session {} of {} wrote, the newest is {newest:?}", epoch.number, epoch.executor));
        }
    }

    /// I2: a report was committed; an attempt ends once.
    pub fn reported(&self, rows: &Rows, report: &Report) {
        let Some(row) = rows.attempts.get(&report.attempt) else { return };
        if !matches!(report.told, Told::Ended { .. }) {
            return;
        }
        let AttemptState::Ended { outcome, .. } = &row.attempt.state else { return };
        let outcome = format!("{outcome:?}");
        let mut seen = self.seen();
        match seen.ends.get(&report.attempt) {
            Some(before) if *before != outcome => {
                self.world.wrong(format_args!("{} ended as {before} and again as {outcome}", report.attempt));
            }
            Some(_) | None => drop(seen.ends.insert(report.attempt, outcome)),
        }
    }

    /// I5: an executor is told that reports up to `through`, or bytes up to `committed`, are committed.
    pub fn promised(&self, rows: &Rows, attempt: AttemptId, through: Option<u64>, committed: Option<u64>) {
        let set_back = self.seen().set_back.contains(&attempt);
        let Some(row) = rows.attempts.get(&attempt).filter(|_| !set_back) else { return };
        let (reports, bytes) = (row.through, row.log.len() as u64);
        if through.is_some_and(|through| through > reports && !row.fenced)
            || committed.is_some_and(|committed| committed > bytes)
        {
            self.world.wrong(format_args!(
                "{attempt} is promised {through:?} reports and {committed:?} bytes; {reports} and {bytes} are committed"
            ));
        }
    }

    /// I1: what the book holds of each log is the beginning of what was printed.
    pub fn logged(&self, rows: &Rows) {
        let seen = self.seen();
        for (attempt, row) in &rows.attempts {
            let printed = seen.deeds.get(attempt).map_or(&[][..], |deed| &deed.printed);
            if !printed.starts_with(&row.log) {
                self.world.wrong(format_args!(
                    "the book holds {} bytes of {attempt} that are not those it printed",
                    row.log.len()
                ));
            }
        }
    }

    /// I3: a head was taken; only from the current attempt, and numbers only rise.
    pub fn published(&self, rows: &Rows, attempt: AttemptId, head: &str) {
        let Some(row) = rows.attempts.get(&attempt) else { return };
        let newest = rows.newest(attempt);
        let before = rows.tasks.get(&row.task).and_then(|task| task.published.clone());
        let falls = before.is_some_and(|(number, _)| number > row.attempt.fence.number);
        if !newest || row.fenced || falls {
            self.world.wrong(format_args!("{attempt} published {head}, and its task has gone on without it"));
        }
    }

    /// When everything has come to rest: nothing is owed, and the book says what happened.
    pub fn judge(&self, rows: &Rows) {
        for (id, task) in &rows.tasks {
            let over = match task.run {
                Next::Queued(_) => task.intent == Intent::Cancel,
                Next::Newest(attempt) => rows.attempts.get(&attempt).is_some_and(|row| row.attempt.ended()),
            };
            if !over {
                self.world.wrong(format_args!("task {id} is not over: {:?}", rows.task(*id).map(|task| task.run)));
            }
        }
        let seen = self.seen();
        for (id, row) in &rows.attempts {
            let deed = seen.deeds.get(id);
            if !row.settled() {
                self.world.wrong(format_args!(
                    "something is still owed for {id}: {:?}, fenced {}, {} of {:?} bytes, reports {}",
                    row.attempt.state,
                    row.fenced,
                    row.log.len(),
                    row.log_final,
                    row.through
                ));
            }
            let Some(deed) = deed.filter(|_| !row.fenced) else { continue };
            if deed.printed != row.log {
                self.world.wrong(format_args!(
                    "{id} printed {} bytes, the book has {}",
                    deed.printed.len(),
                    row.log.len()
                ));
            }
            let AttemptState::Ended { outcome, .. } = &row.attempt.state else { continue };
            let fits = match (deed.ended, outcome) {
                (Some((_, Ending::Itself(0))), Outcome::Completed) => true,
                (Some((_, Ending::Itself(code))), Outcome::Failed(_)) => code != 0,
                (Some((_, Ending::Stopped)), Outcome::Cancelled) => true,
                (Some((_, Ending::Fenced)), Outcome::Fenced) => true,
                (Some((_, Ending::Lease)), Outcome::Failed(failure)) => failure.cause == Cause::ExecutorLost,
                (Some((_, Ending::Rebooted)), Outcome::Failed(failure)) => failure.cause == Cause::Interrupted,
                _ => false,
            };
            let lost = match outcome {
                Outcome::Failed(failure) => failure.cause == Cause::Publish && seen.set_back.contains(id),
                Outcome::Completed | Outcome::Cancelled | Outcome::Fenced => false,
            };
            if !fits && !lost {
                self.world.wrong(format_args!("{id} ended {:?}, and the book says {outcome:?}", deed.ended));
            }
        }
        for (id, deed) in seen.deeds.iter().filter(|(id, deed)| deed.ended.is_none() && !seen.set_back.contains(id)) {
            self.world.wrong(format_args!("{id} still runs on {}", deed.executor));
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

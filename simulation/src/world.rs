//! What every part of a simulation shares: time, the trace of what happened, and what was found to be wrong.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{dice::Dice, guard::Guard};

/// One simulated world. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World {
    /// Where the parts draw delays and ids from.
    pub dice: Dice,
    without: Option<Guard>,
    clock: Arc<AtomicU64>,
    noise: Arc<AtomicBool>,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    hash: DefaultHasher,
    lines: Vec<String>,
    wrong: Vec<String>,
}

impl World {
    /// A world at its beginning, in which one guard may be missing.
    pub fn new(dice: Dice, without: Option<Guard>) -> Self {
        Self { dice, without, clock: Arc::default(), noise: Arc::default(), record: Arc::default() }
    }

    /// Whether a guard is missing.
    pub fn lacks(&self, guard: Guard) -> bool {
        self.without == Some(guard)
    }

    /// Time since the beginning; it moves with the ticks of the network.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.clock.load(Ordering::Relaxed))
    }

    /// The same as the database tells it.
    pub fn wall(&self) -> DateTime<Utc> {
        let start = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        start + TimeDelta::from_std(self.now()).unwrap_or_default()
    }

    /// It is `now`.
    pub fn pass(&self, now: Duration) {
        self.clock.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether messages come as they should not.
    pub fn noisy(&self) -> bool {
        self.noise.load(Ordering::Relaxed)
    }

    /// Messages come as they should not from now on, or as they should.
    pub fn set_noise(&self, noise: bool) {
        self.noise.store(noise, Ordering::Relaxed);
    }

    /// Something happened.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {what}", self.now().as_secs_f64());
        let mut record = self.record();
        line.hash(&mut record.hash);
        record.lines.push(line);
    }

    /// Something happened that must not.
    pub fn wrong(&self, what: fmt::Arguments<'_>) {
        self.tell(format_args!("WRONG: {what}"));
        let line = format!("{:>9.3} {what}", self.now().as_secs_f64());
        self.record().wrong.push(line);
    }

    /// Everything that must not have happened.
    pub fn wrongs(&self) -> Vec<String> {
        self.record().wrong.clone()
    }

    /// Two runs of one seed have the same.
    pub fn hash(&self) -> u64 {
        self.record().hash.finish()
    }

    /// Everything that happened.
    pub fn lines(&self) -> Vec<String> {
        self.record().lines.clone()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Chance, and all of it from one seed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, distr::uniform::SampleRange, distr::uniform::SampleUniform, rngs::StdRng};
use uuid::Uuid;

/// A source of chance; clones draw from the same one.
#[derive(Clone, Debug)]
pub struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    /// Always the same for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A number in `range`.
    pub fn roll<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        self.rng().random_range(range)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&self, percent: u32) -> bool {
        self.roll(0..100) < percent
    }

    /// A span of so many milliseconds.
    pub fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.roll(range))
    }

    /// An id that no other draw gives.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng().random()).into_uuid()
    }

    /// One of `items`; there must be one.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.roll(0..items.len())]
    }

    /// A source of its own, so that what draws from it does not shift what others draw.
    pub fn split(&self) -> Self {
        let seed = self.rng().random();
        Self::new(seed)
    }

    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

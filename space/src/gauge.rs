//! PURE: how full it is between two measurements, and when the next is worth its price.

use std::time::Duration;

use crate::{Disk, Level, Space};

/// Between two measurements while nothing is near.
const SELDOM: Duration = Duration::from_secs(600);

/// And at least, when an estimate says that something has changed.
const OFTEN: Duration = Duration::from_secs(5);

/// Measuring takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// Keeps the last measurement and estimates from it: what has gone from the disk since then counts as ours, which is too
/// much, never too little. A consequence is drawn from such an estimate only until the next measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauge {
    limit: Option<u64>,
    last: Option<Measured>,
    level: Level,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    used: u64,
    free: u64,
    at: Duration,
    took: Duration,
    level: Level,
}

impl Gauge {
    /// Nothing is known yet. `limit`: what may be used, in bytes.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, last: None, level: Level::Open }
    }

    /// Our directories took `used` bytes at `at`, which took `took` to find out.
    pub fn measured(&mut self, used: u64, disk: Disk, at: Duration, took: Duration) -> (Space, Level) {
        let space = Space::of(used, disk, self.limit);
        self.level = space.level(self.level);
        self.last = Some(Measured { used, free: disk.free, at, took, level: self.level });
        (space, self.level)
    }

    /// How full it is, as far as `disk` tells.
    pub fn estimate(&mut self, disk: Disk) -> (Space, Level) {
        let used = self.last.map_or(0, |last| last.used.saturating_add(last.free.saturating_sub(disk.free)));
        let space = Space::of(used, disk, self.limit);
        self.level = space.level(self.level);
        (space, self.level)
    }

    /// Whether it is time to measure.
    pub fn is_due(&self, now: Duration) -> bool {
        let Some(last) = self.last else { return true };
        let pause = if last.level == self.level { SELDOM } else { OFTEN };
        now.saturating_sub(last.at) >= pause.max(last.took * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn disk(free: u64) -> Disk {
        Disk { total: 0, free }
    }

    #[test]
    fn what_goes_from_the_disk_counts_until_it_is_measured() {
        let mut gauge = Gauge::new(Some(100));
        assert!(gauge.is_due(Duration::ZERO));
        assert_eq!(gauge.measured(50, disk(1000), SECOND, SECOND), (Space { used: 50, budget: 100 }, Level::Open));
        assert_eq!(gauge.estimate(disk(975)), (Space { used: 75, budget: 100 }, Level::Open));
        // Others gave some back: that is not ours.
        assert_eq!(gauge.estimate(disk(2000)).0.used, 50);
        assert!(!gauge.is_due(SECOND * 500));
        assert_eq!(gauge.estimate(disk(970)).1, Level::Closed);
        assert!(!gauge.is_due(SECOND * 20) && gauge.is_due(SECOND * 21));
        // It was somebody else's.
        assert_eq!(gauge.measured(50, disk(970), SECOND * 21, SECOND), (Space { used: 50, budget: 100 }, Level::Open));
        assert!(!gauge.is_due(SECOND * 600) && gauge.is_due(SECOND * 621));
    }

    #[test]
    fn a_slow_measurement_is_rare() {
        let mut gauge = Gauge::new(None);
        gauge.measured(50, disk(1000), SECOND, SECOND * 60);
        assert!(!gauge.is_due(SECOND * 1200) && gauge.is_due(SECOND * 1201));
    }

    #[test]
    fn without_a_limit_the_budget_is_what_is_ours_or_free() {
        let mut gauge = Gauge::new(None);
        gauge.measured(50, disk(50), SECOND, SECOND);
        assert_eq!(gauge.estimate(disk(10)), (Space { used: 90, budget: 100 }, Level::Closed));
        assert_eq!(gauge.estimate(disk(4)).1, Level::Full);
    }
}

//! When a certificate is renewed, by a clock that nobody sets and no suspend stops.

use std::time::{Duration, SystemTime};

/// A sleep lasts as long as the machine is awake, so that the clock is looked at from time to time.
const LOOK: Duration = Duration::from_secs(60);

/// Renewals that succeed are at least this far apart, whatever clocks and controllers say.
const APART: Duration = Duration::from_secs(1);

/// What is said within this time of a renewal may have been said of the certificate before it.
const SETTLED: Duration = Duration::from_secs(20);

/// The next renewal. Times are those of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    due: Duration,
    before: Before,
}

/// How the try before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    None,
    Renewed { at: Duration },
    Failed,
}

impl Schedule {
    /// For a certificate that is to be renewed at `renewed_at`, by the machine's clock; an unknown time is now.
    pub(super) fn new(boottime: Duration, now: SystemTime, renewed_at: Option<SystemTime>) -> Self {
        let left = renewed_at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
        Self { due: boottime + left, before: Before::None }
    }

    /// How long to sleep before asking again; `None`: it is due.
    pub(super) fn pause(&self, boottime: Duration) -> Option<Duration> {
        let left = self.due.saturating_sub(boottime);
        (!left.is_zero()).then(|| left.min(LOOK))
    }

    /// It was renewed, and is to be again `after` this time.
    pub(super) fn renewed(&mut self, boottime: Duration, after: Duration) {
        *self = Self { due: boottime + after.max(APART), before: Before::Renewed { at: boottime } };
    }

    /// It was not, and is tried again after `wait`.
    pub(super) fn failed(&mut self, boottime: Duration, wait: Duration) {
        *self = Self { due: boottime + wait, before: Before::Failed };
    }

    /// The controller wants it renewed before anything else. Tries that fail keep their distance.
    pub(super) fn wanted(&mut self, boottime: Duration) {
        let heard = match self.before {
            Before::None => true,
            Before::Renewed { at } => boottime >= at + SETTLED,
            Before::Failed => false,
        };
        if heard {
            self.due = self.due.min(boottime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + 10_000 * HOUR
    }

    #[test]
    fn is_due_at_its_time_and_not_before() {
        for (renewed_at, expected) in [
            (Some(clock() + HOUR), Some(LOOK)),
            (Some(clock() + LOOK / 2), Some(LOOK / 2)),
            (Some(clock()), None),
            (Some(clock() - HOUR), None),
            (None, None),
        ] {
            assert_eq!(Schedule::new(NOW, clock(), renewed_at).pause(NOW), expected, "{renewed_at:?}");
        }
        let schedule = Schedule::new(NOW, clock(), Some(clock() + HOUR));
        assert_eq!(schedule.pause(NOW + HOUR), None, "time that was slept through counts");
    }

    #[test]
    fn a_renewal_that_is_wanted_is_made_at_once_and_never_again_and_again() {
        let mut schedule = Schedule::new(NOW, clock(), Some(clock() + HOUR));
        schedule.wanted(NOW);
        assert_eq!(schedule.pause(NOW), None);
        schedule.failed(NOW, LOOK / 2);
        schedule.wanted(NOW);
        assert_eq!(schedule.pause(NOW), Some(LOOK / 2), "a try that fails is not hurried");
        schedule.renewed(NOW, Duration::ZERO);
        assert_eq!(schedule.pause(NOW), Some(APART), "an answer without a time is no flood");
        schedule.renewed(NOW, HOUR);
        schedule.wanted(NOW + SETTLED / 2);
        assert_eq!(schedule.pause(NOW + SETTLED / 2), Some(LOOK), "that was said of the one before");
        schedule.wanted(NOW + SETTLED);
        assert_eq!(schedule.pause(NOW + SETTLED), None);
    }
}

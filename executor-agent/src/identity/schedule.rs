//! When a certificate is renewed.

use std::time::{Duration, SystemTime};

/// No sleep is longer: it lasts as long as the machine is awake, and the machine's clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Renewals that succeed are at least this far apart, whatever the controller says.
const APART: Duration = Duration::from_secs(1);

/// The next renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Of a certificate that was found on disk: by the machine's clock. An unknown time is now.
    ByClock(Option<SystemTime>),
    /// By CLOCK_BOOTTIME, which nobody sets and no suspend stops.
    At(Duration),
}

impl Schedule {
    /// After a renewal at `boottime` that is good for `after`.
    pub(super) fn renewed(boottime: Duration, after: Duration) -> Self {
        Self::At(boottime + after.max(APART))
    }

    /// After one that failed.
    pub(super) fn failed(boottime: Duration, wait: Duration) -> Self {
        Self::At(boottime + wait)
    }

    /// How long to sleep before asking again; `None`: it is due.
    pub(super) fn pause(&self, boottime: Duration, now: SystemTime) -> Option<Duration> {
        let left = match self {
            Self::ByClock(at) => at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default(),
            Self::At(at) => at.saturating_sub(boottime),
        };
        (!left.is_zero()).then(|| left.min(LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTTIME: Duration = Duration::from_secs(1_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn is_due_at_its_time_and_not_before() {
        let now = SystemTime::UNIX_EPOCH + 10_000 * HOUR;
        for (schedule, expected) in [
            (Schedule::ByClock(Some(now + HOUR)), Some(LOOK)),
            (Schedule::ByClock(Some(now + LOOK / 2)), Some(LOOK / 2)),
            (Schedule::ByClock(Some(now)), None),
            (Schedule::ByClock(Some(now - HOUR)), None),
            (Schedule::ByClock(None), None),
            (Schedule::renewed(BOOTTIME, HOUR), Some(LOOK)),
            (Schedule::renewed(BOOTTIME - HOUR.min(BOOTTIME), BOOTTIME), None),
            (Schedule::renewed(BOOTTIME, Duration::ZERO), Some(APART)),
            (Schedule::failed(BOOTTIME, LOOK / 2), Some(LOOK / 2)),
            (Schedule::failed(BOOTTIME, Duration::ZERO), None),
        ] {
            assert_eq!(schedule.pause(BOOTTIME, now), expected, "{schedule:?}");
        }
    }

    #[test]
    fn time_that_was_slept_through_counts_and_so_does_a_clock_that_is_set() {
        let wrong = SystemTime::UNIX_EPOCH;
        let right = wrong + 10_000 * HOUR;
        let found = Schedule::ByClock(Some(right));
        assert_eq!(found.pause(BOOTTIME, wrong), Some(LOOK));
        assert_eq!(found.pause(BOOTTIME, right), None);
        let renewed = Schedule::renewed(BOOTTIME, HOUR);
        assert_eq!(renewed.pause(BOOTTIME, right + 10 * HOUR), Some(LOOK), "the clock has no say in it");
        assert_eq!(renewed.pause(BOOTTIME + HOUR, wrong), None);
    }
}

//! When a certificate is renewed.

use std::time::{Duration, SystemTime};

/// No sleep is longer: it lasts as long as the machine is awake, and the machine's clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Renewals that succeed are at least this far apart, whatever the controller says.
const APART: Duration = Duration::from_secs(1);

/// How soon it is renewed again when that has not brought what the controller wants: a replica may lag behind.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// The next renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Of a certificate that was found on disk: by the machine's clock. An unknown time is now.
    ByClock(Option<SystemTime>),
    /// By CLOCK_BOOTTIME, which nobody sets and no suspend stops: of one that was made `since`.
    Renewed { since: Duration, at: Duration },
    /// By the same: again, or at once.
    At(Duration),
}

impl Schedule {
    /// After a renewal at `boottime` that is good for `after`.
    pub(super) fn renewed(boottime: Duration, after: Duration) -> Self {
        Self::Renewed { since: boottime, at: boottime + after.max(APART) }
    }

    /// After one that failed.
    pub(super) fn failed(boottime: Duration, wait: Duration) -> Self {
        Self::At(boottime + wait)
    }

    /// The controller takes the certificate for old, whatever this machine's clock says. One that it has just made is left
    /// alone for a while, and what failed waits its turn.
    pub(super) fn hurried(self, boottime: Duration) -> Self {
        match self {
            Self::ByClock(_) => Self::At(boottime),
            Self::Renewed { since, at } => Self::Renewed { since, at: at.min(since + AGAIN) },
            Self::At(_) => self,
        }
    }

    /// How long to sleep before asking again; `None`: it is due.
    pub(super) fn pause(&self, boottime: Duration, now: SystemTime) -> Option<Duration> {
        let left = match self {
            Self::ByClock(at) => at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default(),
            Self::Renewed { at, .. } | Self::At(at) => at.saturating_sub(boottime),
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
    fn what_the_controller_takes_for_old_does_not_wait_for_the_clock() {
        let now = SystemTime::UNIX_EPOCH + 10_000 * HOUR;
        for (schedule, later, expected) in [
            (Schedule::ByClock(Some(now + HOUR)), Duration::ZERO, None),
            (Schedule::renewed(BOOTTIME, HOUR), AGAIN / 2, Some(AGAIN / 2)),
            (Schedule::renewed(BOOTTIME, HOUR), AGAIN, None),
            (Schedule::renewed(BOOTTIME, APART), AGAIN / 2, None),
            (Schedule::failed(BOOTTIME, LOOK), LOOK / 2, Some(LOOK / 2)),
        ] {
            let boottime = BOOTTIME + later;
            assert_eq!(schedule.hurried(boottime).pause(boottime, now), expected, "{schedule:?}");
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

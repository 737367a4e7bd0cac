//! PURE: how long an agent may run without word that the controller knows of it, and which of its limits is met first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::EndedBy;

/// The right of an attempt to run until another may take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// CLOCK_BOOTTIME at the sending of the newest message that the controller is known to have got.
    pub confirmed: Duration,
    /// How long it lasts from then on.
    pub lasts: Duration,
}

impl Lease {
    /// CLOCK_BOOTTIME at its end.
    pub fn ends(&self) -> Duration {
        self.confirmed.saturating_add(self.lasts)
    }

    /// The lease after `confirmed` has been learnt at `now`. One that has run out stays so: another attempt may have
    /// begun since.
    #[must_use]
    pub fn renewed(self, confirmed: Duration, now: Duration) -> Self {
        if now >= self.ends() { self } else { Self { confirmed: self.confirmed.max(confirmed), ..self } }
    }
}

/// The limit of an agent that is met first: when, by CLOCK_BOOTTIME, and who ends it then. None: it may run for ever.
pub(super) fn limit(timeout: Option<Duration>, lease: Option<Lease>) -> Option<(Duration, EndedBy)> {
    let timeout = timeout.map(|at| (at, EndedBy::Timeout));
    let lease = lease.map(|lease| (lease.ends(), EndedBy::Lease));
    // At the same moment the task's own limit counts.
    timeout.into_iter().chain(lease).min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_until_it_has_run_out() {
        let lease = Lease { confirmed: at(100), lasts: at(30) };
        for (confirmed, now, ends, what) in [
            (110, 115, 140, "word from the controller"),
            (129, 129, 159, "at the last moment"),
            (90, 115, 130, "word that is older than what is known"),
            (100, 115, 130, "the same word again"),
            (125, 130, 130, "too late by nothing"),
            (4_000, 4_001, 130, "after an hour of suspend"),
        ] {
            assert_eq!(lease.renewed(at(confirmed), at(now)).ends(), at(ends), "{what}");
        }
        assert_eq!(Lease { confirmed: at(1), lasts: Duration::MAX }.ends(), Duration::MAX, "as good as for ever");
    }

    #[test]
    fn the_earlier_limit_counts() {
        let lease = |confirmed| Some(Lease { confirmed: at(confirmed), lasts: at(30) });
        for (timeout, lease, expected) in [
            (None, None, None),
            (Some(50), None, Some((50, EndedBy::Timeout))),
            (None, lease(10), Some((40, EndedBy::Lease))),
            (Some(50), lease(10), Some((40, EndedBy::Lease))),
            (Some(50), lease(30), Some((50, EndedBy::Timeout))),
            (Some(50), lease(20), Some((50, EndedBy::Timeout))),
        ] {
            assert_eq!(limit(timeout.map(at), lease), expected.map(|(seconds, by)| (at(seconds), by)));
        }
    }
}

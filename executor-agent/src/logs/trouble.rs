//! PURE: a log that cannot be read at the moment. No clock, no I/O.
//!
//! What is no proof of damage is tried again, and people are told when it lasts. A disk that never gives out what it
//! holds is as good as damaged in the end.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest pause between two tries.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// People are told after so long.
const TOLD: Duration = Duration::from_secs(10);

/// What is no shortage counts as damage after so long.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// Since when a log cannot be read, and when it is tried again.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    since: Instant,
    again: Instant,
    pause: Duration,
    told: bool,
}

/// What follows a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again.
    Again,
    /// The same, and people are told.
    Tell,
    /// It counts as damaged.
    Damaged,
}

impl Trouble {
    /// Not yet tried in vain at `now`.
    pub(super) fn begin(now: Instant) -> Self {
        Self { since: now, again: now, pause: AGAIN.0, told: false }
    }

    /// A try has failed at `now`, for a shortage that may last as long as it likes or for something else.
    pub(super) fn failed(&mut self, now: Instant, shortage: bool) -> Verdict {
        let lasted = now.saturating_duration_since(self.since);
        if lasted >= GIVEN_UP && !shortage {
            return Verdict::Damaged;
        }
        self.again = now + self.pause;
        self.pause = (self.pause * 2).min(AGAIN.1);
        if lasted >= TOLD && !std::mem::replace(&mut self.told, true) { Verdict::Tell } else { Verdict::Again }
    }

    /// When it is tried again.
    pub(super) fn again(&self) -> Instant {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(shortage: bool, until: Duration) -> (usize, Vec<(u64, Verdict)>) {
        let begun = Instant::now();
        let mut trouble = Trouble::begin(begun);
        let (mut tries, mut told) = (0, Vec::new());
        while trouble.again() <= begun + until {
            let now = trouble.again();
            tries += 1;
            let verdict = trouble.failed(now, shortage);
            if verdict != Verdict::Again {
                told.push(((now - begun).as_secs(), verdict));
            }
            if verdict == Verdict::Damaged {
                break;
            }
        }
        (tries, told)
    }

    #[tokio::test]
    async fn it_is_tried_ever_more_rarely_told_once_and_given_up_only_where_it_is_no_shortage() {
        let hour = Duration::from_secs(3_600);
        let (tries, told) = course(false, hour);
        assert!(matches!(told[..], [(15, Verdict::Tell), (600..660, Verdict::Damaged)]), "{told:?}");
        assert!(tries < 40, "{tries}");
        let (tries, told) = course(true, hour);
        assert_eq!((told.len(), told[0].1), (1, Verdict::Tell));
        assert!((100..150).contains(&tries), "{tries}");
        assert_eq!(course(false, Duration::from_secs(9)).1, [], "a moment's trouble is nobody's");
    }
}

//! PURE: when what was recorded is shown again.

use std::time::Duration;

use tokio::time::Instant;

/// Beyond any recording: a time that no executor can mean makes nobody wait for ever.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How somebody wants to see a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// So many times as fast as it was; above 0.
    pub(crate) speed: f64,
    /// What was before this time is shown at once.
    pub(crate) from: Duration,
    /// A silence lasts no longer than this, before the speed counts.
    pub(crate) idle_limit: Option<Duration>,
}

/// A recording on its way from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    pace: Pace,
    /// The recorded time up to which everything is shown.
    shown: Duration,
    /// The latest recorded time.
    recorded: Duration,
}

impl Timeline {
    /// At its beginning.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, shown: pace.from, recorded: Duration::ZERO }
    }

    /// Goes on to what was recorded at `time`, and says how long that comes after what was before it. A time that goes
    /// backwards is none.
    pub(crate) fn wait(&mut self, time: Duration) -> Duration {
        let gap = time.saturating_sub(self.shown).min(self.pace.idle_limit.unwrap_or(LONGEST)).min(LONGEST);
        self.shown = self.shown.max(time);
        self.recorded = self.recorded.max(time);
        Duration::try_from_secs_f64(gap.as_secs_f64() / self.pace.speed).unwrap_or(LONGEST)
    }

    /// The latest recorded time so far.
    pub(crate) fn recorded(&self) -> Duration {
        self.recorded
    }
}

/// When the next is due, on the clock of who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    due: Instant,
    /// Since when nothing is due.
    paused: Option<Instant>,
}

impl Schedule {
    /// Begins now, or when the pause ends.
    pub(crate) fn begin(now: Instant, paused: bool) -> Self {
        Self { due: now, paused: paused.then_some(now) }
    }

    /// The next comes so long after the one before.
    pub(crate) fn after(&mut self, wait: Duration) {
        self.due = self.due.checked_add(wait).unwrap_or(self.due);
    }

    /// It was not there any earlier; what follows keeps its distance.
    pub(crate) fn not_before(&mut self, now: Instant) {
        self.due = self.due.max(now);
    }

    /// Pauses, or goes on.
    pub(crate) fn toggle(&mut self, now: Instant) {
        match self.paused.take() {
            Some(since) => self.due += now.saturating_duration_since(since),
            None => self.paused = Some(now),
        }
    }

    /// When the next is due; none while it is paused.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.paused.is_none().then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn waits_follow_the_pace() {
        let recorded = [0, 1, 11, 11, 5, 12, 112].map(seconds);
        let pace = Pace { speed: 1.0, from: Duration::ZERO, idle_limit: None };
        for (pace, waits) in [
            (pace, [0, 1000, 10_000, 0, 0, 1000, 100_000]),
            (Pace { speed: 2.0, ..pace }, [0, 500, 5000, 0, 0, 500, 50_000]),
            (Pace { speed: 0.5, ..pace }, [0, 2000, 20_000, 0, 0, 2000, 200_000]),
            (Pace { idle_limit: Some(seconds(2)), ..pace }, [0, 1000, 2000, 0, 0, 1000, 2000]),
            (Pace { idle_limit: Some(seconds(2)), speed: 2.0, ..pace }, [0, 500, 1000, 0, 0, 500, 1000]),
            // What was before is there at once, and only the rest of a silence is waited for.
            (Pace { from: seconds(1), ..pace }, [0, 0, 10_000, 0, 0, 1000, 100_000]),
            (Pace { from: seconds(8), ..pace }, [0, 0, 3000, 0, 0, 1000, 100_000]),
            (Pace { from: seconds(500), ..pace }, [0; 7]),
        ] {
            let mut timeline = Timeline::new(pace);
            let found = recorded.map(|time| timeline.wait(time).as_millis());
            assert_eq!(found, waits, "{pace:?}");
            assert_eq!(timeline.recorded(), seconds(112), "{pace:?}");
        }
    }

    #[test]
    fn no_time_is_too_large() {
        for speed in [0.01, 1.0, 1000.0] {
            let mut timeline = Timeline::new(Pace { speed, from: Duration::ZERO, idle_limit: None });
            assert!(timeline.wait(Duration::from_millis(u64::MAX)) <= LONGEST * 100, "{speed}");
        }
        let now = Instant::now();
        let mut schedule = Schedule::begin(now, false);
        schedule.after(Duration::MAX);
        assert_eq!(schedule.due(), Some(now));
    }

    #[test]
    fn a_pause_puts_everything_off() {
        let began = Instant::now();
        let mut schedule = Schedule::begin(began, true);
        assert_eq!(schedule.due(), None);
        schedule.toggle(began + seconds(5));
        schedule.after(seconds(3));
        assert_eq!(schedule.due(), Some(began + seconds(8)));
        schedule.toggle(began + seconds(6));
        assert_eq!(schedule.due(), None);
        schedule.toggle(began + seconds(106));
        assert_eq!(schedule.due(), Some(began + seconds(108)));
        // It came late, and what follows it is not hurried.
        schedule.not_before(began + seconds(120));
        schedule.after(seconds(1));
        assert_eq!(schedule.due(), Some(began + seconds(121)));
        schedule.not_before(began);
        assert_eq!(schedule.due(), Some(began + seconds(121)));
    }
}

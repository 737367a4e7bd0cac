//! PURE: from figures to consequences.

use std::fmt;

use bytesize::ByteSize;

use crate::Disk;

/// No new work from here on, in percent of the budget.
const CLOSE: u64 = 80;

/// New work again below this: a gap, so that a figure that swings around one of them does not.
const OPEN: u64 = 75;

/// Nothing that can wait is written any more.
const FULL: u64 = 95;

/// And again below this.
const ROOM: u64 = 92;

/// What is left to others of a disk, whatever the budget: one part in so many, at most [`RESERVE`] bytes.
const RESERVED_PART: u64 = 20;
const RESERVE: u64 = 1 << 30;

/// What is used of what may be used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What our directories take.
    pub used: u64,
    /// What they may take.
    pub budget: u64,
}

/// What follows from how full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Open,
    /// No new work.
    Closed,
    /// Only what cannot wait is written.
    Full,
}

impl Space {
    /// `used` of what `disk` can hold beside what others have on it, but for a reserve, and of `limit` if there is one.
    pub fn of(used: u64, disk: Disk, limit: Option<u64>) -> Self {
        let reserve = (disk.total / RESERVED_PART).min(RESERVE);
        let possible = used.saturating_add(disk.free.saturating_sub(reserve));
        Self { used, budget: limit.map_or(possible, |limit| limit.min(possible)) }
    }

    /// Hundredths of the budget that are used, rounded down.
    pub fn percent(&self) -> u64 {
        match self.budget {
            0 => 100,
            budget => u64::try_from(u128::from(self.used) * 100 / u128::from(budget)).unwrap_or(u64::MAX),
        }
    }

    /// How many bytes have to go until `percent` of the budget are used.
    pub fn excess(&self, percent: u64) -> u64 {
        let allowed = u128::from(self.budget) * u128::from(percent) / 100;
        self.used.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX))
    }

    /// What follows, when `before` held until now.
    pub fn level(&self, before: Level) -> Level {
        let percent = self.percent();
        let full = percent >= if before == Level::Full { ROOM } else { FULL };
        let closed = percent >= if before == Level::Open { CLOSE } else { OPEN };
        match (full, closed) {
            (true, _) => Level::Full,
            (false, true) => Level::Closed,
            (false, false) => Level::Open,
        }
    }
}

impl fmt::Display for Space {
    /// `7.9 GiB of 10.0 GiB (79 %)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({} %)", ByteSize(self.used), ByteSize(self.budget), self.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_budget_is_what_is_ours_or_free_and_no_more_than_was_said() {
        for (used, free, total, limit, budget) in [
            // A disk full of other things still has a budget.
            (0, 15 * GIB, 100 * GIB, None, 14 * GIB),
            (6 * GIB, 15 * GIB, 100 * GIB, None, 20 * GIB),
            (6 * GIB, 15 * GIB, 100 * GIB, Some(10 * GIB), 10 * GIB),
            // A limit that the disk cannot give is none.
            (6 * GIB, 3 * GIB, 100 * GIB, Some(50 * GIB), 8 * GIB),
            // The reserve of a small disk is small.
            (0, 100, 100, None, 95),
            (7, 0, 100, None, 7),
            (0, 0, 0, None, 0),
        ] {
            assert_eq!(Space::of(used, Disk { total, free }, limit), Space { used, budget }, "{used} {free} {limit:?}");
        }
    }

    #[test]
    fn it_closes_at_80_and_opens_below_75() {
        use Level::{Closed, Full, Open};
        for (percent, before, after) in [
            (0, Open, Open),
            (79, Open, Open),
            (80, Open, Closed),
            (75, Closed, Closed),
            (74, Closed, Open),
            (94, Closed, Closed),
            (95, Open, Full),
            (95, Closed, Full),
            (92, Full, Full),
            (91, Full, Closed),
            (76, Full, Closed),
            (74, Full, Open),
            (100, Full, Full),
        ] {
            let space = Space { used: percent, budget: 100 };
            assert_eq!(space.level(before), after, "{percent} % after {before:?}");
        }
    }

    #[test]
    fn nothing_that_may_be_used_is_full() {
        assert_eq!(Space { used: 0, budget: 0 }.level(Level::Open), Level::Full);
        assert_eq!(Space { used: u64::MAX, budget: 1 }.level(Level::Open), Level::Full);
    }

    #[test]
    fn the_excess_is_what_has_to_go() {
        let space = Space { used: 80, budget: 100 };
        assert_eq!((space.excess(70), space.excess(80), space.excess(90)), (10, 0, 0));
        assert_eq!(Space { used: u64::MAX, budget: u64::MAX }.excess(100), 0);
    }

    #[test]
    fn it_is_told_with_its_figures() {
        assert_eq!(Space { used: 8 * GIB, budget: 10 * GIB }.to_string(), "8.0 GiB of 10.0 GiB (80 %)");
    }
}

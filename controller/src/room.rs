//! How full the controller's disk is, for whoever draws a conclusion from it.

use std::sync::Arc;

use sculpt_space::{Level, Space};
use tokio::sync::watch;

/// How full it is, and what follows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<watch::Sender<Standing>>);

/// How full it is, and what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The figures; zero while nothing is known.
    pub space: Space,
    /// What follows.
    pub level: Level,
    /// What is left on the disk, whatever the budget says, in bytes.
    pub free: u64,
}

/// What Postgres and everything that makes room keep for themselves of a full disk, in bytes: a few sealed segments with
/// their share of the database's own log.
const RESERVE: u64 = 64 << 20;

impl Room {
    /// How full it is.
    pub fn standing(&self) -> Standing {
        *self.0.borrow()
    }

    /// Why no new work is placed; none when it is.
    pub fn closed(&self) -> Option<String> {
        let Standing { space, level, .. } = self.standing();
        (level != Level::Open).then(|| format!("the controller's disk is nearly full: {space}"))
    }

    /// Why nothing is stored that can wait; none when it is.
    pub fn full(&self) -> Option<String> {
        let Standing { space, level, .. } = self.standing();
        (level == Level::Full).then(|| format!("the controller's disk is full but for a reserve: {space}"))
    }

    /// Why not even that is stored which makes room in the end; none when it is.
    pub fn spent(&self) -> Option<String> {
        let free = self.standing().free;
        self.full()
            .filter(|_| free < RESERVE)
            .map(|why| format!("{why}, and only {} MiB are left on the disk", free >> 20))
    }

    /// Says how full it is.
    pub fn set(&self, standing: Standing) {
        let before = self.0.send_replace(standing);
        if before.level == standing.level {
            return;
        }
        match (self.full(), self.closed()) {
            (Some(why), _) => tracing::error!(
                why,
                "log bytes and packs are not taken until there is room; logs that are here are sealed"
            ),
            (None, Some(why)) => tracing::warn!(why, "no new work is placed until there is room"),
            (None, None) => tracing::info!(space = %standing.space, "there is room again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_says_what_follows() {
        let room = Room::default();
        for (percent, free, level, closed, full, spent) in [
            (10, 1 << 30, Level::Open, false, false, false),
            (80, 1 << 30, Level::Closed, true, false, false),
            (80, 1 << 20, Level::Closed, true, false, false),
            (95, 1 << 30, Level::Full, true, true, false),
            (95, 1 << 20, Level::Full, true, true, true),
        ] {
            room.set(Standing { space: Space { used: percent, budget: 100 }, level, free });
            let said = (room.closed().is_some(), room.full().is_some(), room.spent().is_some());
            assert_eq!(said, (closed, full, spent), "{percent}");
            assert!(room.closed().is_none_or(|why| why.contains(&format!("({percent} %)"))));
        }
        assert!(room.spent().is_some_and(|why| why.contains("only 1 MiB are left")), "{:?}", room.spent());
    }
}

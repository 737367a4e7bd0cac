//! Whether an executor has been heard of lately. What is shown follows from it; by default nothing is stopped because of it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// What is known of the executor that holds an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "liveness")]
pub enum Liveness {
    /// Its session is open.
    #[default]
    Connected,
    /// Silent for longer than [`UNREACHABLE_AFTER`].
    Unreachable {
        /// When it was last heard of.
        since: DateTime<Utc>,
    },
    /// Silent for longer than the task's `lost_after`.
    Lost {
        /// When it was last heard of.
        since: DateTime<Utc>,
    },
}

/// Silence after which either side of a session gives it up and the executor is shown as unreachable.
pub const UNREACHABLE_AFTER: TimeDelta = TimeDelta::seconds(30);

/// `lost_after` of a task that names none.
pub const DEFAULT_LOST_AFTER: TimeDelta = TimeDelta::minutes(15);

/// What the controller waits beyond `lost_after` before it starts another attempt: the shim's clock and ours drift, and the
/// shim needs time to end the tree.
pub const REPLACEMENT_MARGIN: TimeDelta = TimeDelta::seconds(60);

/// From when an executor that was last heard of at `since` is lost, and a lease that was confirmed then is over. Beyond the
/// end of the calendar it is never.
pub fn lost_at(since: DateTime<Utc>, lost_after: TimeDelta) -> DateTime<Utc> {
    since.checked_add_signed(lost_after.max(UNREACHABLE_AFTER)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// From when another attempt may take the place of one whose executor was last heard of at `since`.
pub fn replaceable_at(since: DateTime<Utc>, lost_after: TimeDelta) -> DateTime<Utc> {
    lost_at(since, lost_after).checked_add_signed(REPLACEMENT_MARGIN).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl Liveness {
    /// What silence since `last_seen` means at `now` for a task with this limit.
    pub fn of(last_seen: DateTime<Utc>, lost_after: TimeDelta, now: DateTime<Utc>) -> Self {
        let silence = now - last_seen;
        if silence >= lost_after.max(UNREACHABLE_AFTER) {
            Self::Lost { since: last_seen }
        } else if silence >= UNREACHABLE_AFTER {
            Self::Unreachable { since: last_seen }
        } else {
            Self::Connected
        }
    }

    /// Its name in the database and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Unreachable { .. } => "unreachable",
            Self::Lost { .. } => "lost",
        }
    }

    /// When the executor was last heard of, if it is silent.
    pub fn since(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Connected => None,
            Self::Unreachable { since } | Self::Lost { since } => Some(since),
        }
    }
}

//! What a session hears and says, as its reducer has it.

use std::collections::BTreeMap;

use sculpt_proto::id::{AttemptId, ClusterId};

use crate::store::sessions::Wish;

/// An attempt that the executor says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Which.
    pub attempt: AttemptId,
    /// Who minted it.
    pub cluster: Option<ClusterId>,
    /// Whether it is over there.
    pub ended: bool,
    /// Reports of it that the executor holds, 1 to this.
    pub reports: u64,
    /// Why the executor cannot go on with it, if what it had of it is damaged.
    pub unreadable: Option<String>,
}

/// The full set of what an executor has.
pub type Census = BTreeMap<AttemptId, Observed>;

/// What comes in. `R` is a report, `A` the answer to one; the reducer looks into neither.
#[derive(Clone, Debug)]
pub enum Input<R, A> {
    /// A piece of what the executor has.
    Observed {
        /// The piece.
        attempts: Vec<Observed>,
        /// Whether the set is full with it.
        last: bool,
    },
    /// The executor lives.
    Heartbeat {
        /// Its count.
        sequence: u64,
        /// Why it takes no new work.
        closed: Option<String>,
    },
    /// A step of an attempt's life.
    Report {
        /// Whose.
        attempt: AttemptId,
        /// The step.
        report: R,
    },
    /// A report was dealt with.
    Applied(A),
    /// The database has committed that the executor was heard of up to this heartbeat.
    Leased(u64),
    /// The census was compared with the database.
    Reconciled {
        /// What the executor has and need not keep.
        released: Vec<AttemptId>,
        /// What it has and owes something for.
        owed: Vec<AttemptId>,
        /// Of which it has told more than the database holds, and what asks for the rest.
        behind: Vec<(AttemptId, A)>,
    },
    /// What should be, as the database has it.
    Wishes(BTreeMap<AttemptId, Wish>),
    /// What a person wants taken over of what the executor has and the database does not know.
    Adopted(Vec<AttemptId>),
    /// Somebody says that what should be has changed.
    Told,
    /// Time has passed.
    Tick,
    /// A newer session has this executor.
    Superseded,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<R, A> {
    /// Answer the newest heartbeat.
    HeartbeatAck {
        /// The heartbeat's count.
        sequence: u64,
        /// The newest one that the database knows of; 0: the Hello alone.
        leased: u64,
    },
    /// Answer a report.
    Ack(A),
    /// Say what should be.
    Desired {
        /// Starts a full set.
        full: bool,
        /// Ends a full set, or is a delta.
        last: bool,
        /// What should be.
        attempts: Vec<(AttemptId, Wish)>,
        /// What need not be kept.
        released: Vec<AttemptId>,
    },
    /// Ask for the specs of these. Asked again with every read until they are there.
    Adopt(Vec<AttemptId>),
    /// Apply a report to the database.
    Apply(R),
    /// Compare what the executor has with the database.
    Reconcile(Census),
    /// Read what should be.
    Read,
    /// Write that the executor was heard of, and whether it takes work.
    Seen {
        /// Why it takes no new work.
        closed: Option<String>,
        /// The newest heartbeat that this covers.
        beat: u64,
    },
    /// End the session.
    Close(Closed),
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nothing was heard for [`super::WATCHDOG`].
    Silent,
    /// A newer session has this executor.
    Superseded,
    /// It names more attempts than any executor has.
    Flood,
}

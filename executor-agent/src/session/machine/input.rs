//! What the machine hears: of the controller, of this host, and of the session between them.

use sculpt_proto::id::{AttemptId, ClusterId};

/// What the controller wants of an attempt; a later one in this order is never taken back by an earlier one, except
/// that a hold can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Go on.
    Run,
    /// Freeze the process tree.
    Hold,
    /// End it and publish what it made.
    Stop,
    /// End it and publish nothing.
    Fence,
}

impl Wish {
    /// The wish after `new` has arrived.
    pub fn follow(self, new: Self) -> Self {
        if self >= Self::Stop { self.max(new) } else { new }
    }
}

/// An attempt that the controller wants here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The attempt.
    pub attempt: AttemptId,
    /// SHA-256 of its spec.
    pub digest: Vec<u8>,
    /// What is wanted of it.
    pub wish: Wish,
}

/// Why the controller does not take a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not know the attempt.
    Unknown,
    /// A newer attempt holds the task.
    Fenced,
    /// Reports are missing.
    Gap,
    /// The step does not fit.
    Illegal,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A session has begun.
    Welcomed {
        /// The controller's cluster.
        cluster: ClusterId,
    },
    /// It has ended.
    Lost,
    /// The controller's wishes, or a piece of them.
    Desired {
        /// Starts a full set.
        full: bool,
        /// Ends it.
        last: bool,
        /// What should be here.
        attempts: Vec<Wanted>,
        /// What the controller holds completely.
        released: Vec<AttemptId>,
    },
    /// The controller has committed reports, or refuses one.
    Acked {
        /// Whose reports.
        attempt: AttemptId,
        /// Everything up to here is committed.
        through: u64,
        /// Why no more is.
        refusal: Option<Refusal>,
    },
    /// An attempt's directory was found, or its spec has just been written.
    Present {
        /// The attempt.
        attempt: AttemptId,
        /// The cluster that minted it.
        cluster: ClusterId,
        /// Last sequence in its journal.
        last: u64,
        /// The controller has released it before.
        released: bool,
    },
    /// Its log ends before what was written: the controller is told when it has everything else of it.
    Broken(AttemptId),
    /// The controller holds all of its log so far.
    Delivered(AttemptId),
    /// It cannot be gone on with: nothing is reported of it, and it is left alone.
    Damaged {
        /// The attempt.
        attempt: AttemptId,
        /// The cluster that minted it, if that can be read.
        cluster: Option<ClusterId>,
        /// It is over.
        over: bool,
    },
    /// The controller takes these over, which it did not know.
    Adopt(Vec<AttemptId>),
    /// The spec of one was handed in.
    HandedIn {
        /// The attempt.
        attempt: AttemptId,
        /// Whose it is from now on; none: it was not taken over.
        cluster: Option<ClusterId>,
    },
    /// What it published was published again, or cannot be; its end is told once more.
    PublishedAgain(AttemptId),
    /// A report is in the journal.
    Recorded {
        /// Whose.
        attempt: AttemptId,
        /// Its sequence.
        sequence: u64,
    },
    /// Nothing of it is here any more.
    Gone(AttemptId),
}

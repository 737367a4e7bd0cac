//! What keeps a promise, and can be left out to see that somebody notices.

/// A guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Only the newest session of an executor writes.
    Epoch,
    /// Only the newest attempt moves its task.
    Fence,
    /// Bytes are taken only at the end of what is held.
    Offset,
    /// What is acknowledged is committed.
    Commit,
    /// A lease is confirmed only when the database has committed that the executor was heard of.
    Confirmation,
    /// A shim ends its agent when nobody has heard of the executor for too long.
    Lease,
    /// Another attempt begins only a margin later.
    Margin,
}

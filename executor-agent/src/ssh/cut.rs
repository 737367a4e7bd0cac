//! Why somebody is made to go.

/// What a person hears who is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// They may be here no longer.
    #[error("this pairing was taken back")]
    Withdrawn,
    /// There is nothing to look at any more.
    #[error("the agent has ended; `sculpt logs` and `sculpt replay` show what it did")]
    Over,
    /// They may come again.
    #[error("this executor ends; the agent goes on")]
    Ending,
}

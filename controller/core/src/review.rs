//! What people think of a result.

use serde::{Deserialize, Serialize};

/// A full commit id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commit(pub String);

/// Where a result stands on its way to a branch.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "review")]
pub enum Review {
    /// There is nothing to look at.
    #[default]
    None,
    /// New commits wait for a person.
    Needed {
        /// What is to be looked at.
        head: Commit,
    },
    /// A person found it good.
    Accepted {
        /// What was looked at.
        head: Commit,
    },
    /// It is on its target branch.
    Merged {
        /// The commit that brought it there.
        commit: Commit,
    },
    /// A person found it bad.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// What a person or a merge does to a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// Found good.
    Accept {
        /// What was looked at.
        head: Commit,
    },
    /// Found bad.
    Reject {
        /// Why.
        reason: String,
    },
    /// Brought to its target branch.
    Merge {
        /// What was merged.
        head: Commit,
        /// The commit that did it.
        commit: Commit,
    },
}

impl Review {
    /// The review after `verdict`; `published` is the head that stands in the repository.
    pub fn after(&self, verdict: &Verdict, published: Option<&Commit>) -> Result<Self, NotReviewable> {
        let current = |head: &Commit| match published {
            Some(now) if now == head => Ok(()),
            Some(now) => Err(NotReviewable::Moved { now: now.clone() }),
            None => Err(NotReviewable::Nothing),
        };
        match (self, verdict) {
            (Self::Merged { commit }, _) => Err(NotReviewable::AlreadyMerged { commit: commit.clone() }),
            (Self::None | Self::Needed { .. } | Self::Accepted { .. } | Self::Rejected { .. }, verdict) => {
                match verdict {
                    Verdict::Accept { head } => current(head).map(|()| Self::Accepted { head: head.clone() }),
                    Verdict::Merge { head, commit } => current(head).map(|()| Self::Merged { commit: commit.clone() }),
                    Verdict::Reject { reason } => match published {
                        Some(_) => Ok(Self::Rejected { reason: reason.clone() }),
                        None => Err(NotReviewable::Nothing),
                    },
                }
            }
        }
    }

    /// Its name in the database.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Needed { .. } => "needed",
            Self::Accepted { .. } => "accepted",
            Self::Merged { .. } => "merged",
            Self::Rejected { .. } => "rejected",
        }
    }
}

/// Why a verdict does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReviewable {
    /// No commits were published.
    #[error("it has published no commits")]
    Nothing,
    /// What was looked at is no longer what stands.
    #[error("its head has moved to {}", now.0)]
    Moved {
        /// What stands.
        now: Commit,
    },
    /// It is over.
    #[error("it was merged as {}", commit.0)]
    AlreadyMerged {
        /// The merge.
        commit: Commit,
    },
}

//! Review: state × verdict.

use sculpt_core::review::{NotReviewable, Review, Verdict};

use crate::{
    notation::{check, named},
    states::{What, commit, fence},
};

const TABLE: &str = include_str!("tables/review.txt");

named!(
    /// Where a review stands.
    Kind {
        None = "none",
        Needed = "needed",
        Accepted = "accepted",
        Merged = "merged",
        Rejected = "rejected",
    }
);

impl Kind {
    pub(crate) fn of(review: &Review) -> Self {
        match review {
            Review::None => Self::None,
            Review::Needed { .. } => Self::Needed,
            Review::Accepted { .. } => Self::Accepted,
            Review::Merged { .. } => Self::Merged,
            Review::Rejected { .. } => Self::Rejected,
        }
    }

    pub(crate) fn review(self) -> Review {
        match self {
            Self::None => Review::None,
            Self::Needed => Review::Needed { head: commit("h1") },
            Self::Accepted => Review::Accepted { head: commit("h1") },
            Self::Merged => Review::Merged { commit: commit("m1") },
            Self::Rejected => Review::Rejected { reason: "no tests".into() },
        }
    }
}

fn verdict(name: &str) -> Verdict {
    match What::read(name).event(fence(1)) {
        sculpt_core::task::Event::Reviewed(verdict) => verdict,
        other => panic!("{other:?} is no verdict"),
    }
}

/// The columns are the verdict and, after the dot, what stands in the repository.
#[test]
fn state_by_verdict() {
    let columns =
        ["accept.h1", "accept.h2", "accept.none", "reject.h1", "reject.none", "merge.h1", "merge.h2", "merge.none"];
    check(TABLE, &Kind::texts(), &columns, |row, column| {
        let (name, published) = column.split_once('.').unwrap();
        let published = (published != "none").then(|| commit(published));
        match Kind::read(row).review().after(&verdict(name), published.as_ref()) {
            Ok(review) => Kind::of(&review).text(),
            Err(NotReviewable::Nothing) => "nothing",
            Err(NotReviewable::Moved { .. }) => "moved",
            Err(NotReviewable::AlreadyMerged { .. }) => "was-merged",
        }
        .to_owned()
    });
}

#[test]
fn a_verdict_keeps_what_was_said() {
    let head = commit("h1");
    let needed = Kind::Needed.review();
    let after = |name: &str| needed.after(&verdict(name), Some(&head)).unwrap();
    assert_eq!(after("accept"), Review::Accepted { head: head.clone() });
    assert_eq!(after("merge"), Review::Merged { commit: commit("m1") });
    assert_eq!(after("reject"), Review::Rejected { reason: "no tests".into() });
}

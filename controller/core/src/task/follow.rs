//! What follows from an event by itself.

use chrono::{DateTime, Utc};

use crate::{
    attempt::{Attempt, AttemptState, Offer, Step},
    liveness::{Liveness, lost_at, replaceable_at},
    outcome::{Cause, Failure, Outcome},
    review::Review,
    task::{Event, Intent, OnLost, Task},
};

impl Task {
    /// From when the newest attempt, whose executor is lost, is given up; `None`: nothing but its executor or a person ends it.
    ///
    /// Where nothing starts in its place there is nothing to wait for. A person who stops a lost task wants it over, but what
    /// may still answer is given the time that a replacement would give it.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        let attempt = self.attempt().filter(|attempt| !attempt.ended())?;
        let Liveness::Lost { since } = attempt.liveness else { return None };
        let lost_after = self.policy.lost_after;
        match (self.policy.on_lost, self.intent) {
            (OnLost::Fail, _) => Some(lost_at(since, lost_after)),
            (OnLost::Retry, _) | (OnLost::Wait, Intent::Cancel) => Some(replaceable_at(since, lost_after)),
            (OnLost::Wait, Intent::Run | Intent::Hold) => None,
        }
    }

    /// What follows at `now` from `event`, which has just made this task of `before`. It moves the task in the transaction of
    /// `event`, with an entry of its own in the journal, and nothing follows from it in turn.
    pub fn follow_up(&self, before: &Self, event: &Event, now: DateTime<Utc>) -> Option<Event> {
        let attempt = self.attempt()?;
        let fence = attempt.fence;
        match (event, &attempt.state) {
            // Who was never handed the spec cannot have begun, and there is nothing to end.
            (Event::Stop, AttemptState::Offered { offer: Offer::Unread }) => Some(Event::Withdrawn { fence }),
            (Event::Stop, _) => self.expires_at().filter(|at| now >= *at).map(|_| Event::Expired { fence }),
            (Event::Stepped { step: Step::Ended { .. }, .. }, _) => {
                (self.replaces(attempt) && !before.answered()).then_some(Event::Replaced { fence })
            }
            (Event::Hold | Event::Resume | Event::Retry | Event::RetryInWorkspace | Event::Reviewed(_), _)
            | (Event::Claimed { .. } | Event::Adopted { .. } | Event::SpecRead { .. } | Event::Withdrawn { .. }, _)
            | (Event::Stepped { .. } | Event::Turned { .. } | Event::Published { .. }, _)
            | (Event::Liveness { .. } | Event::Expired { .. } | Event::Replaced { .. }, _) => None,
        }
    }

    /// Whether another attempt takes the place of one that ended so: its shim ended it by its own clock, as the task wishes.
    pub(super) fn replaces(&self, attempt: &Attempt) -> bool {
        let lost = matches!(
            attempt.state,
            AttemptState::Ended { outcome: Outcome::Failed(Failure { cause: Cause::ExecutorLost, .. }), .. }
        );
        lost && attempt.liveness == Liveness::Connected
            && self.policy.on_lost == OnLost::Retry
            && self.intent != Intent::Cancel
            && self.review == Review::None
    }

    /// An agent that has answered has done its work: to do it again would bury the answer and what people think of it.
    pub(super) fn answered(&self) -> bool {
        self.review != Review::None || self.attempt().is_some_and(|attempt| attempt.at_rest())
    }
}

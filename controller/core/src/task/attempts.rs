//! How a task comes to an attempt, and how it loses one.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    attempt::{Attempt, AttemptState, Fence, Offer},
    liveness::{Liveness, replaceable_at},
    outcome::{Cause, Failure, Outcome},
    review::Review,
    task::{Effect, IllegalTransition, Intent, OnLost, Run, Surviving, Task},
};

impl Task {
    pub(super) fn retry(
        &mut self,
        now: DateTime<Utc>,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        match &self.review {
            Review::None | Review::Needed { .. } | Review::Rejected { .. } => {}
            // A good result is not thrown away by the way: reject it first.
            Review::Accepted { .. } | Review::Merged { .. } => return Err(unfit),
        }
        let next = match &self.run {
            // Cancelled before it was placed.
            Run::Queued { next } if self.intent == Intent::Cancel => *next,
            Run::Queued { .. } => return Err(unfit),
            Run::Attempt(attempt) => match &attempt.state {
                AttemptState::Ended { outcome, .. } => match outcome {
                    Outcome::Failed(_) | Outcome::Cancelled | Outcome::Fenced => attempt.fence.number + 1,
                    Outcome::Completed if matches!(self.review, Review::Rejected { .. }) => attempt.fence.number + 1,
                    Outcome::Completed => return Err(unfit),
                },
                AttemptState::Offered { .. }
                | AttemptState::Accepted
                | AttemptState::Preparing
                | AttemptState::Running { .. }
                | AttemptState::Finalizing { .. } => match attempt.liveness {
                    Liveness::Lost { .. } => attempt.fence.number + 1,
                    Liveness::Connected | Liveness::Unreachable { .. } => return Err(unfit),
                },
            },
        };
        // Also what was given up may still run where it is.
        if let Some(Liveness::Lost { since }) = self.attempt().map(|attempt| attempt.liveness) {
            let until = replaceable_at(since, self.policy.lost_after);
            if now < until {
                return Err(IllegalTransition::TooEarly { until });
            }
        }
        let fenced = self.attempt().filter(|attempt| !attempt.ended()).map(|attempt| Effect::Tell(attempt.executor));
        self.intent = Intent::Run;
        self.review = Review::None;
        self.run = Run::Queued { next };
        Ok(fenced.into_iter().chain([Effect::Place]).collect())
    }

    pub(super) fn retry_in_workspace(
        &mut self,
        now: DateTime<Utc>,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let newest = self.attempt().map(|attempt| Surviving { attempt: attempt.fence.id, executor: attempt.executor });
        // Without an attempt it was cancelled before it was placed: what it was to go on in may still be there.
        let surviving = newest.or(self.surviving).ok_or_else(|| unfit.clone())?;
        let mut effects = self.retry(now, unfit)?;
        self.surviving = Some(surviving);
        // It keeps what it need not have kept otherwise.
        let keep = Effect::Tell(surviving.executor);
        if !effects.contains(&keep) {
            effects.push(keep);
        }
        Ok(effects)
    }

    pub(super) fn claim(
        &mut self,
        fence: Fence,
        executor: Uuid,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        match &self.run {
            Run::Queued { next }
                if *next == fence.number && self.intent == Intent::Run && self.may_run_on(executor) =>
            {
                self.run = Run::Attempt(Attempt::offered(fence, executor));
                Ok(vec![Effect::Tell(executor)])
            }
            Run::Queued { .. } | Run::Attempt(_) => Err(unfit),
        }
    }

    /// Attaches an attempt that `executor` has from a history which this database lost: the one that the task waits for, or a
    /// newer one, in whose favour that history had given up what stands here. Whatever people want of the task by now, its
    /// executor is told.
    pub(super) fn adopt(
        &mut self,
        fence: Fence,
        executor: Uuid,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let mut effects = vec![Effect::Tell(executor)];
        match &self.run {
            Run::Queued { next } if *next <= fence.number && self.may_run_on(executor) => {}
            Run::Attempt(newest) if newest.fence.number < fence.number && self.gives_way(newest) => {
                if newest.ended() {
                    // A person had wanted it to go on.
                    self.intent = Intent::Run;
                } else {
                    effects.extend([Effect::Tell(newest.executor), Effect::Place]);
                }
                self.review = Review::None;
                self.surviving = None;
            }
            Run::Queued { .. } | Run::Attempt(_) => return Err(unfit),
        }
        let state = AttemptState::Offered { offer: Offer::Read };
        self.run = Run::Attempt(Attempt { state, ..Attempt::offered(fence, executor) });
        Ok(effects)
    }

    /// Whether nothing is thrown away with `newest`, which this task has: it is over or lost, and nobody found it good.
    fn gives_way(&self, newest: &Attempt) -> bool {
        let lost = matches!(newest.liveness, Liveness::Lost { .. });
        let judged = matches!(self.review, Review::Accepted { .. } | Review::Merged { .. });
        (newest.ended() || lost) && !judged
    }

    fn may_run_on(&self, executor: Uuid) -> bool {
        self.surviving.is_none_or(|surviving| surviving.executor == executor)
    }

    pub(super) fn read_spec(&mut self, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let attempt = self.live().ok_or(unfit)?;
        if let AttemptState::Offered { offer } = &mut attempt.state {
            *offer = Offer::Read;
        }
        Ok(Vec::new())
    }

    pub(super) fn withdraw(
        &mut self,
        fence: Fence,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let attempt = self.live().ok_or_else(|| unfit.clone())?;
        if attempt.state != (AttemptState::Offered { offer: Offer::Unread }) {
            return Err(unfit);
        }
        let executor = attempt.executor;
        self.run = Run::Queued { next: fence.number + 1 };
        Ok(vec![Effect::Tell(executor), Effect::Place])
    }

    pub(super) fn expire(
        &mut self,
        now: DateTime<Utc>,
        unfit: IllegalTransition,
    ) -> Result<Vec<Effect>, IllegalTransition> {
        let until = self.expires_at().ok_or_else(|| unfit.clone())?;
        if now < until {
            return Err(IllegalTransition::TooEarly { until });
        }
        let cancelled = self.intent == Intent::Cancel;
        let again = self.policy.on_lost == OnLost::Retry && !self.answered();
        let attempt = self.live().ok_or(unfit)?;
        let executor = attempt.executor;
        let number = attempt.fence.number;
        if cancelled {
            attempt.state = AttemptState::Ended { outcome: Outcome::Cancelled, at: now };
        } else if again {
            self.queue(number + 1);
        } else {
            let message = "its executor stayed away longer than the task allows".to_owned();
            let outcome = Outcome::Failed(Failure { cause: Cause::ExecutorLost, message });
            attempt.state = AttemptState::Ended { outcome, at: now };
        }
        Ok(vec![Effect::Tell(executor), Effect::Place])
    }

    pub(super) fn replace(&mut self, unfit: IllegalTransition) -> Result<Vec<Effect>, IllegalTransition> {
        let attempt = self.attempt().filter(|attempt| self.replaces(attempt)).ok_or(unfit)?;
        self.queue(attempt.fence.number + 1);
        Ok(vec![Effect::Place])
    }

    /// Another executor will do as well, and none has what was there.
    fn queue(&mut self, next: u32) {
        self.run = Run::Queued { next };
        self.surviving = None;
    }
}

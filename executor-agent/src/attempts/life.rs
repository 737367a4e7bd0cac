//! Drives one attempt: looks where it stands, does the next thing, looks again. Every thing done is a step in the
//! journal, so a restart is no special case.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    Attempts, Context, Handle, News, fetch,
    look::{Looks, Unclear},
    plan::{self, Next},
};
use crate::{
    connect::Backoff,
    journal::{Entry, Journal, JournalError},
    report::{Ended, Exit, Outcome as Became, Step},
    session::Wish,
    shim::Launch,
    spec::Spec,
};

/// How an attempt's task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything is reported and cleaned up.
    Rested,
    /// It never began.
    Abandoned,
    /// What stands on disk of it cannot be read or written any more, and why.
    Damaged(String),
}

/// One attempt with all that its steps need.
pub(super) struct Life<'a> {
    pub(super) attempts: &'a Attempts,
    pub(super) context: &'a Arc<Context>,
    pub(super) handle: &'a Arc<Handle>,
    pub(super) spec: Arc<Spec>,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) looks: Looks,
}

pub(super) async fn run(attempts: &Attempts, handle: &Arc<Handle>, digest: Option<Vec<u8>>) -> Outcome {
    let context = &attempts.context;
    let wish = handle.wish.subscribe();
    if handle.spec().is_none() {
        match fetch::fetch(context, handle, digest.as_deref().unwrap_or_default()).await {
            Ok(()) => {}
            Err(error) => {
                warn!(attempt = %handle.id, %error, "the attempt cannot begin");
                return Outcome::Abandoned;
            }
        }
    }
    let Some(spec) = handle.spec().cloned() else { return Outcome::Abandoned };
    let _ending = context.news.send(News::Present(handle.id)).await;
    let left = handle.journal().map(Journal::take_found).unwrap_or_default();
    if !left.is_empty() {
        attempts.tracker.spawn(Arc::clone(handle).leave_seats(Arc::clone(context), left));
    }
    let mut life = Life { attempts, context, handle, spec, wish, looks: Looks::default() };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match life.step(&mut backoff).await {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(error) if !error.passes() && handle.dir.exists() => return Outcome::Damaged(error.to_string()),
            Err(error) => {
                // A full disk: nothing is lost, and it goes on when there is room.
                error!(attempt = %handle.id, %error, "could not write a step down; trying again");
                backoff.wait().await;
            }
        }
    }
}

impl Life<'_> {
    /// Does the next thing; says what has become of it when nothing is left to do.
    async fn step(&mut self, backoff: &mut Backoff) -> Result<Option<Outcome>, JournalError> {
        let last = self.handle.journal().and_then(Journal::last_step);
        let same_boot = self.same_boot(last.as_ref());
        let last = last.map(|entry| entry.step);
        if matches!(last, Some(Step::Ended(_))) {
            self.rest().await;
            // Without sockets nobody is there, nor comes.
            if self.context.layout.sockets(self.handle.id).exists() {
                self.attempts.tracker.spawn(Arc::clone(self.handle).send_home(Arc::clone(self.context)));
            }
            return Ok(Some(Outcome::Rested));
        }
        let found = match self.look().await {
            Ok(found) => found,
            Err(Unclear::Now(why)) => {
                warn!(attempt = %self.handle.id, why, "cannot tell how it stands; looking again");
                backoff.wait().await;
                return Ok(None);
            }
            Err(Unclear::Damaged(why)) => return Ok(Some(Outcome::Damaged(why))),
        };
        match plan::next(last.as_ref(), found, same_boot) {
            Next::Prepare => self.prepare(last).await?,
            Next::Attend => {
                self.attend(last, backoff).await?;
            }
            Next::Finish(end) => self.finish(last, end).await?,
            Next::Rest => {}
        }
        Ok(None)
    }

    /// Whether what was launched can still run. What the journal says last may have been written after a reboot.
    fn same_boot(&self, last: Option<&Entry>) -> bool {
        let boot = &self.context.boot;
        match Launch::read(&self.handle.dir).ok().and_then(|launch| launch.boot_id) {
            Some(launched) => launched == *boot,
            None => last.is_none_or(|entry| entry.at.same_boot(boot)),
        }
    }

    /// What is wanted now.
    pub(super) fn wished(&self) -> Wish {
        *self.wish.borrow()
    }

    /// Writes a step to disk, then tells the session.
    pub(super) async fn record(&self, step: Step) -> Result<(), JournalError> {
        self.handle.record(self.context, step).await
    }

    /// Writes a remark once.
    pub(super) async fn note(&self, text: impl Into<String>) -> Result<(), JournalError> {
        self.handle.note(self.context, text).await
    }

    /// Ends an attempt whose agent never ran.
    pub(super) async fn end_before_start(&self, outcome: Became) -> Result<(), JournalError> {
        let outcome = match self.wished() {
            Wish::Fence => Became::Fenced,
            Wish::Run | Wish::Hold | Wish::Stop => outcome,
        };
        self.handle.grew(self.context, super::LogEnd { length: 0, finished: true });
        self.record(Step::Ended(Ended { outcome, exit: Exit::default(), log_length: 0, head: None })).await
    }
}

/// Resolves when the wish is at least `least`.
pub(super) async fn wished(mut wish: watch::Receiver<Wish>, least: Wish) {
    if wish.wait_for(|wish| *wish >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

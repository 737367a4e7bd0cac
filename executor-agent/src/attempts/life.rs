//! Drives one attempt: looks where it stands, does the next thing, looks again. Every thing done is a step in the
//! journal, so a restart is no special case.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    Context, Handle, News, fetch,
    plan::{self, Found, Next},
};
use crate::{
    connect::Backoff,
    journal::JournalError,
    report::{Ended, Exit, Outcome as Became, Step},
    session::Wish,
    shim::{self, Liveness, Phase},
    spec::Spec,
};

/// How an attempt's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything is reported and cleaned up.
    Rested,
    /// It never began.
    Abandoned,
}

/// One attempt with all that its steps need.
pub(super) struct Life<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) handle: &'a Arc<Handle>,
    pub(super) spec: Arc<Spec>,
    pub(super) wish: watch::Receiver<Wish>,
}

pub(super) async fn run(context: &Arc<Context>, handle: &Arc<Handle>, digest: Option<Vec<u8>>) -> Outcome {
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
    let mut life = Life { context, handle, spec, wish };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match life.step(&mut backoff).await {
            Ok(true) => return Outcome::Rested,
            Ok(false) => {}
            Err(error) => {
                // A full disk: nothing is lost, and it goes on when there is room.
                error!(attempt = %handle.id, %error, "could not write a step down; trying again");
                backoff.wait().await;
            }
        }
    }
}

impl Life<'_> {
    /// Does the next thing; true when nothing is left to do.
    async fn step(&mut self, backoff: &mut Backoff) -> Result<bool, JournalError> {
        let last = self.handle.journal().and_then(crate::journal::Journal::last_step);
        let same_boot = last.as_ref().is_none_or(|entry| entry.at.same_boot(&self.context.boot));
        let last = last.map(|entry| entry.step);
        if matches!(last, Some(Step::Ended(_))) {
            self.rest().await;
            return Ok(true);
        }
        let found = match self.look().await {
            Ok(found) => found,
            Err(why) => {
                warn!(attempt = %self.handle.id, why, "cannot tell whether the shim lives; asking again");
                backoff.wait().await;
                return Ok(false);
            }
        };
        match plan::next(last.as_ref(), found, same_boot) {
            Next::Prepare => self.prepare(last).await?,
            Next::Attend => {
                self.attend(last, backoff).await?;
            }
            Next::Finish(end) => self.finish(last, end).await?,
            Next::Rest => {}
        }
        Ok(false)
    }

    async fn look(&self) -> Result<Found, String> {
        let dir = &self.handle.dir;
        match shim::probe(dir).await {
            Liveness::Present(status) => Ok(match status.phase {
                Phase::Ended(record) => Found::Recorded(Box::new(record)),
                Phase::Running | Phase::Held | Phase::Ending => Found::Present,
            }),
            Liveness::Absent(Some(record)) => Ok(Found::Recorded(Box::new(record))),
            Liveness::Absent(None) if !dir.join(shim::files::LAUNCH).exists() => Ok(Found::Never),
            Liveness::Absent(None) => Ok(Found::Vanished),
            // What stands on disk counts, also when whoever wrote it cannot be asked.
            Liveness::Unknown(why) => match shim::exit_record(dir) {
                Ok(Some(record)) => Ok(Found::Recorded(Box::new(record))),
                Ok(None) | Err(_) => Err(why),
            },
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

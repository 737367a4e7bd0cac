//! What is said within an attempt of how far it has come: into its journal, and onto the screens of those who look.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::warn;

use super::{Context, Handle, News};
use crate::{
    connect::Backoff,
    journal::{Journal, JournalError},
    shim,
    spec::Spec,
    tmux::Status,
};

/// What a view shows of an attempt now.
pub(super) fn status(spec: &Spec, journal: Option<&Journal>) -> Status {
    let intent = if spec.intent.is_empty() { &spec.title } else { &spec.intent };
    Status { intent: intent.clone(), milestone: journal.and_then(Journal::last_milestone).unwrap_or_default() }
}

/// Takes what is said for as long as the agent lives, and shows the last of it.
pub(super) async fn keep(context: Arc<Context>, handle: Arc<Handle>, shown: watch::Sender<Status>) {
    let mut told = handle.milestones.subscribe();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut warned = false;
    loop {
        match handle.take_milestones(&context).await {
            Ok(()) => {
                (warned, _) = (false, backoff.reset());
                if let Some(milestone) = handle.journal().and_then(Journal::last_milestone) {
                    shown.send_modify(|status| status.milestone = milestone);
                }
                if told.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    warn!(attempt = %handle.id, %error, "could not write down how far it has come; trying again");
                }
                backoff.wait().await;
            }
        }
    }
}

impl Handle {
    /// Writes down what was said and is not in the journal yet.
    pub(super) async fn take_milestones(self: &Arc<Self>, context: &Context) -> Result<(), JournalError> {
        let handle = Arc::clone(self);
        let taken = tokio::task::spawn_blocking(move || {
            let Some(journal) = handle.journal() else { return Ok(None) };
            match shim::milestones(&handle.dir) {
                Ok(said) => journal.append_milestones(said),
                // What an attempt says of itself is no reason to stop it.
                Err(error) => {
                    warn!(attempt = %handle.id, %error, "cannot read how far it has come");
                    Ok(None)
                }
            }
        });
        if let Some(sequence) = taken.await.unwrap_or(Ok(None))? {
            let _ending = context.news.send(News::Recorded(self.id, sequence)).await;
        }
        Ok(())
    }
}

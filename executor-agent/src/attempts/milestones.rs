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

/// Takes what is said for as long as the agent lives, within the attempt and through the controller, and shows the last of
/// it.
pub(super) async fn keep(context: Arc<Context>, handle: Arc<Handle>, shown: watch::Sender<Status>) {
    let (mut told, mut said) = (handle.milestones.subscribe(), handle.said.subscribe());
    said.mark_changed();
    let first = shown.borrow().clone();
    let (mut own, mut others) = (first.milestone.clone(), String::new());
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut warned = false;
    loop {
        match handle.take_milestones(&context).await {
            Ok(()) => {
                (warned, _) = (false, backoff.reset());
                let now = handle.journal().and_then(Journal::last_milestone).unwrap_or_default();
                if own != now {
                    own.clone_from(&now);
                    shown.send_modify(|status| status.milestone = now);
                }
                tokio::select! {
                    more = told.changed() => if more.is_err() { return },
                    more = said.changed() => {
                        if more.is_err() {
                            return;
                        }
                        let said = said.borrow_and_update().clone();
                        shown.send_if_modified(|status| follow(status, &first.intent, &said, &mut others));
                    }
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

/// PURE: shows what the controller has now: its intent, or else that of the `spec`; its milestone, when that is another than
/// the `last` it had. False: that is shown already.
fn follow(shown: &mut Status, spec: &str, said: &Status, last: &mut String) -> bool {
    let before = shown.clone();
    shown.intent = if said.intent.is_empty() { spec.to_owned() } else { said.intent.clone() };
    if *last != said.milestone {
        last.clone_from(&said.milestone);
        if !last.is_empty() {
            shown.milestone.clone_from(last);
        }
    }
    *shown != before
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_shown_wherever_it_was_said() {
        let status = |intent: &str, milestone: &str| Status { intent: intent.into(), milestone: milestone.into() };
        let (mut shown, mut last) = (status("spec", "own"), String::new());
        for (said, expected, news) in [
            (status("", ""), status("spec", "own"), false),
            (status("ship", ""), status("ship", "own"), true),
            (status("ship", "half"), status("ship", "half"), true),
            (status("ship", "half"), status("ship", "half"), false),
            (status("", "half"), status("spec", "half"), true),
        ] {
            assert_eq!(follow(&mut shown, "spec", &said, &mut last), news, "{said:?}");
            assert_eq!(shown, expected, "{said:?}");
        }
        shown.milestone = "own again".into();
        assert!(!follow(&mut shown, "spec", &status("", "half"), &mut last), "nothing new was said");
        assert!(!follow(&mut shown, "spec", &status("", "own again"), &mut last), "that is its own, come back");
        assert!(follow(&mut shown, "spec", &status("", "done"), &mut last));
        assert_eq!(shown, status("spec", "done"));
    }
}

//! What was published is published once more where a controller has lost it, as after its database was set back.
//!
//! | the pack that was published | the controller | the end is told |
//! |---|---|---|
//! | is here | takes it again | as it was |
//! | is here | refuses it for good | as failed to publish; what there is is kept for people |
//! | went with the workspace, for lack of room | | as failed to publish |

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sculpt_proto::id::AttemptId;
use tracing::{info, warn};

use super::{
    Attempts, Context, Handle, News, files,
    publish::{Publication, Tried},
};
use crate::{disk::write_durably, harvest::Found, journal::Journal};

/// Publishing again, for one attempt.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// It is under way.
    busy: AtomicBool,
    /// Why it cannot be done.
    failed: Mutex<Option<String>>,
}

impl Again {
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an earlier controller said counts no more.
    pub(super) fn forget(&self) {
        self.fail(None);
    }

    fn fail(&self, why: Option<String>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Keeps `pack`, which the controller has taken, in the attempt's directory.
pub(super) fn keep(directory: &Path, pack: &Path) {
    let kept = fs::File::open(pack)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(pack, directory.join(files::PACK)))
        .and_then(|()| fs::File::open(directory)?.sync_all());
    if let Err(error) = kept {
        // The controller has it; only one that loses it again would miss it.
        warn!(pack = %pack.display(), %error, "could not keep what was published");
    }
}

/// What is left of what an attempt has made.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Left {
    Workspace,
    Pack(PathBuf),
    Nothing,
}

impl Left {
    /// PURE: why the end is told without its head. `refused`: what the controller said to the pack.
    fn says(&self, refused: Option<&str>) -> String {
        let lost = "the controller has lost what was published, as after its database was set back";
        let refused = refused.map(|why| format!(", and did not take it again: {why}")).unwrap_or_default();
        let left = match self {
            Self::Workspace => "it stays in the workspace: `sculpt retry --in-workspace` goes on with it".to_owned(),
            Self::Pack(path) => format!("the executor keeps it in {}; `sculpt retry` begins anew", path.display()),
            Self::Nothing => {
                "the executor had removed its copy for lack of room; `sculpt retry` begins anew".to_owned()
            }
        };
        format!("{lost}{refused}; {left}")
    }
}

impl Attempts {
    /// Publishes again what an ended attempt has published, and tells the session when there is an answer.
    pub fn publish_again(&self, attempt: AttemptId) {
        let Some(handle) = self.get(attempt).filter(|handle| !handle.again.busy.swap(true, Ordering::AcqRel)) else {
            return;
        };
        let attempts = self.clone();
        self.tracker.spawn(async move {
            let context = Arc::clone(&attempts.context);
            let failed = tokio::select! {
                () = context.cancel.cancelled() => return,
                failed = Box::pin(handle.publish_again(&context)) => failed,
            };
            handle.again.fail(failed);
            handle.again.busy.store(false, Ordering::Release);
            let _ending = context.news.send(News::PublishedAgain(attempt)).await;
        });
    }
}

impl Handle {
    /// Why it cannot be published again; none when it was.
    async fn publish_again(&self, context: &Context) -> Option<String> {
        let head = self.journal().and_then(Journal::ended)?.head?;
        let pack = self.dir.join(files::PACK);
        let refused = match fs::metadata(&pack) {
            Ok(found) => {
                let found = Found { head, branch: None, pack: pack.clone(), pack_length: found.len() };
                let mut publication = Publication::new(context, self.id, &found);
                loop {
                    match publication.again().await {
                        Tried::Taken(_) => {
                            info!(attempt = %self.id, "published again what the controller had lost");
                            return None;
                        }
                        Tried::Refused(why) => break Some(why),
                        Tried::Later => publication.pause().await,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("could not read {}: {error}", pack.display())),
        };
        let left = if context.layout.workspace(self.id).exists() {
            Left::Workspace
        } else if pack.exists() {
            Left::Pack(pack)
        } else {
            Left::Nothing
        };
        let why = left.says(refused.as_deref());
        if left != Left::Nothing
            && let Err(error) = write_durably(&self.dir.join(files::KEEP), why.as_bytes())
        {
            // Until the controller has released it nothing goes anyway.
            warn!(attempt = %self.id, %error, "could not note that what it made is kept");
        }
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_what_is_not_there() {
        let table = [
            (Left::Workspace, None, "stays in the workspace"),
            (Left::Workspace, Some("no base"), "did not take it again: no base; it stays in the workspace"),
            (Left::Pack("/x/published.pack".into()), Some("no base"), "keeps it in /x/published.pack"),
            (Left::Nothing, None, "had removed its copy"),
        ];
        for (left, refused, expected) in table {
            let said = left.says(refused);
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.contains("stays in the workspace"), left == Left::Workspace, "{said}");
        }
    }

    #[test]
    fn a_pack_is_kept_where_it_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let pack = directory.path().join("pack-attempt.pack");
        for content in ["one", "two"] {
            fs::write(&pack, content).unwrap();
            keep(directory.path(), &pack);
            assert_eq!(fs::read_to_string(directory.path().join(files::PACK)).unwrap(), content);
            assert!(!pack.exists());
        }
        keep(directory.path(), &pack);
        assert_eq!(fs::read_to_string(directory.path().join(files::PACK)).unwrap(), "two", "nothing takes its place");
    }
}

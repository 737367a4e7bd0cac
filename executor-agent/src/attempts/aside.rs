//! Attempts whose files cannot be read. A living agent is left alone, and whoever wants its end still reaches it through
//! its shim; when it is over, all that is there is put aside and named, and its log is delivered as far as it can be.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sculpt_proto::id::AttemptId;
use serde::{Deserialize, Serialize};
use tracing::{debug, error, warn};

use super::{Attempts, Context, Handle, LogEnd, News, attend, fetch, files, prepare::CONTROL};
use crate::{
    connect::Backoff,
    damage,
    disk::write_durably,
    session::Wish,
    shim::{self, Client, ClientError, Phase},
    spool,
    workspace::ownership,
};

/// What is wrong with an attempt that cannot be gone on with, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its agent may still live.
    Watched(String),
    /// It is over, and what is there of it has been put aside.
    Aside(String),
}

impl Damage {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Watched(text) | Self::Aside(text) => text,
        }
    }
}

/// What stands in a directory that was put aside.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    why: String,
    /// How far the log can be read.
    log_length: u64,
}

/// Name of the file that holds the label.
const LABEL: &str = "damaged.json";

impl Attempts {
    /// Watches over an attempt whose files cannot be read, and puts them aside when it is over.
    pub(super) fn watch_over(&self, id: AttemptId, wish: Wish, why: String) {
        warn!(attempt = %id, why, "an attempt cannot be read; its agent is left alone");
        let dir = self.context.layout.attempt(id);
        let handle = Arc::new(Handle::damaged(id, dir, wish, Damage::Watched(why.clone())));
        self.lock().insert(id, Arc::clone(&handle));
        let attempts = self.clone();
        self.tracker.spawn(async move {
            let context = Arc::clone(&attempts.context);
            let work = async {
                let _ending = context.news.send(News::Damaged(id)).await;
                until_over(&context, &handle).await;
                let (dir, label) = put_aside(&context, &handle, why).await;
                if dir.join(files::RELEASED).exists() {
                    // The controller asks nothing more of it.
                    attempts.forget(id).await;
                    return;
                }
                attempts.name_aside(id, dir, &handle, label);
                let _ending = context.news.send(News::Damaged(id)).await;
            };
            tokio::select! {
                () = context.cancel.cancelled() => {}
                () = Box::pin(work) => {}
            }
        });
    }

    /// Looks again after an attempt whose files the system does not give out for now, which proves nothing about them.
    /// Meanwhile it is named, and its agent is told what is wanted.
    pub(super) fn look_again(&self, id: AttemptId, why: String) {
        warn!(attempt = %id, why, "an attempt cannot be read for now; looking again");
        let dir = self.context.layout.attempt(id);
        let handle = Arc::new(Handle::damaged(id, dir, Wish::Run, Damage::Watched(why)));
        self.lock().insert(id, Arc::clone(&handle));
        let attempts = self.clone();
        self.tracker.spawn(async move {
            let context = Arc::clone(&attempts.context);
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            loop {
                tokio::select! {
                    () = context.cancel.cancelled() => return,
                    () = attend_meanwhile(&context, &handle) => {}
                    () = backoff.wait() => {}
                }
                let wish = *handle.wish.borrow();
                match attempts.open(id) {
                    Ok(Some(found)) => {
                        found.wish.send_replace(wish);
                        return attempts.spawn(found, None);
                    }
                    Ok(None) => return attempts.forget(id).await,
                    Err(error) if error.passes() => debug!(attempt = %id, %error, "it still cannot be read"),
                    Err(error) => return attempts.watch_over(id, wish, error.to_string()),
                }
            }
        });
    }

    /// Names again what was put aside before, unless the controller has released it.
    pub(super) fn adopt_aside(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.context.layout.quarantine()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let dir = entry?.path();
            let Some(id) = attempt_of(&dir).filter(|id| self.get(*id).is_none()) else { continue };
            if dir.join(files::RELEASED).exists() {
                continue;
            }
            let label = fs::read(dir.join(LABEL)).ok().and_then(|json| serde_json::from_slice(&json).ok());
            let label = label.unwrap_or_else(|| {
                let why = format!("what the executor had of the attempt is damaged, and is kept in {}", dir.display());
                Label { why, log_length: 0 }
            });
            let unknown = Handle::new(id, dir.clone(), Wish::Run);
            self.name_aside(id, dir, &unknown, label);
            let news = self.context.news.clone();
            self.tracker.spawn(async move {
                let _ending = news.send(News::Damaged(id)).await;
            });
        }
        Ok(())
    }

    /// In place of `before`.
    fn name_aside(&self, id: AttemptId, dir: PathBuf, before: &Handle, label: Label) {
        let wish = *before.wish.borrow();
        let handle = Arc::new(Handle::damaged(id, dir, wish, Damage::Aside(label.why)));
        handle.log.set_held(before.log.held());
        self.lock().insert(id, Arc::clone(&handle));
        handle.grew(&self.context, LogEnd { length: label.log_length, finished: true });
    }
}

impl Handle {
    fn damaged(id: AttemptId, dir: PathBuf, wish: Wish, damage: Damage) -> Self {
        let handle = Self { damage: Some(damage), ..Self::new(id, dir, wish) };
        if let Ok(Some(spec)) = fetch::read(&handle.dir) {
            let _first = handle.spec.set(Arc::new(spec));
        }
        handle
    }
}

/// `<attempt>-<n>`
fn attempt_of(dir: &Path) -> Option<AttemptId> {
    dir.file_name()?.to_str()?.rsplit_once('-')?.0.parse().ok()
}

/// Returns when no shim lives. Until then its agent is told what is wanted, and its lease goes on.
async fn until_over(context: &Context, handle: &Handle) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let client = Client::new(&context.layout.sockets(handle.id).join(CONTROL));
    loop {
        match shim::is_locked(&handle.dir) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => warn!(attempt = %handle.id, %error, "cannot tell whether the shim lives"),
        }
        match follow(context, handle, &client).await {
            Ok(()) => backoff.reset(),
            Err(ClientError::Unreachable { .. })
                if shim::is_locked(&handle.dir).is_err_and(|error| !damage::passes(&error)) =>
            {
                return;
            }
            Err(error) => warn!(attempt = %handle.id, %error, "lost the shim"),
        }
        backoff.wait().await;
    }
}

/// Hands wishes and the lease to the shim, if it can be reached by its socket; how it ends is seen in the files.
async fn attend_meanwhile(context: &Context, handle: &Handle) {
    let client = Client::new(&context.layout.sockets(handle.id).join(CONTROL));
    let mut wish = handle.wish.subscribe();
    if let Ok(status) = client.status().await
        && !matches!(status.phase, Phase::Ended(_))
    {
        let _lost = attend::follow(context, handle, &mut wish, &client, &status).await;
    }
    std::future::pending().await
}

async fn follow(context: &Context, handle: &Handle, client: &Client) -> Result<(), ClientError> {
    let status = client.status().await?;
    if !matches!(status.phase, Phase::Ended(_)) {
        let mut wish = handle.wish.subscribe();
        attend::follow(context, handle, &mut wish, client, &status).await?;
    }
    client.release().await
}

/// Ends what is left of it and moves its files; returns where they are and what is said of them.
async fn put_aside(context: &Context, handle: &Handle, why: String) -> (PathBuf, Label) {
    let (id, from, layout) = (handle.id, handle.dir.clone(), context.layout.clone());
    let separate = context.separation.by_accounts();
    let moved = tokio::task::spawn_blocking(move || {
        if let Err(error) = shim::bury(&from, id.0) {
            warn!(attempt = %id, %error, "the recording of an unreadable attempt cannot be repaired");
        }
        let workspace = layout.workspace(id);
        if separate {
            // The next attempt under this account must not read it.
            let _absent = ownership::close(&workspace);
        }
        let log_length = spool::extent(&from.join(shim::files::SPOOL), 0).map_or(0, |extent| extent.end);
        let to = free_name(&layout.quarantine(), id);
        let made = workspace.display();
        let kept = |dir: &Path| {
            let dir = dir.display();
            format!(
                "what the executor had of the attempt is damaged: {why}; it is kept in {dir}, and what the agent made in {made}"
            )
        };
        let label = Label { why: kept(&to), log_length };
        match rename(&from, &to, &label) {
            Ok(()) => (to, label),
            Err(error) => {
                error!(attempt = %id, %error, "an unreadable attempt cannot be put aside; it stays where it is");
                let label = Label { why: kept(&from), log_length };
                (from, label)
            }
        }
    });
    let moved = moved.await;
    context.accounts.release(handle.id);
    // It does not panic, and is not aborted.
    moved.unwrap_or_else(|error| {
        (handle.dir.clone(), Label { why: format!("the attempt cannot be read: {error}"), log_length: 0 })
    })
}

fn free_name(quarantine: &Path, id: AttemptId) -> PathBuf {
    let names = (1..).map(|n: u64| quarantine.join(format!("{id}-{n}")));
    names.into_iter().find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| quarantine.join(id.to_string()))
}

/// Where it was put aside last.
pub(super) fn last_of(quarantine: &Path, id: AttemptId) -> Option<PathBuf> {
    let names = (1..).map(|n: u64| quarantine.join(format!("{id}-{n}")));
    names.take_while(|path| path.is_dir()).last()
}

fn rename(from: &Path, to: &Path, label: &Label) -> io::Result<()> {
    let quarantine = to.parent().unwrap_or(to);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(quarantine)?;
    write_durably(&from.join(LABEL), &serde_json::to_vec(label)?)?;
    fs::rename(from, to)?;
    from.parent().into_iter().chain([quarantine]).try_for_each(|directory| File::open(directory)?.sync_all())
}

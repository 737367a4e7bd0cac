//! The attempts of this executor: one task per attempt drives it from its spec to its last report, and goes on where
//! it stood after a restart.

mod adopt;
mod again;
mod aside;
mod attend;
mod confine;
mod context;
mod fetch;
mod finish;
mod go_on;
mod hand_back;
mod handle;
mod lease;
mod life;
mod limits;
mod log_end;
mod look;
mod milestones;
mod plan;
mod prepare;
mod publish;
mod recording;
mod seats;
mod view;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sculpt_proto::id::AttemptId;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use aside::Damage;
pub use context::{Basis, Context, Ends, Link, News, Released};
pub use handle::Handle;
pub(crate) use limits::counters;
pub use log_end::{Break, LogEnd};

use self::handle::Unreadable;
use crate::{
    journal::Stamp,
    layout::Layout,
    session::{Wanted, Wish},
    shim,
    tmux::Status,
};

/// The socket of an attempt's tmux server.
pub fn tmux_socket(layout: &Layout, attempt: AttemptId) -> PathBuf {
    layout.sockets(attempt).join(prepare::TMUX)
}

/// Names of the files in an attempt's directory that the executor reads and writes.
pub mod files {
    /// The spec as the controller gave it.
    pub const SPEC: &str = "spec";
    /// SHA-256 of the spec.
    pub const DIGEST: &str = "spec.sha256";
    /// The reports.
    pub const JOURNAL: &str = "journal";
    /// The account that it runs as.
    pub const ACCOUNT: &str = "account.json";
    /// The controller holds everything; when it said so.
    pub const RELEASED: &str = "released.json";
    /// The cluster that has taken it over; absent: the one in its spec.
    pub const CLUSTER: &str = "cluster";
    /// Why the workspace must be kept.
    pub const KEEP: &str = "keep";
    /// The pack, until it is published.
    pub const QUARANTINE: &str = "quarantine.git";
    /// The pack that was published: a database that is set back may lose it.
    pub const PACK: &str = "published.pack";
}

/// All attempts that are here; cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempts {
    context: Arc<Context>,
    held: Arc<Mutex<BTreeMap<AttemptId, Arc<Handle>>>>,
    tracker: TaskTracker,
}

impl Attempts {
    /// None yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, held: Arc::default(), tracker: TaskTracker::new() }
    }

    /// Takes up every attempt that is on disk, those too that cannot be read.
    pub fn adopt(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.context.layout.attempts())? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()) else { continue };
            match self.open(id) {
                Ok(Some(handle)) => self.spawn(handle, None),
                Ok(None) => {}
                Err(error) if error.passes() => self.look_again(id, error.to_string()),
                Err(error) => self.watch_over(id, Wish::Run, error.to_string()),
            }
        }
        if let Err(error) = self.adopt_aside() {
            warn!(%error, "cannot look at what was put aside before");
        }
        Ok(())
    }

    fn open(&self, id: AttemptId) -> Result<Option<Arc<Handle>>, Unreadable> {
        let dir = self.context.layout.attempt(id);
        let Some(spec) = fetch::read(&dir)? else {
            // The spec is written first: alone without it nothing has begun.
            if [files::JOURNAL, shim::files::LAUNCH].iter().any(|name| dir.join(name).exists()) {
                return Err(Unreadable::File { path: dir.join(files::SPEC), source: ErrorKind::NotFound.into() });
            }
            let _kept = std::fs::remove_dir_all(&dir);
            return Ok(None);
        };
        if spec.attempt != id {
            return Err(Unreadable::Other(dir.join(files::SPEC)));
        }
        // Made with the spec, before anything is started: a new one would count from 1 what is long told.
        if !dir.join(files::JOURNAL).exists() && dir.join(shim::files::LAUNCH).exists() {
            return Err(Unreadable::File { path: dir.join(files::JOURNAL), source: ErrorKind::NotFound.into() });
        }
        let owner =
            adopt::Owner::read(&dir).map_err(|source| Unreadable::File { path: dir.join(files::CLUSTER), source })?;
        let handle = Handle { owner, ..Handle::new(id, dir, Wish::Run) };
        handle.install(spec, &self.context.boot)?;
        if !handle.ended() {
            handle.check_files()?;
        }
        if let Ok(Some(account)) = handle.account()
            && !handle.released()
        {
            self.context.accounts.adopt(id, account);
        }
        Ok(Some(Arc::new(handle)))
    }

    /// Begins an attempt, unless it is here already.
    pub fn start(&self, wanted: Wanted) {
        if self.get(wanted.attempt).is_some() {
            return;
        }
        let dir = self.context.layout.attempt(wanted.attempt);
        let handle = Arc::new(Handle::new(wanted.attempt, dir, wanted.wish));
        self.spawn(handle, Some(wanted.digest));
    }

    fn spawn(&self, handle: Arc<Handle>, digest: Option<Vec<u8>>) {
        self.lock().insert(handle.id, Arc::clone(&handle));
        let attempts = self.clone();
        self.tracker.spawn(async move {
            let context = Arc::clone(&attempts.context);
            let work = life::run(&attempts, &handle, digest);
            let outcome = tokio::select! {
                () = context.cancel.cancelled() => return,
                () = handle.abandoned.cancelled() => life::Outcome::Abandoned,
                outcome = Box::pin(work) => outcome,
            };
            match outcome {
                life::Outcome::Rested => info!(attempt = %handle.id, "the attempt is over"),
                life::Outcome::Abandoned => attempts.forget(handle.id).await,
                life::Outcome::Damaged(why) => {
                    let wish = *handle.wish.borrow();
                    attempts.watch_over(handle.id, wish, why);
                }
            }
        });
    }

    /// Hands a wish to an attempt.
    pub fn wish(&self, attempt: AttemptId, wish: Wish) {
        if let Some(handle) = self.get(attempt) {
            handle.wish.send_replace(wish);
        }
    }

    /// Tells an attempt what people at its screen are to read, as the controller has it.
    pub fn say(&self, attempt: AttemptId, said: Status) {
        if let Some(handle) = self.get(attempt) {
            handle.said.send_if_modified(|told| std::mem::replace(told, said.clone()) != said);
        }
    }

    /// Gives up an attempt of which nothing has been reported.
    pub fn abandon(&self, attempt: AttemptId) {
        let begun = |handle: &Arc<Handle>| handle.journal().is_some() || handle.damage.is_some();
        if let Some(handle) = self.get(attempt).filter(|handle| !begun(handle)) {
            handle.abandoned.cancel();
        }
    }

    /// Takes note that the controller holds everything of an attempt.
    pub fn release(&self, attempt: AttemptId) {
        if let Some((handle, session)) = self.get(attempt).zip(self.context.session_number()) {
            handle.confirm(session);
        }
        // One that is damaged is not only noted as released but forgotten, which a note does not show.
        let noted = |handle: &Handle| handle.damage.is_none() && handle.released();
        if let Some(handle) = self.get(attempt).filter(|handle| handle.over() && !noted(handle)) {
            let log_complete = handle.log_delivered();
            // Whoever is fenced after its end has told nobody what it has made.
            let fenced = *handle.wish.borrow() == Wish::Fence;
            let released = Released { at: Stamp::now(&self.context.boot), log_complete, fenced };
            match handle.release(&released) {
                Ok(()) if handle.damage.is_some() => {
                    let attempts = self.clone();
                    self.tracker.spawn(async move { attempts.forget(attempt).await });
                }
                Ok(()) => self.context.released.notify_one(),
                // The controller says it again with the next full set.
                Err(error) => warn!(%attempt, %error, "could not note a release"),
            }
        }
    }

    /// The controller wants it again.
    pub fn unrelease(&self, attempt: AttemptId) {
        if let Some(handle) = self.get(attempt) {
            handle.unrelease();
            let sizes = self.context.room.sizes();
            sizes.forget(&handle.dir);
            sizes.forget(&self.context.layout.workspace(attempt));
            self.context.log_growth.notify_one();
        }
    }

    /// Drops what is known of an attempt, after its directory has gone or because it never began.
    pub async fn forget(&self, attempt: AttemptId) {
        self.lock().remove(&attempt);
        let _ending = self.context.news.send(News::Gone(attempt)).await;
    }

    /// One attempt.
    pub fn get(&self, attempt: AttemptId) -> Option<Arc<Handle>> {
        self.lock().get(&attempt).cloned()
    }

    /// All attempts.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.lock().values().cloned().collect()
    }

    /// How many slots are taken.
    pub fn slots_used(&self) -> u32 {
        let used = self.all().iter().filter(|handle| !handle.over()).count();
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    /// Waits until no attempt's task runs; agents are not touched.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Arc<Handle>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

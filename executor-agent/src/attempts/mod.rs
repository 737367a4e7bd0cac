//! The attempts of this executor: one task per attempt drives it from its spec to its last report, and goes on where
//! it stood after a restart.

mod adopt;
mod aside;
mod attend;
mod fetch;
mod finish;
mod go_on;
mod lease;
mod life;
mod log_end;
mod plan;
mod prepare;
mod publish;
mod recording;
mod view;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use aside::Damage;
pub use log_end::{Break, LogEnd};

use self::log_end::LogState;
use crate::{
    accounts::{Account, Accounts},
    config::Settings,
    connect::Dialer,
    damage,
    disk::write_durably,
    gc,
    journal::{Journal, JournalError, Stamp},
    layout::Layout,
    report::Step,
    session::{Wanted, Wish},
    shim,
    space::Room,
    spec::Spec,
    workspace::Stores,
};

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
}

/// A session with the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Raised by the controller at each connect; every write carries it.
    pub epoch: u64,
    /// The controller's cluster.
    pub cluster: ClusterId,
}

/// What an attempt tells the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Its spec is on disk.
    Present(AttemptId),
    /// A report is in its journal.
    Recorded(AttemptId, u64),
    /// Its log cannot be read to its end.
    Broken(AttemptId),
    /// The controller holds all of its log so far.
    Delivered(AttemptId),
    /// It cannot be gone on with, or has been put aside.
    Damaged(AttemptId),
    /// Its spec was handed to the controller, and this cluster has taken it over; none: not now.
    HandedIn(AttemptId, Option<ClusterId>),
    /// Nothing of it is here.
    Gone(AttemptId),
}

/// What all attempts share.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// Where things stand.
    pub layout: Layout,
    /// This executor.
    pub executor: ExecutorId,
    /// The kernel's boot id.
    pub boot: String,
    /// The executor's own binary, as shims and stages are started from it.
    pub program: PathBuf,
    /// The way to the controller.
    pub dialer: Dialer,
    /// Base history.
    pub stores: Stores,
    /// Accounts for separated attempts.
    pub accounts: Accounts,
    /// The session, while there is one.
    pub link: watch::Receiver<Option<Link>>,
    /// When the newest message was sent that the controller is known to have got, by CLOCK_BOOTTIME.
    pub lease: watch::Receiver<Option<Duration>>,
    /// To the session; when it is full, attempts wait.
    pub news: mpsc::Sender<News>,
    /// Told when a log has grown or ended.
    pub log_growth: Notify,
    /// Told when the controller has released an attempt, or room is needed.
    pub released: Notify,
    /// How full the disk is.
    pub room: Room,
    /// Where to ask what can be removed.
    pub garbage: gc::Door,
    /// Ends everything but the agents.
    pub cancel: CancellationToken,
}

impl Context {
    /// Waits for a session.
    async fn session(&self) -> Link {
        let mut link = self.link.clone();
        loop {
            let session = *link.borrow_and_update();
            match session {
                Some(session) => return session,
                // Without a sender the executor is ending.
                None if link.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }
}

/// That the controller has released an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// When it said so.
    #[serde(flatten)]
    pub at: Stamp,
    /// It was known to hold all of the log then.
    #[serde(default)]
    pub log_complete: bool,
}

impl Released {
    /// Of the attempt in `dir`, if it is.
    pub fn read(dir: &std::path::Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(files::RELEASED)).ok()?).ok()
    }

    fn write(&self, dir: &std::path::Path) -> std::io::Result<()> {
        sculpt_failpoints::pass("release.before_write");
        write_durably(&dir.join(files::RELEASED), &serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }
}

/// One attempt as the rest of the executor sees it.
#[derive(Debug)]
pub struct Handle {
    /// Its id.
    pub id: AttemptId,
    /// Its directory.
    pub dir: PathBuf,
    spec: OnceLock<Arc<Spec>>,
    journal: OnceLock<Journal>,
    wish: watch::Sender<Wish>,
    log: LogState,
    damage: Option<Damage>,
    owner: adopt::Owner,
    abandoned: CancellationToken,
}

impl Handle {
    fn new(id: AttemptId, dir: PathBuf, wish: Wish) -> Self {
        Self {
            id,
            dir,
            spec: OnceLock::new(),
            journal: OnceLock::new(),
            wish: watch::Sender::new(wish),
            log: LogState::default(),
            damage: None,
            owner: adopt::Owner::default(),
            abandoned: CancellationToken::new(),
        }
    }

    /// What it is to do, once that is on disk.
    pub fn spec(&self) -> Option<&Arc<Spec>> {
        self.spec.get()
    }

    /// Its reports, once there can be any.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.get()
    }

    /// Why it cannot be gone on with.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// How far its log goes and can be read.
    pub fn log_end(&self) -> LogEnd {
        self.log.end()
    }

    /// Where its recording is damaged.
    pub fn log_break(&self) -> Option<Break> {
        self.log.broken().clone()
    }

    /// The controller holds so much of its log; none: some of it is under way.
    pub fn log_held(&self, bytes: Option<u64>) {
        self.log.set_held(bytes);
    }

    /// Whether the controller holds all of its log, as far as there is one.
    pub fn log_delivered(&self) -> bool {
        let LogEnd { length, finished } = self.log.end();
        finished && (length == 0 || self.log.held().is_some_and(|held| held >= length))
    }

    /// Whether its last report is in the journal.
    pub fn ended(&self) -> bool {
        self.journal().is_some_and(|journal| journal.ended().is_some())
    }

    /// Whether nothing will come of it any more: it has ended, or was put aside.
    pub fn over(&self) -> bool {
        self.ended() || matches!(self.damage, Some(Damage::Aside(_)))
    }

    /// Whether the controller has released it.
    pub fn released(&self) -> bool {
        self.dir.join(files::RELEASED).exists()
    }

    /// The account that it runs as, where attempts have one of their own.
    fn account(&self) -> std::io::Result<Option<Account>> {
        match std::fs::read(self.dir.join(files::ACCOUNT)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether everything can be read that an attempt needs to go on.
    fn check_files(&self) -> Result<(), Unreadable> {
        let unreadable = |name| {
            let path = self.dir.join(name);
            move |source| Unreadable::File { path, source }
        };
        self.account().map_err(unreadable(files::ACCOUNT))?;
        shim::exit_record(&self.dir).map_err(unreadable(shim::files::EXIT))?;
        match shim::Launch::read(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unreadable(shim::files::LAUNCH)(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// An attempt that cannot be gone on with.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Spec(#[from] fetch::SpecError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{path} cannot be read: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} is another attempt's")]
    Other(PathBuf),
}

impl Unreadable {
    /// Whether it may be read later.
    fn passes(&self) -> bool {
        match self {
            Self::Spec(fetch::SpecError::Io { source, .. }) | Self::File { source, .. } => damage::passes(source),
            Self::Journal(error) | Self::Spec(fetch::SpecError::Journal(error)) => error.passes(),
            Self::Spec(_) | Self::Other(_) => false,
        }
    }
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
                // One that is missing from what is observed counts as lost.
                Err(error) if error.passes() => return Err(std::io::Error::other(format!("attempt {id}: {error}"))),
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

    /// Gives up an attempt of which nothing has been reported.
    pub fn abandon(&self, attempt: AttemptId) {
        let begun = |handle: &Arc<Handle>| handle.journal().is_some() || handle.damage.is_some();
        if let Some(handle) = self.get(attempt).filter(|handle| !begun(handle)) {
            handle.abandoned.cancel();
        }
    }

    /// Takes note that the controller holds everything of an attempt.
    pub fn release(&self, attempt: AttemptId) {
        if let Some(handle) = self.get(attempt).filter(|handle| handle.over()) {
            let log_complete = handle.log_delivered();
            let released = Released { at: Stamp::now(&self.context.boot), log_complete };
            match released.write(&handle.dir) {
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
            let _absent = std::fs::remove_file(handle.dir.join(files::RELEASED));
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

impl Handle {
    fn install(&self, spec: Spec, boot: &str) -> Result<(), JournalError> {
        let journal = Journal::open(&self.dir.join(files::JOURNAL), boot)?;
        if let Some(ended) = journal.ended() {
            self.log.set_end(LogEnd { length: ended.log_length, finished: true });
        }
        let _same = self.journal.set(journal);
        let _same = self.spec.set(Arc::new(spec));
        Ok(())
    }

    /// Writes a step to disk, then tells the session.
    async fn record(self: &Arc<Self>, context: &Context, step: Step) -> Result<(), JournalError> {
        let handle = Arc::clone(self);
        let written =
            tokio::task::spawn_blocking(move || handle.journal().map(|journal| journal.append(step)).transpose());
        // The closure does not panic, and is not aborted.
        if let Some(sequence) = written.await.unwrap_or(Ok(None))? {
            let _ending = context.news.send(News::Recorded(self.id, sequence)).await;
        }
        Ok(())
    }

    /// Writes a remark once.
    async fn note(self: &Arc<Self>, context: &Context, text: impl Into<String>) -> Result<(), JournalError> {
        let text = text.into();
        if self.journal().is_some_and(|journal| journal.has_note(&text)) {
            return Ok(());
        }
        self.record(context, Step::Note { text }).await
    }

    /// Its recording is damaged: the log ends there, and people are told.
    pub(crate) async fn break_log(self: &Arc<Self>, context: &Context, found: Break) {
        warn!(attempt = %self.id, at = found.at, why = found.why, "the recording is damaged");
        self.log.break_at(found.clone());
        if let Err(error) = self.note(context, found.note()).await {
            // It is found again after a restart.
            warn!(attempt = %self.id, %error, "could not note that the recording is damaged");
        }
        let _ending = context.news.send(News::Broken(self.id)).await;
    }

    fn grew(&self, context: &Context, end: LogEnd) {
        if self.log.set_end(end) {
            context.log_growth.notify_one();
        }
    }
}

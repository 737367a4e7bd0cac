//! One attempt: what is on disk of it, what is wanted of it, and how far its log goes.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sculpt_proto::id::AttemptId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Break, Context, Damage, LogEnd, News, Released, adopt, again, fetch, files, log_end::LogState};
use crate::{
    accounts::Account,
    damage,
    journal::{Journal, JournalError},
    report::Step,
    session::Wish,
    shim,
    spec::Spec,
    tmux::Status,
};

/// One attempt as the rest of the executor sees it.
#[derive(Debug)]
pub struct Handle {
    /// Its id.
    pub id: AttemptId,
    /// Its directory.
    pub dir: PathBuf,
    pub(super) spec: OnceLock<Arc<Spec>>,
    pub(super) journal: OnceLock<Journal>,
    pub(super) wish: watch::Sender<Wish>,
    pub(super) log: LogState,
    /// How many milestones its shim has said to have.
    pub(super) milestones: watch::Sender<u64>,
    /// What its task is for and how far it has come, as the controller has it; empty where it has nothing beside the spec.
    pub(super) said: watch::Sender<Status>,
    pub(super) damage: Option<Damage>,
    pub(super) owner: adopt::Owner,
    pub(super) abandoned: CancellationToken,
    /// As its directory says.
    pub(super) released: AtomicBool,
    /// What was published is being published again, and why it cannot be.
    pub(super) again: again::Again,
    /// The session in which the controller said last that it holds everything; 0: in none of this process.
    pub(super) confirmed: AtomicU64,
}

impl Handle {
    pub(super) fn new(id: AttemptId, dir: PathBuf, wish: Wish) -> Self {
        let released = AtomicBool::new(dir.join(files::RELEASED).exists());
        Self {
            id,
            dir,
            spec: OnceLock::new(),
            journal: OnceLock::new(),
            wish: watch::Sender::new(wish),
            log: LogState::default(),
            milestones: watch::Sender::default(),
            said: watch::Sender::default(),
            damage: None,
            owner: adopt::Owner::default(),
            abandoned: CancellationToken::new(),
            released,
            again: again::Again::default(),
            confirmed: AtomicU64::new(0),
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
        self.released.load(Ordering::Acquire)
    }

    /// Notes on disk that the controller has released it.
    pub(super) fn release(&self, released: &Released) -> io::Result<()> {
        released.write(&self.dir)?;
        self.released.store(true, Ordering::Release);
        Ok(())
    }

    /// The controller wants it again.
    pub(super) fn unrelease(&self) {
        let _absent = std::fs::remove_file(self.dir.join(files::RELEASED));
        self.released.store(false, Ordering::Release);
        // Another database may take what one has refused.
        self.again.forget();
    }

    /// The controller says in `session` that it holds everything.
    pub(super) fn confirm(&self, session: u64) {
        self.confirmed.store(session, Ordering::Release);
    }

    /// Whether the controller has said so in `session`: what it said in an earlier one may have been another database's word.
    pub fn confirmed(&self, session: Option<u64>) -> bool {
        self.released() && session == Some(self.confirmed.load(Ordering::Acquire))
    }

    /// Why the controller cannot have what it published.
    pub fn unpublished(&self) -> Option<String> {
        self.again.failed()
    }

    /// The account that it runs as, where attempts have one of their own.
    pub(super) fn account(&self) -> std::io::Result<Option<Account>> {
        match std::fs::read(self.dir.join(files::ACCOUNT)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether everything can be read that an attempt needs to go on.
    pub(super) fn check_files(&self) -> Result<(), Unreadable> {
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

    pub(super) fn install(&self, spec: Spec, boot: &str) -> Result<(), JournalError> {
        let journal = Journal::open(&self.dir.join(files::JOURNAL), boot)?;
        if let Some(ended) = journal.ended() {
            self.log.set_end(LogEnd { length: ended.log_length, finished: true });
        }
        let _same = self.journal.set(journal);
        let _same = self.spec.set(Arc::new(spec));
        Ok(())
    }

    /// Writes a step to disk, then tells the session.
    pub(super) async fn record(self: &Arc<Self>, context: &Context, step: Step) -> Result<(), JournalError> {
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
    pub(crate) async fn note(self: &Arc<Self>, context: &Context, text: impl Into<String>) -> Result<(), JournalError> {
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

    pub(super) fn grew(&self, context: &Context, end: LogEnd) {
        if self.log.set_end(end) {
            context.log_growth.notify_one();
        }
    }
}

/// An attempt that cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
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
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Spec(fetch::SpecError::Io { source, .. }) | Self::File { source, .. } => damage::passes(source),
            Self::Journal(error) | Self::Spec(fetch::SpecError::Journal(error)) => error.passes(),
            Self::Spec(_) | Self::Other(_) => false,
        }
    }
}

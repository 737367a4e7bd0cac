//! What all attempts share, and what they tell the session.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::files;
use crate::{
    accounts::Accounts, cgroup::Counting, config::Settings, connect::Dialer, disk::write_durably, gc, journal::Stamp,
    layout::Layout, sandbox::Separation, space::Room, ssh, workspace::Stores,
};

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
    /// What a controller had lost of it was published again, or cannot be.
    PublishedAgain(AttemptId),
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
    /// What keeps attempts from this executor and from each other.
    pub separation: Separation,
    /// Root shares memory and queues with what it starts here, whatever account that has.
    pub shares_memory: bool,
    /// What of them is counted.
    pub counting: Counting,
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
    /// How many sessions this process has begun: epochs may come again when a database was set back.
    pub sessions: AtomicU64,
    /// How full the disk is.
    pub room: Room,
    /// Where to ask what can be removed.
    pub garbage: gc::Door,
    /// Who takes people in is told by the session.
    pub people: ssh::Told,
    /// Ends everything but the agents.
    pub cancel: CancellationToken,
}

/// What an executor stands on.
#[derive(Debug)]
pub struct Basis {
    /// The settings.
    pub settings: Settings,
    /// Where things stand.
    pub layout: Layout,
    /// This executor.
    pub executor: ExecutorId,
    /// The kernel's boot id.
    pub boot: String,
    /// The executor's own binary.
    pub program: PathBuf,
    /// The way to the controller.
    pub dialer: Dialer,
    /// What keeps attempts from this executor and from each other.
    pub separation: Separation,
    /// Root shares memory and queues with what it starts here, whatever account that has.
    pub shares_memory: bool,
    /// What of them is counted.
    pub counting: Counting,
}

/// The other ends of what a [`Context`] hears and tells.
#[derive(Debug)]
pub struct Ends {
    /// For the session: whether there is one.
    pub link: watch::Sender<Option<Link>>,
    /// For the session: how long it has been confirmed.
    pub lease: watch::Sender<Option<Duration>>,
    /// For the session: what attempts tell it.
    pub news: mpsc::Receiver<News>,
    /// For the collector of garbage.
    pub questions: gc::Questions,
    /// For who takes people in.
    pub people: ssh::Hears,
}

/// News that wait for the session; with more of them attempts wait.
const NEWS: usize = 1_024;

impl Context {
    /// An executor at its beginning, without a session.
    pub fn new(basis: Basis) -> (Self, Ends) {
        let Basis { settings, layout, executor, boot, program, dialer, separation, shares_memory, counting } = basis;
        let (link_sender, link) = watch::channel(None);
        let (lease_sender, lease) = watch::channel(None);
        let (news, told) = mpsc::channel(NEWS);
        let (garbage, questions) = gc::door();
        let (people, hears) = ssh::news();
        let context = Self {
            accounts: Accounts::new(layout.homes()),
            settings,
            layout,
            executor,
            boot,
            program,
            dialer,
            stores: Stores::default(),
            separation,
            shares_memory,
            counting,
            link,
            lease,
            news,
            log_growth: Notify::new(),
            released: Notify::new(),
            sessions: AtomicU64::new(0),
            room: Room::default(),
            garbage,
            people,
            cancel: CancellationToken::new(),
        };
        (context, Ends { link: link_sender, lease: lease_sender, news: told, questions, people: hears })
    }

    /// The session that there is, numbered within this process.
    pub(crate) fn session_number(&self) -> Option<u64> {
        self.link.borrow().map(|_| self.sessions.load(Ordering::Acquire))
    }

    /// Waits for a session.
    pub(super) async fn session(&self) -> Link {
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
    /// The task had gone on without it.
    #[serde(default)]
    pub fenced: bool,
}

impl Released {
    /// Of the attempt in `dir`, if it is.
    pub fn read(dir: &std::path::Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(files::RELEASED)).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &std::path::Path) -> std::io::Result<()> {
        sculpt_failpoints::pass("release.before_write");
        write_durably(&dir.join(files::RELEASED), &serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }
}

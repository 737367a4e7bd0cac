//! The built-in Postgres: a private cluster made from the system's binaries.
//!
//! It outlives a controller that is killed and is adopted by the next one, is restarted when it dies, and is shut down
//! with the controller when that ends in order. Nobody reaches it but through a socket in a directory of its account.

mod account;
mod binaries;
mod cluster;
mod process;
mod sockets;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    account::Account,
    process::{Postmaster, Starting},
};
pub use self::{
    binaries::{Binaries, BinariesError},
    process::StartError,
};
use crate::store::{Database, StoreError};

/// Database that the controller lives in.
const DATABASE: &str = "sculpt";

/// Superuser of a private cluster.
const SUPERUSER: &str = "sculpt";

/// Who serves from it: a role that owns nothing.
const SERVICE: &str = "sculpt_service";

/// Longest wait for the shutdown to end before the server is told to drop everything; its next start then recovers.
const FAST_SHUTDOWN: Duration = Duration::from_millis(1500);

/// Waits between attempts to restart a server that died: from this, doubling, to the next.
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_MOST: Duration = Duration::from_secs(5);

/// How a private cluster is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether a commit is on disk before it is acknowledged; false only where the data may be lost, as in tests.
    pub durable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { durable: true }
    }
}

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The system has no usable server.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// The data directory belongs to another major version and its binaries are not here.
    #[error(
        "{path} holds the data of Postgres {data}, but this machine has Postgres {found} only. Install Postgres {data} \
         (`apt install postgresql-{data}`) to go on with the data, or move it over with pg_upgrade"
    )]
    Version {
        /// The data directory.
        path: PathBuf,
        /// Major version of the data.
        data: u32,
        /// Major version of the binaries.
        found: u32,
    },
    /// The data directory is not one.
    #[error(
        "{path} is not empty and not a Postgres data directory (it has no readable PG_VERSION). Move it away, or start \
         with another --data-dir"
    )]
    NotACluster {
        /// The directory.
        path: PathBuf,
    },
    /// No account to run the server as.
    #[error(
        "Postgres does not run as root, and this machine has no account `postgres` or `nobody` to run it as. Create \
         one (`adduser --system postgres`), or give a --database-url"
    )]
    NoAccount,
    /// The account cannot get to the data directory.
    #[error(
        "Postgres runs as `{account}`, which cannot enter {parent} on the way to its data, and `setpriv` cannot help \
         here ({reason}). Open it with `chmod o+x {parent}`, or start with another --data-dir"
    )]
    Unreachable {
        /// The account.
        account: String,
        /// The first directory that it cannot enter.
        parent: PathBuf,
        /// Why the other way does not work.
        reason: String,
    },
    /// A file or directory could not be prepared.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be run to its end.
    #[error("{program} failed: {text}")]
    Program {
        /// Which.
        program: &'static str,
        /// Its last words.
        text: String,
    },
    /// The server did not come up.
    #[error(transparent)]
    NotStarted(#[from] StartError),
    /// It is up, but does not answer.
    #[error("cannot use the built-in Postgres: {0}")]
    Store(#[from] StoreError),
}

/// A running private cluster, kept running until [`Postgres::stop`].
#[derive(Debug)]
pub struct Postgres {
    database: Database,
    version: String,
    postmaster: watch::Receiver<Option<u32>>,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Postgres {
    /// Makes the cluster in `directory` unless it is there, adopts or starts its server, and keeps it running.
    pub async fn start(directory: &Path, settings: Settings) -> Result<Self, PostgresError> {
        let account = Account::choose(directory)?;
        let binaries = cluster::binaries_for(directory).await?;
        cluster::prepare(directory, &account, &binaries, settings).await?;
        let server = process::Server {
            log: directory.with_extension("log"),
            data: cluster::resolved(directory)?,
            account,
            binaries,
            settings,
        };
        let running = server.adopt_or_start().await?;
        let (database, pid) = (server.database(running.sockets()), running.pid());
        let starting = Starting::new(running);
        database.named("postgres").ensure(DATABASE).await?;
        database.ensure_role(SERVICE).await?;
        let (_, version) = database.version().await?;
        let (told, postmaster) = watch::channel(Some(pid));
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let running = starting.kept();
        let keeper = tokio::spawn(async move {
            if let Some(running) = running {
                keep(server, running, told, stopping).await;
            }
        });
        Ok(Self { database, version, postmaster, stop, keeper })
    }

    /// The database, as who owns all of it, of a cluster that another process keeps running; `None` when it does not run.
    pub fn beside(directory: &Path) -> Option<Database> {
        let sockets = process::sockets_of(&cluster::resolved(directory).ok()?)?;
        Some(Database::at_socket(&sockets, SUPERUSER, DATABASE))
    }

    /// Its database, as who owns all of it.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Its database, as who serves from it.
    pub fn service(&self) -> Database {
        self.database.as_role(SERVICE)
    }

    /// The server's version, like `15.8`.
    pub fn version(&self) -> &str {
        self.version.split_whitespace().next().unwrap_or_default()
    }

    /// The server's first process; changes when it dies and is started again, and is `None` in between.
    pub fn postmaster(&self) -> watch::Receiver<Option<u32>> {
        self.postmaster.clone()
    }

    /// Shuts the server down: rolls open transactions back, cuts connections, writes a checkpoint.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.keeper.await.is_err() {
            tracing::error!("the keeper of the built-in Postgres panicked");
        }
    }
}

/// Keeps the server running until `stop`, then ends it.
async fn keep(
    server: process::Server,
    mut running: Postmaster,
    told: watch::Sender<Option<u32>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return running.shut_down(FAST_SHUTDOWN).await,
            () = running.ended() => {}
        }
        told.send_replace(None);
        tracing::error!(pid = running.pid(), "the built-in Postgres has died and is started again");
        let sockets = running.sockets().to_owned();
        let mut pause = RESTART_FIRST;
        running = loop {
            let restarted = tokio::select! {
                () = stop.cancelled() => return,
                restarted = server.start_in(&sockets) => restarted,
            };
            match restarted {
                Ok(running) => break running,
                Err(error) => tracing::error!(%error, "cannot start the built-in Postgres again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RESTART_MOST),
            }
        };
        tracing::info!(pid = running.pid(), "the built-in Postgres is back");
        told.send_replace(Some(running.pid()));
    }
}

/// An error about a file, for `map_err`.
fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
    let path = path.to_owned();
    move |source| PostgresError::File { what, path, source }
}

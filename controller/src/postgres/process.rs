//! The server's process: adopted or started, watched, ended.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Binaries, DATABASE, PostgresError, SUPERUSER, Settings, account::Account, file, sockets};
use crate::store::Database;

/// Longest wait for a server to accept connections: it may have to recover from a crash first.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a server that starts is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Size of the log from which it is begun anew at a start; the one before is kept.
const LOG_LIMIT: u64 = 16 << 20;

/// What is set on the command line, and so outranks the cluster's own files.
const OPTIONS: [&str; 15] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=60",
    "shared_buffers=64MB",
    "work_mem=8MB",
    "maintenance_work_mem=64MB",
    "min_wal_size=64MB",
    "max_wal_size=512MB",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "logging_collector=off",
    "log_destination=stderr",
    "cluster_name=sculpt",
];

/// Everything that a start needs.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) log: PathBuf,
    pub(super) data: PathBuf,
    pub(super) account: Account,
    pub(super) binaries: Binaries,
    pub(super) settings: Settings,
}

/// The server did not come up.
#[derive(Debug, thiserror::Error)]
#[error("the built-in Postgres did not start ({reason}). Its log is {}; it ends with:\n{tail}", log.display())]
pub struct StartError {
    /// In short.
    pub reason: String,
    /// The server's log file.
    pub log: PathBuf,
    /// The last lines of it.
    pub tail: String,
}

/// A server that accepts connections.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    sockets: PathBuf,
    process: Process,
}

/// A server that nobody keeps yet; told to end when nobody waits for it any more.
pub(super) struct Starting(Option<Postmaster>);

impl Starting {
    /// Holds `postmaster` until somebody keeps it.
    pub(super) fn new(postmaster: Postmaster) -> Self {
        Self(Some(postmaster))
    }

    /// Somebody keeps it from now on.
    pub(super) fn kept(mut self) -> Option<Postmaster> {
        self.0.take()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(postmaster) = &self.0 {
            postmaster.signal(Signal::INT);
        }
    }
}

#[derive(Debug)]
enum Process {
    /// Ours to reap.
    Child(Child),
    /// Started by a controller that is gone; cancelled when it has ended.
    Adopted(CancellationToken),
}

/// What a server writes into `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    pid: Pid,
    sockets: PathBuf,
}

impl Server {
    /// The database behind the socket in `sockets`.
    pub(super) fn database(&self, sockets: &Path) -> Database {
        Database::at_socket(sockets, SUPERUSER, DATABASE)
    }

    /// The server that a killed controller left running, or a new one.
    pub(super) async fn adopt_or_start(&self) -> Result<Postmaster, PostgresError> {
        if let Some(found) = self.survivor()? {
            tracing::info!(pid = found.pid.as_raw_pid(), "adopting the built-in Postgres of a controller that is gone");
            let end = end_of(found.pid).map_err(file("watch the server of", &self.data))?;
            let mut running = Postmaster { pid: found.pid, sockets: found.sockets, process: Process::Adopted(end) };
            match self.ready(&mut running).await {
                Ok(()) => return Ok(running),
                Err(error) if running.alive() => return Err(error.into()),
                // It was about to end.
                Err(_) => {}
            }
        }
        let sockets = sockets::directory(&self.data, &self.account)?;
        Ok(self.start_in(&sockets).await?)
    }

    /// Starts the server with its socket in `sockets`, and waits until it accepts connections.
    pub(super) async fn start_in(&self, sockets: &Path) -> Result<Postmaster, StartError> {
        // Processes of a server that was killed hold its shared memory until they notice, and it holds its number until its
        // parent has.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let error = match self.start_once(sockets).await {
                Ok(running) => return Ok(running),
                Err(error) => error,
            };
            let held = error.tail.lines().rev().take(4).any(|line| {
                let locked =
                    line.contains("postmaster.pid\" already exists") || line.contains(".lock\" already exists");
                locked || line.contains("pre-existing shared memory block")
            });
            if !held || Instant::now() > deadline {
                return Err(error);
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn start_once(&self, sockets: &Path) -> Result<Postmaster, StartError> {
        let log = self.open_log().map_err(|error| self.failed(format!("cannot write its log: {error}")))?;
        let again = log.try_clone().map_err(|error| self.failed(error.to_string()))?;
        let mut command = self.account.command(&self.binaries.program("postgres"));
        command.arg("-D").arg(&self.data);
        let own = [
            format!("unix_socket_directories={}", sockets.display()),
            format!("fsync={}", if self.settings.durable { "on" } else { "off" }),
            format!("synchronous_commit={}", if self.settings.durable { "on" } else { "off" }),
        ];
        for option in OPTIONS.into_iter().chain(own.iter().map(String::as_str)) {
            command.arg("-c").arg(option);
        }
        let child = command.stdout(again).stderr(log).spawn().map_err(|error| self.failed(error.to_string()))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| self.failed("it ended at once".to_owned()))?;
        let process = Process::Child(child);
        let mut starting = Starting::new(Postmaster { pid, sockets: sockets.to_owned(), process });
        if let Some(running) = &mut starting.0 {
            self.ready(running).await?;
        }
        starting.kept().ok_or_else(|| self.failed("it ended at once".to_owned()))
    }

    /// Waits until `running` accepts connections.
    async fn ready(&self, running: &mut Postmaster) -> Result<(), StartError> {
        let database = self.database(&running.sockets).named("postgres");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let refused = match database.version().await {
                Ok(_) => return Ok(()),
                Err(refused) => refused,
            };
            if timeout(ASK_EVERY, running.ended()).await.is_ok() {
                return Err(self.failed("it ended".to_owned()));
            }
            if Instant::now() > deadline {
                let reason = format!("it did not accept connections within {START_TIMEOUT:?}: {refused}");
                return Err(self.failed(reason));
            }
        }
    }

    /// A living server of exactly this data. A pid file that names some other process is removed: after a reboot the
    /// number may be anybody's, and the server would refuse to start because of it.
    fn survivor(&self) -> Result<Option<PidFile>, PostgresError> {
        let path = self.data.join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", &path)(error)),
        };
        let Some(found) = PidFile::parse(&text) else { return Ok(None) };
        let Ok(line) = fs::read(format!("/proc/{}/cmdline", found.pid.as_raw_pid())) else { return Ok(None) };
        let wanted = self.data.as_os_str().as_encoded_bytes();
        if line.split(|byte| *byte == 0).any(|argument| argument == wanted) {
            return Ok(Some(found));
        }
        if line.is_empty() {
            // It was killed just now. Its file keeps a new server away as long as its processes live.
            return Ok(None);
        }
        fs::remove_file(&path).map_err(file("remove the stale", &path))?;
        Ok(None)
    }

    fn open_log(&self) -> io::Result<File> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_LIMIT) {
            fs::rename(&self.log, self.log.with_extension("log.1"))?;
        }
        File::options().create(true).append(true).open(&self.log)
    }

    fn failed(&self, reason: String) -> StartError {
        StartError { reason, log: self.log.clone(), tail: tail(&self.log) }
    }
}

impl Postmaster {
    /// Its first process.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// The directory of its socket.
    pub(super) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Waits for its end. Can be dropped and called again.
    pub(super) async fn ended(&mut self) {
        let waited = match &mut self.process {
            Process::Child(child) => child.wait().await.map(drop),
            Process::Adopted(end) => {
                end.cancelled().await;
                Ok(())
            }
        };
        if let Err(error) = waited {
            tracing::error!(%error, "cannot wait for the built-in Postgres");
        }
    }

    fn alive(&self) -> bool {
        rustix::process::test_kill_process(self.pid).is_ok()
    }

    /// Ends it: in order within `patience`, else at once, which its next start recovers from.
    pub(super) async fn shut_down(mut self, patience: Duration) {
        self.signal(Signal::INT);
        if timeout(patience, self.ended()).await.is_err() {
            tracing::warn!("the built-in Postgres is slow to end; it is told to drop everything and will recover");
            self.signal(Signal::QUIT);
            if timeout(Duration::from_secs(1), self.ended()).await.is_err() {
                tracing::error!(pid = self.pid(), "the built-in Postgres does not end");
                return;
            }
        }
        // Only the directory of its socket remains.
        if let Err(error) = fs::remove_dir(&self.sockets) {
            tracing::debug!(%error, path = %self.sockets.display(), "cannot remove the socket's directory");
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(self.pid, signal) {
            tracing::debug!(%error, pid = self.pid(), "cannot signal the built-in Postgres");
        }
    }
}

impl PidFile {
    /// Lines: pid, data directory, start time, port, socket directory, …
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?)?;
        let sockets = PathBuf::from(lines.nth(3)?);
        sockets.is_absolute().then_some(Self { pid, sockets })
    }
}

/// Where the living server of exactly this data has its socket.
pub(super) fn sockets_of(data: &Path) -> Option<PathBuf> {
    let found = PidFile::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)?;
    let line = fs::read(format!("/proc/{}/cmdline", found.pid.as_raw_pid())).ok()?;
    let wanted = data.as_os_str().as_encoded_bytes();
    line.split(|byte| *byte == 0).any(|argument| argument == wanted).then_some(found.sockets)
}

/// Tells of the end of a process that is not our child.
fn end_of(pid: Pid) -> io::Result<CancellationToken> {
    let end = CancellationToken::new();
    let told = end.clone();
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => {
            end.cancel();
            return Ok(end);
        }
        Err(error) => return Err(error.into()),
    };
    // A thread that the runtime does not know: it may wait for ever, and must not hold up our own end.
    thread::Builder::new().name("adopted-postgres".to_owned()).spawn(move || {
        while let Err(rustix::io::Errno::INTR) = poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {}
        told.cancel();
    })?;
    Ok(end)
}

/// The last lines of the log, for an error.
fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(cannot read it: {error})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::process::Pid;

    use super::PidFile;

    #[test]
    fn reads_pid_files() {
        let text = "4711\n/d/postgres\n1700000000\n5432\n/tmp/sculpt-pg-1\n\n  5432001    42\nready   \n";
        let expected = PidFile { pid: Pid::from_raw(4711).expect("not 0"), sockets: PathBuf::from("/tmp/sculpt-pg-1") };
        assert_eq!(PidFile::parse(text), Some(expected));
        assert_eq!(PidFile::parse("4711\n/d/postgres\n"), None, "a server that only begins");
        assert_eq!(PidFile::parse("-4711\n/d\n0\n5432\n/tmp\n"), None);
    }
}

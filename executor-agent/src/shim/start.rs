//! Starting, finding and burying shims.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    client::{Client, ClientError},
    files, kin,
    launch::Launch,
    record::ExitRecord,
    wire::Status,
};
use crate::{
    cgroup::{Cgroup, Leaf},
    damage,
    spool::{self, Recovered},
    stage::private_file,
    tree::{self, ProcessId},
};

/// A shim that did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or process could not be made.
    #[error("cannot {attempt}: {source}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the shim of this attempt did not come up: {text}")]
    Died {
        /// What it said last.
        text: String,
    },
    /// It does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Whether an attempt has a shim.
#[derive(Clone, Debug)]
pub enum Liveness {
    /// It answers.
    Present(Box<Status>),
    /// It is gone, or never was; with the end that it recorded.
    Absent(Option<ExitRecord>),
    /// It cannot be said now, and why: it may be stopped or very busy. Ask again.
    Unknown(String),
    /// What stands in the attempt's directory cannot be read, now or later; a shim may live or not.
    Damaged(String),
}

/// How long a shim may take to come up: much on a machine that is busy with builds.
const COMES_UP: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// How long a living shim may take to answer before it counts as hung.
const ANSWERS: Duration = Duration::from_secs(2);
/// How much of a dead shim's last words is repeated.
const LAST_WORDS: usize = 2000;

/// Writes `launch` into `attempt_dir` and starts a shim from `program` (the executor's own binary), detached; returns
/// when it answers and the agent was started (or has failed to: see its status).
pub async fn start(program: &Path, attempt_dir: &Path, launch: &Launch) -> Result<Client, StartError> {
    let failed = |attempt: String| move |source| StartError::Io { attempt, source };
    launch.write(attempt_dir).map_err(failed(format!("write {}", attempt_dir.join(files::LAUNCH).display())))?;
    let log = attempt_dir.join(files::LOG);
    let words = private_file(&log).map_err(failed(format!("write {}", log.display())))?;
    let mut child = tokio::process::Command::new(program)
        .args(["shim", "run"])
        .arg(attempt_dir)
        // Nothing of the executor's environment rules the shim, and its secrets stay with it.
        .env_clear()
        .envs(sculpt_failpoints::environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words)
        .current_dir("/")
        .spawn()
        .map_err(failed(format!("run {}", program.display())))?;
    let client = Client::new(&launch.control_socket);
    let begun = Instant::now();
    loop {
        let answer = client.status().await;
        match answer {
            Ok(status) if status.attempt == launch.attempt => return Ok(client),
            Err(error) if begun.elapsed() > COMES_UP => return Err(error.into()),
            _ => {}
        }
        if let Some(status) = child.try_wait().map_err(failed("wait for the shim".into()))? {
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS)..]).trim().to_owned();
            return Err(StartError::Died { text: if said.is_empty() { status.to_string() } else { said } });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the attempt in `attempt_dir` has a living shim: by its lock, which dies with it and with nothing else, and
/// by its socket.
pub async fn probe(attempt_dir: &Path) -> Liveness {
    let exit = match exit_record(attempt_dir) {
        Ok(exit) => exit,
        Err(error) => return unreadable(attempt_dir, files::EXIT, &error),
    };
    match is_locked(attempt_dir) {
        Ok(false) => {
            // It may have written its record between the two looks.
            return Liveness::Absent(exit.or_else(|| exit_record(attempt_dir).ok().flatten()));
        }
        Ok(true) => {}
        Err(error) => return unreadable(attempt_dir, files::LOCK, &error),
    }
    let launch = match Launch::read(attempt_dir) {
        Ok(launch) => launch,
        Err(error) => return unreadable(attempt_dir, files::LAUNCH, &error),
    };
    let status = async { Client::new(&launch.control_socket).status().await };
    match timeout(ANSWERS, status).await {
        Ok(Ok(status)) => Liveness::Present(Box::new(status)),
        Ok(Err(error)) => Liveness::Unknown(error.to_string()),
        Err(_) => Liveness::Unknown("it does not answer; it may be stopped".into()),
    }
}

fn unreadable(attempt_dir: &Path, name: &str, error: &io::Error) -> Liveness {
    let text = format!("{} cannot be read: {error}", attempt_dir.join(name).display());
    if damage::passes(error) { Liveness::Unknown(text) } else { Liveness::Damaged(text) }
}

/// Whether a shim runs the attempt in `attempt_dir`.
pub fn is_locked(attempt_dir: &Path) -> io::Result<bool> {
    let file = match File::open(attempt_dir.join(files::LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The end that a shim has recorded, if any.
pub fn exit_record(attempt_dir: &Path) -> io::Result<Option<ExitRecord>> {
    match fs::read(attempt_dir.join(files::EXIT)) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a shim that died has left.
#[derive(Clone, Debug)]
pub struct Remains {
    /// The spool to its last whole frame.
    pub spool: Recovered,
    /// Whether processes of the agent are left that could not be killed.
    pub left_over: bool,
}

/// After a shim's death: ends what is left of the tree of `attempt` and repairs the spool in `attempt_dir`, of which
/// nothing need be left. Only when no shim lives. Blocks for some seconds at most.
pub fn bury(attempt_dir: &Path, attempt: Uuid) -> Result<Remains, spool::Error> {
    // What cannot be read any more is found by its name.
    let cgroup = Launch::read(attempt_dir).map_or_else(|_| Cgroup::find(attempt), |launch| launch.cgroup);
    let sessions = kin::read(attempt_dir);
    let members = || {
        let mut members: Vec<_> = cgroup.members(Leaf::Agent).into_iter().filter_map(ProcessId::of).collect();
        members.extend(tree::carriers(attempt));
        members.extend(tree::members(&sessions));
        members
    };
    // A frozen tree is killed as it is; what a signal must reach first is thawed by the kernel.
    cgroup.kill(Leaf::Agent);
    cgroup.freeze(false);
    let left_over = !tree::kill(members);
    Ok(Remains { spool: spool::recover(&attempt_dir.join(files::SPOOL))?, left_over })
}

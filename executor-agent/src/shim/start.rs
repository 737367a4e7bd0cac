//! Starting and finding shims.

use std::{
    fs, io,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{process::Child, time::timeout};

use super::{
    claim::is_locked,
    client::{Client, ClientError},
    files,
    launch::Launch,
    record::ExitRecord,
    wire::Status,
};
use crate::{damage, descriptors, stage::private_file};

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
/// when it answers and the agent was started (or has failed to: see its status). After an error no shim is left.
pub async fn start(program: &Path, attempt_dir: &Path, launch: &Launch) -> Result<Client, StartError> {
    start_within(COMES_UP, program, attempt_dir, launch).await
}

async fn start_within(
    patience: Duration,
    program: &Path,
    attempt_dir: &Path,
    launch: &Launch,
) -> Result<Client, StartError> {
    launch.write(attempt_dir).map_err(failed(format!("write {}", attempt_dir.join(files::LAUNCH).display())))?;
    let log = attempt_dir.join(files::LOG);
    let words = private_file(&log).map_err(failed(format!("write {}", log.display())))?;
    let mut child = tokio::process::Command::new(program)
        .args(["shim", "run"])
        .arg(attempt_dir)
        // Nothing of the executor's environment rules the shim, and its secrets stay with it.
        .env_clear()
        .envs(sculpt_failpoints::environment())
        .envs(descriptors::environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words)
        .current_dir("/")
        .spawn()
        .map_err(failed(format!("run {}", program.display())))?;
    let client = Client::new(&launch.control_socket);
    match comes_up(patience, &mut child, &client, launch, &log).await {
        Ok(()) => Ok(client),
        Err(error) => {
            // If it came up later it would run the agent outside of its attempt.
            let _gone = child.kill().await;
            Err(error)
        }
    }
}

/// Returns when the shim answers.
async fn comes_up(
    patience: Duration,
    child: &mut Child,
    client: &Client,
    launch: &Launch,
    log: &Path,
) -> Result<(), StartError> {
    let begun = Instant::now();
    loop {
        let error = match client.status().await {
            Ok(status) if status.attempt == launch.attempt => return Ok(()),
            Ok(status) => ClientError::Nonsense {
                socket: launch.control_socket.clone(),
                problem: format!("it runs attempt {}", status.attempt),
            },
            Err(error) => error,
        };
        if begun.elapsed() > patience {
            return Err(error.into());
        }
        if let Some(status) = child.try_wait().map_err(failed("wait for the shim"))? {
            let said = fs::read(log).unwrap_or_default();
            let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS)..]).trim().to_owned();
            return Err(StartError::Died { text: if said.is_empty() { status.to_string() } else { said } });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn failed(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let attempt = attempt.into();
    move |source| StartError::Io { attempt, source }
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

/// The end that a shim has recorded, if any.
pub fn exit_record(attempt_dir: &Path) -> io::Result<Option<ExitRecord>> {
    match fs::read(attempt_dir.join(files::EXIT)) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        cgroup::Cgroup,
        shim::launch::Mode,
        tree::{self, ProcessId},
    };

    #[tokio::test]
    async fn a_shim_that_does_not_come_up_in_time_does_not_come_up_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let script = "#!/bin/sh\necho $$ > \"$3/pid\"\nexec /bin/sleep 600\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let launch = Launch {
            attempt: uuid::Uuid::new_v4(),
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            cwd: "/".into(),
            identity: None,
            mode: Mode::Pipes,
            stdin: None,
            timeout: None,
            lease: None,
            grace: Duration::from_secs(1),
            cgroup: Cgroup::default(),
            quiet: None,
            control_socket: directory.path().join("control"),
            view_socket: directory.path().join("view"),
            boot_id: None,
            processes: None,
            goes_first: false,
            sandbox: None,
        };
        let late = start_within(Duration::from_millis(500), &program, directory.path(), &launch).await;
        assert!(matches!(late, Err(StartError::Client(_))), "{late:?}");
        let pid = fs::read_to_string(directory.path().join("pid")).unwrap().trim().parse().unwrap();
        assert_eq!(ProcessId::of(pid), None);
        assert!(tree::descendants(std::process::id()).iter().all(|child| child.pid != pid));
    }
}

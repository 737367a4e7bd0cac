//! `sculpt-executor status`: who this executor is, until when it can prove it, and whether it is let in.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use humantime::format_rfc3339_seconds;
use sculpt_tls::Subject;

use super::{CredentialError, Keyring, standing::Refusal};
use crate::{
    app::{AppError, Identity},
    config,
    text::plain,
};

/// Flags of `sculpt-executor status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Where attempts, workspaces and spools stand
    /// [default: /var/lib/sculpt/executor as root, else below the XDG data directory]
    #[arg(long, env = "SCULPT_EXECUTOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What is known of an executor from its data directory alone.
#[derive(Clone, Debug)]
pub struct Status {
    name: Option<String>,
    controller: Option<String>,
    subject: Subject,
    validity: Option<(SystemTime, SystemTime)>,
    renewed_at: Option<SystemTime>,
    refusal: Option<Refusal>,
    pid: Option<u32>,
    now: SystemTime,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// There is no place to look at.
    #[error("there is no place for data: neither HOME nor XDG_DATA_HOME is set. Give --data-dir")]
    NoPlace,
    /// Who it is.
    #[error(transparent)]
    Identity(Box<AppError>),
    /// What proves it.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// Looks at the executor's data directory, and changes nothing.
pub fn status(args: StatusArgs) -> Result<Status, StatusError> {
    let data_dir = args.data_dir.or_else(config::default_data_dir).ok_or(StatusError::NoPlace)?;
    let identity = Identity::read(&data_dir).map_err(|error| StatusError::Identity(Box::new(error)))?;
    let identity = identity.ok_or_else(|| CredentialError::NotJoined(data_dir.clone()))?;
    let keyring = Keyring::at(&data_dir);
    let credentials = keyring.load()?;
    Ok(Status {
        name: identity.name,
        controller: identity.controller,
        subject: credentials.subject,
        validity: credentials.validity(),
        renewed_at: credentials.renewed_at(),
        refusal: Refusal::read(&keyring),
        pid: running(&data_dir),
        now: SystemTime::now(),
    })
}

impl Status {
    /// Whether the controller lets it in, as far as it has said.
    pub fn is_let_in(&self) -> bool {
        self.refusal.is_none()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = "(unknown)";
        let Subject { cluster, executor, generation } = self.subject;
        writeln!(f, "executor     {} ({executor})", self.name.as_deref().unwrap_or(unknown))?;
        writeln!(f, "controller   {} (cluster {cluster})", self.controller.as_deref().unwrap_or(unknown))?;
        match self.pid {
            Some(pid) => writeln!(f, "process      {pid}")?,
            None => writeln!(f, "process      none; `sculpt-executor run` starts it")?,
        }
        if let (Some((_, until)), Some(renewed_at)) = (self.validity, self.renewed_at) {
            let good = if until < self.now { "has run out, and is renewed at the next start:" } else { "good until" };
            writeln!(
                f,
                "certificate  number {generation}, {good} {}, renewed from {}",
                format_rfc3339_seconds(until),
                format_rfc3339_seconds(renewed_at)
            )?;
        }
        match &self.refusal {
            None => write!(f, "let in       yes, as far as the controller has said"),
            Some(Refusal { why, since }) => {
                write!(f, "let in       no, since {}: {}", format_rfc3339_seconds(*since), plain(why))
            }
        }
    }
}

/// The process that has the data directory, if it lives. Its lock is not tried: that could keep one from starting.
fn running(data_dir: &Path) -> Option<u32> {
    let pid = fs::read_to_string(data_dir.join("lock")).ok()?.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    name.starts_with("sculpt-executor").then_some(pid)
}

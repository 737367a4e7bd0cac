//! The last step before an agent or a tool runs: a re-executed process that sets up what only the process itself can
//! (session, controlling terminal, cgroup, user, signal dispositions) and becomes the program by exec.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::text::ByteText;

/// The account that a program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids; nothing of the caller's is kept.
    pub groups: Vec<u32>,
}

/// How a program is to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Program and arguments; the program is looked up in the PATH of `env` when it has no slash.
    pub argv: Vec<ByteText>,
    /// The whole environment; absent: what the stage itself was started with.
    pub env: Option<BTreeMap<ByteText, ByteText>>,
    /// Working directory; absent: that of the caller.
    pub cwd: Option<PathBuf>,
    /// Absent: the caller's account.
    pub identity: Option<Identity>,
    /// `cgroup.procs` files to enter.
    pub cgroups: Vec<PathBuf>,
    /// A session of its own; its controlling terminal is the first of stdin and stdout that is a terminal.
    pub session: bool,
}

/// A stage that did not get to its program.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Error {
    /// What was attempted.
    pub attempt: String,
    /// Why it failed.
    pub source: io::Error,
}

impl Stage {
    /// A command that runs this stage through `program`, the executor's own binary. Set its stdio, then spawn it.
    /// The stage is seen in the process list: a secret belongs into the command's environment, not into `env`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("stage").arg("--inline").arg(serde_json::to_string(self).unwrap_or_default());
        command
    }
}

/// Entry of `sculpt-executor stage --inline JSON`; returns only when it fails.
pub fn main_inline(json: &str) -> Error {
    let _ = json;
    unimplemented!()
}

/// Entry of `sculpt-executor stage --launch ATTEMPT_DIR`, used by the shim; returns only when it fails.
pub fn main_launch(attempt_dir: &Path) -> Error {
    let _ = attempt_dir;
    unimplemented!()
}

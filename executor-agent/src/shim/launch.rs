//! What an executor tells a shim to run.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{files, lease::Lease};
use crate::{cgroup::Cgroup, disk::write_durably, sandbox::Sandbox, stage::Identity, text::ByteText};

/// What the agent's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A terminal of this size.
    Terminal {
        /// Width in cells.
        columns: u16,
        /// Height in cells.
        rows: u16,
    },
    /// Pipes: exact bytes, stdout and stderr told apart.
    Pipes,
}

/// Everything that a shim needs to run an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The attempt; the agent's environment should carry it as `SCULPT_ATTEMPT`.
    pub attempt: Uuid,
    /// Program and arguments.
    pub argv: Vec<ByteText>,
    /// The agent's whole environment.
    pub env: BTreeMap<ByteText, ByteText>,
    /// The agent's working directory.
    pub cwd: ByteText,
    /// Absent: the executor's own account.
    pub identity: Option<Identity>,
    /// Terminal or pipes.
    pub mode: Mode,
    /// Becomes the agent's stdin; absent: the terminal, or /dev/null with pipes.
    pub stdin: Option<ByteText>,
    /// The agent is ended this long after its start.
    pub timeout: Option<Duration>,
    /// Absent: nothing is stopped because nobody is heard of. A shim goes on counting from what it was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// From interrupt to kill when it is ended by timeout, by its lease or by the host.
    pub grace: Duration,
    /// Where its cgroups are.
    pub cgroup: Cgroup,
    /// How many processes its account may have. Absent: the cgroup counts them, or nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// It should have a limit of memory, and nothing counts what it takes: where the host has no more, it goes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_first: bool,
    /// What is put around it. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// How long people at the terminal rest before messages to the agent go out. Absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Duration>,
    /// For the executor; its directory is made 0700.
    pub control_socket: PathBuf,
    /// For views of a terminal; its directory is made 0700 and given to `identity`.
    pub view_socket: PathBuf,
    /// The kernel's boot id at the launch, beyond which no agent lives. Absent: an older build wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

impl Launch {
    /// The launch of the attempt in `attempt_dir`.
    pub fn read(attempt_dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(attempt_dir.join(files::LAUNCH))?)?)
    }

    /// Writes it for the shim; it can hold secrets, so only its owner can read it.
    pub fn write(&self, attempt_dir: &Path) -> io::Result<()> {
        write_durably(&attempt_dir.join(files::LAUNCH), &serde_json::to_vec(self)?)
    }
}

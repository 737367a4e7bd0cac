//! What an executor tells a shim to run.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{cgroup::Cgroup, stage::Identity, text::ByteText};

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
    /// From interrupt to kill when it is ended by timeout or by the host.
    pub grace: Duration,
    /// Where its cgroups are.
    pub cgroup: Cgroup,
    /// For the executor; its directory is made 0700.
    pub control_socket: PathBuf,
    /// For views of a terminal; its directory is made 0700 and given to `identity`.
    pub view_socket: PathBuf,
}

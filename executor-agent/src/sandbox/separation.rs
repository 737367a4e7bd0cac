//! How this executor keeps its attempts from itself and from each other, found out once at its start.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use super::{Network, Sandbox};
use crate::stage::{self, Identity, Stage};

/// How long a sandbox may take: one stands within moments, or never.
const PATIENCE: Duration = Duration::from_secs(10);

/// An account without any right, in place of one that is made for an attempt: nobody's, as the kernel has it.
const ANYBODY: u32 = 65_534;

/// What stands between an attempt and everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separation {
    /// An account of its own; where bubblewrap works, a closed network too.
    Accounts {
        /// bubblewrap, or why there is none.
        bwrap: Result<PathBuf, String>,
    },
    /// bubblewrap, under the executor's own account.
    Bubblewrap(PathBuf),
    /// Nothing, and why.
    Nothing(String),
}

impl Separation {
    /// What this host allows; nothing is tried unless it is `wanted`. `program` is the executor's own binary.
    pub async fn find(wanted: bool, program: &Path) -> Self {
        if !wanted {
            return Self::Nothing("its settings say that attempts run as the executor's own account".to_owned());
        }
        if let Some(why) = stage::cannot_give_up() {
            return Self::Nothing(format!(
                "the kernel, or a container, lets no process give up calls, so that an attempt would keep the kernel's keys: \
                 {why}; it needs seccomp filters"
            ));
        }
        let root = crate::host::is_root();
        Self::choose(root, find_bwrap(program, root.then_some(ANYBODY)).await)
    }

    fn choose(root: bool, bwrap: Result<PathBuf, String>) -> Self {
        match root {
            true => Self::Accounts { bwrap },
            false => bwrap.map_or_else(Self::Nothing, Self::Bubblewrap),
        }
    }

    /// Whether an attempt cannot reach what is not its own.
    pub fn separates(&self) -> bool {
        self.reason().is_none()
    }

    /// By what it cannot; empty when it can.
    pub fn means(&self) -> &'static str {
        match self {
            Self::Accounts { .. } => "account",
            Self::Bubblewrap(_) => "bubblewrap",
            Self::Nothing(_) => "",
        }
    }

    /// Why it can.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Nothing(why) => Some(why),
            Self::Accounts { .. } | Self::Bubblewrap(_) => None,
        }
    }

    /// What attempts have in common all the same, where root `shares_memory` with what it starts. bubblewrap leaves that by
    /// itself.
    pub fn leaves(&self, shares_memory: bool) -> Option<&'static str> {
        (shares_memory && self.by_accounts()).then_some(
            "attempts share System V objects and POSIX queues with this host and each other: root may make no namespaces \
             here; a container lets it with CAP_SYS_ADMIN",
        )
    }

    /// Whether each attempt has an account of its own.
    pub fn by_accounts(&self) -> bool {
        matches!(self, Self::Accounts { .. })
    }

    /// Whether an attempt can have a network that leads nowhere.
    pub fn closes_network(&self) -> bool {
        self.around_git().is_some()
    }

    /// The bubblewrap to put around git in what an attempt has left: wherever there is one, since git needs no network.
    pub fn around_git(&self) -> Option<&Path> {
        self.around(Network::None).ok().flatten()
    }

    /// The bubblewrap to put around an attempt that reaches `network`; none: its account is enough. The error is the
    /// reason why it must not run here.
    pub fn around(&self, network: Network) -> Result<Option<&Path>, String> {
        match (self, network) {
            (Self::Bubblewrap(bwrap), _) | (Self::Accounts { bwrap: Ok(bwrap) }, Network::None) => Ok(Some(bwrap)),
            (Self::Accounts { .. } | Self::Nothing(_), Network::Host) => Ok(None),
            (Self::Accounts { bwrap: Err(why) } | Self::Nothing(why), Network::None) => {
                Err(format!("the pool allows no network, and this executor cannot close it: {why}"))
            }
        }
    }
}

/// A bubblewrap that works here, tried with all that an attempt needs, and as what an attempt runs as: some hosts let root
/// alone make user namespaces.
async fn find_bwrap(program: &Path, account: Option<u32>) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|file| file.is_file());
    let bwrap = found.ok_or("bubblewrap is not installed; install the package bubblewrap, and start it again")?;
    let sandbox =
        Sandbox { bwrap: bwrap.clone(), program: program.to_owned(), network: Network::None, ..Sandbox::default() };
    let stage = Stage {
        argv: vec!["/bin/true".into()],
        cwd: Some("/".into()),
        identity: account.map(|id| Identity { uid: id, gid: id, groups: Vec::new() }),
        sandbox: Some(sandbox),
        ..Stage::default()
    };
    let mut command = Command::from(stage.command(program));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let named = format!("{} (the package bubblewrap, at least 0.8)", bwrap.display());
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(bwrap),
        Ok(Ok(output)) => Err(format!(
            "{named} cannot make a sandbox here: {}; it needs user namespaces for every account, which the kernel or a \
             container may forbid",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Ok(Err(error)) => Err(format!("cannot try {named}: {error}")),
        Err(_) => Err(format!("{named} made no sandbox within {PATIENCE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> Result<PathBuf, String> {
        Ok("/bwrap".into())
    }

    fn missing() -> Result<PathBuf, String> {
        Err("install the package bubblewrap".to_owned())
    }

    #[test]
    fn who_it_is_and_what_is_there_decide() {
        assert_eq!(Separation::choose(true, there()), Separation::Accounts { bwrap: there() });
        assert_eq!(Separation::choose(true, missing()), Separation::Accounts { bwrap: missing() });
        assert_eq!(Separation::choose(false, there()), Separation::Bubblewrap("/bwrap".into()));
        let nothing = Separation::choose(false, missing());
        assert!(!nothing.separates() && nothing.reason().unwrap().contains("package bubblewrap"));
    }

    #[test]
    fn what_cannot_be_left_is_said_where_it_was_to_be_left() {
        let accounts = Separation::Accounts { bwrap: there() };
        assert!(accounts.leaves(true).unwrap().contains("System V") && accounts.leaves(false).is_none());
        for other in [Separation::Bubblewrap("/bwrap".into()), Separation::Nothing("why".to_owned())] {
            assert_eq!(other.leaves(true), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn nothing_stands_between_unless_it_is_wanted() {
        assert!(!Separation::find(false, Path::new("/absent")).await.separates());
    }

    #[test]
    fn a_network_that_must_be_closed_is_closed_or_nothing_runs() {
        let bwrap = Path::new("/bwrap");
        for (separation, host, none) in [
            (Separation::Bubblewrap("/bwrap".into()), Some(bwrap), Some(Some(bwrap))),
            (Separation::Accounts { bwrap: there() }, None, Some(Some(bwrap))),
            (Separation::Accounts { bwrap: missing() }, None, None),
            (Separation::Nothing("why".to_owned()), None, None),
        ] {
            assert_eq!(separation.around(Network::Host), Ok(host), "{separation:?}");
            assert_eq!(separation.around(Network::None).ok(), none, "{separation:?}");
            assert_eq!(separation.closes_network(), none.is_some());
            assert_eq!(separation.around_git(), none.flatten(), "git needs no network, {separation:?}");
        }
    }
}

//! How this executor keeps its attempts from itself and from each other, found out once at its start.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Network, Sandbox};

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
    /// What this host allows; `wanted` false: nothing is tried but what closes a network.
    pub fn find(wanted: bool, program: &Path) -> Self {
        let root = crate::host::is_root();
        Self::choose(wanted, root, || find_bwrap(program))
    }

    fn choose(wanted: bool, root: bool, bwrap: impl FnOnce() -> Result<PathBuf, String>) -> Self {
        match (wanted, root) {
            (false, _) => Self::Nothing("its settings say that attempts run as the executor's own account".to_owned()),
            (true, true) => Self::Accounts { bwrap: bwrap() },
            (true, false) => bwrap().map_or_else(Self::Nothing, Self::Bubblewrap),
        }
    }

    /// Whether an attempt cannot reach what is not its own.
    pub fn separates(&self) -> bool {
        self.reason().is_none()
    }

    /// Why it can.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Nothing(why) => Some(why),
            Self::Accounts { .. } | Self::Bubblewrap(_) => None,
        }
    }

    /// Whether each attempt has an account of its own.
    pub fn by_accounts(&self) -> bool {
        matches!(self, Self::Accounts { .. })
    }

    /// Whether an attempt can have a network that leads nowhere.
    pub fn closes_network(&self) -> bool {
        matches!(self, Self::Bubblewrap(_) | Self::Accounts { bwrap: Ok(_) })
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

/// A bubblewrap that works here, tried with all that an attempt needs.
fn find_bwrap(program: &Path) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|file| file.is_file());
    let bwrap = found.ok_or("bubblewrap is not installed; install the package bubblewrap, and start it again")?;
    let sandbox =
        Sandbox { bwrap: bwrap.clone(), program: program.to_owned(), network: Network::None, ..Sandbox::default() };
    let tried = Command::new(&bwrap)
        .args(sandbox.arguments())
        .args(["--", "/bin/true"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(bwrap),
        Ok(output) => Err(format!(
            "{} (the package bubblewrap, at least 0.8) cannot make a sandbox here: {}; it needs user namespaces, which the \
             kernel or a container may forbid",
            bwrap.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("cannot run {} (the package bubblewrap): {error}", bwrap.display())),
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
        let choose = |wanted, root, bwrap: fn() -> _| Separation::choose(wanted, root, bwrap);
        assert_eq!(choose(true, true, there), Separation::Accounts { bwrap: there() });
        assert_eq!(choose(true, true, missing), Separation::Accounts { bwrap: missing() });
        assert_eq!(choose(true, false, there), Separation::Bubblewrap("/bwrap".into()));
        let nothing = choose(true, false, missing);
        assert!(!nothing.separates() && nothing.reason().unwrap().contains("package bubblewrap"));
        for root in [true, false] {
            assert!(!choose(false, root, there).separates());
        }
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
        }
    }
}

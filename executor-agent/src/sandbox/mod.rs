//! The sandbox of an attempt that has no account of its own, or no network: what bubblewrap is told to put around a
//! program. Everything that is not named here is out of the program's reach, the executor's own files first of all.

mod enter;
mod separation;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use enter::Inside;
pub(crate) use enter::{Envelope, inner, join, wrap};
pub use separation::Separation;

/// What separated programs reach over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// What the host reaches.
    #[default]
    Host,
    /// A loopback of its own.
    None,
}

/// What a program sees of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// bubblewrap.
    pub bwrap: PathBuf,
    /// The executor's own binary, which takes the last step inside.
    pub program: PathBuf,
    /// Read like the system's own directories: where the host's administrator keeps agents and tools.
    pub tools: Vec<PathBuf>,
    /// Empty, where the system's directories or the tools would show them.
    pub hidden: Vec<PathBuf>,
    /// Read besides.
    pub readable: Vec<PathBuf>,
    /// What can be changed.
    pub writable: Vec<PathBuf>,
    /// What it reaches.
    pub network: Network,
}

/// Read by everybody: programs, their libraries and settings. A host lacks some of them.
const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store"];

/// Its own, in memory, and how much they hold.
const TEMPORARY: [(&str, &str); 3] = [("/tmp", "1073741824"), ("/var/tmp", "1073741824"), ("/dev/shm", "268435456")];

/// What an empty directory in place of a hidden one may hold, in bytes.
const NEXT_TO_NOTHING: &str = "65536";

const NAMESPACES: [&str; 8] = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    // A user namespace of its own would give a program the kernel's whole surface for mounts and networks.
    "--disable-userns",
    // The end of the one that waits outside is the end of everything inside.
    "--die-with-parent",
    "--cap-drop",
];

impl Sandbox {
    /// The arguments of bubblewrap, up to the program.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = NAMESPACES.iter().map(OsString::from).collect();
        all.push("ALL".into());
        if self.network == Network::None {
            all.push("--unshare-net".into());
        }
        let mut say = |words: &[&OsStr]| all.extend(words.iter().map(OsString::from));
        for path in SYSTEM.iter().map(Path::new).chain(self.tools.iter().map(PathBuf::as_path)) {
            say(&["--ro-bind-try".as_ref(), path.as_os_str(), path.as_os_str()]);
        }
        say(&["--proc", "/proc", "--dev", "/dev"].map(OsStr::new));
        for (path, size) in TEMPORARY {
            say(&["--perms", "1777", "--size", size, "--tmpfs", path].map(OsStr::new));
        }
        let hidden = self.places_to_hide();
        for path in &hidden {
            say(&["--size".as_ref(), NEXT_TO_NOTHING.as_ref(), "--tmpfs".as_ref(), path.as_os_str()]);
        }
        for path in self.readable.iter().chain([&self.program]) {
            say(&["--ro-bind".as_ref(), path.as_os_str(), path.as_os_str()]);
        }
        for path in &self.writable {
            say(&["--bind".as_ref(), path.as_os_str(), path.as_os_str()]);
        }
        // Last, since what was named stands in them. What is in memory and has no bound is filled by nobody.
        for path in hidden.iter().map(PathBuf::as_path).chain(["/dev", "/"].map(Path::new)) {
            say(&["--remount-ro".as_ref(), path.as_os_str()]);
        }
        all
    }

    /// Where what is to be hidden would be seen without being named: below each directory that shows it, which a link may
    /// give another name.
    fn places_to_hide(&self) -> BTreeSet<PathBuf> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let hidden: Vec<PathBuf> =
            self.hidden.iter().filter(|path| path.is_dir()).map(|path| real(path.as_path())).collect();
        let shown = SYSTEM.iter().map(Path::new).chain(self.tools.iter().map(PathBuf::as_path));
        let below = |root: &Path| {
            let stands = real(root);
            let inside = hidden.iter().filter_map(|path| path.strip_prefix(&stands).ok());
            inside.filter(|rest| !rest.as_os_str().is_empty()).map(|rest| root.join(rest)).collect::<Vec<_>>()
        };
        shown.flat_map(below).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sandbox: &Sandbox) -> String {
        let words: Vec<_> = sandbox.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        format!(" {} ", words.join(" "))
    }

    #[test]
    fn only_what_is_named_can_be_changed() {
        let sandbox = Sandbox {
            program: "/opt/sculpt-executor".into(),
            readable: vec!["/data/stores/p.git".into()],
            writable: vec!["/data/workspaces/a".into()],
            ..Sandbox::default()
        };
        let line = line(&sandbox);
        let changed: Vec<&str> = line.split(" --bind ").skip(1).collect();
        assert_eq!(changed.len(), 1);
        assert!(changed[0].starts_with("/data/workspaces/a /data/workspaces/a --remount-ro "), "{line}");
        for part in [
            " --ro-bind /data/stores/p.git /data/stores/p.git ",
            " --ro-bind /opt/sculpt-executor /opt/sculpt-executor ",
            " --unshare-pid ",
            " --disable-userns ",
            " --cap-drop ALL ",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("--dev-bind") && !line.contains("--share-net"), "{line}");
        assert!(line.ends_with(" --remount-ro /dev --remount-ro / "), "{line}");
    }

    #[test]
    fn a_network_is_closed_when_the_pool_says_so() {
        let with = |network| line(&Sandbox { network, ..Sandbox::default() });
        assert!(with(Network::None).contains(" --unshare-net "));
        assert!(!with(Network::Host).contains(" --unshare-net "));
    }

    #[test]
    fn what_stands_among_the_tools_and_is_not_for_agents_is_hidden() {
        let root = tempfile::tempdir().unwrap();
        let (tools, data) = (root.path().to_owned(), root.path().join("data"));
        std::fs::create_dir(&data).unwrap();
        let hides = |hidden: &Path, tools: Vec<PathBuf>| {
            let sandbox = Sandbox { tools, hidden: vec![hidden.to_owned()], ..Sandbox::default() };
            line(&sandbox).contains(&format!(" --tmpfs {} ", hidden.display()))
        };
        assert!(hides(&data, vec![tools.clone()]));
        assert!(!hides(&data, Vec::new()), "nothing shows it");
        assert!(!hides(&tools, vec![tools.clone()]), "it was asked for");
        assert!(!hides(&root.path().join("absent"), vec![tools]), "there is nothing to hide");
    }

    #[test]
    fn what_is_hidden_has_no_other_name() {
        let root = tempfile::tempdir().unwrap();
        let (stands, link) = (root.path().join("stands"), root.path().join("link"));
        fs::create_dir_all(stands.join("data")).unwrap();
        std::os::unix::fs::symlink(&stands, &link).unwrap();
        for (tools, hidden, places) in [
            (vec![&link], stands.join("data"), vec![link.join("data")]),
            (vec![&stands], link.join("data"), vec![stands.join("data")]),
            (vec![&stands, &link], stands.join("data"), vec![link.join("data"), stands.join("data")]),
            (vec![&link], stands.clone(), Vec::new()),
        ] {
            let tools = tools.into_iter().cloned().collect();
            let line = line(&Sandbox { tools, hidden: vec![hidden], ..Sandbox::default() });
            let hides = |place: &PathBuf| line.contains(&format!(" --tmpfs {} ", place.display()));
            assert!(places.iter().all(hides), "{places:?}: {line}");
            assert_eq!(line.matches(" --size 65536 ").count(), places.len(), "{line}");
        }
    }
}

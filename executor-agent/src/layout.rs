//! Where things stand on disk. Names are uuids, never text from a user or a repository.

mod closed;
mod sockets;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use sculpt_proto::id::{AttemptId, ProjectId};
use uuid::Uuid;

use self::sockets::MAX_SOCKET_PATH;
use crate::{
    disk::write_durably,
    identity::{CredentialError, Keyring},
};

/// Name of the file with the id of the directory of the attempts.
const ID: &str = "id";

/// The data directory could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A directory cannot be made or read.
    #[error("could not make the directory {path}: {source}; choose another one with --data-dir")]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory for sockets belongs to somebody else, who could read along.
    #[error(
        "the directory for sockets {path} is not ours alone (owner {uid}, mode {mode:o}); remove it, or set XDG_RUNTIME_DIR"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Another account could change what is kept in it.
    #[error(
        "{path} belongs to account {uid}, who could change what this executor believes; run it as that account, give the \
         directory to this one (chown), or choose another one with --data-dir"
    )]
    Anothers {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others could have written to it.
    #[error(
        "others can write to {path} (mode {mode:o}), and may have put there what this executor would believe; see whose its \
         content is and run chmod 700 {path}, or choose another one with --data-dir"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Accounts of attempts cannot get to their workspaces.
    #[error(
        "other accounts cannot pass through {path} (mode {mode:o}), below which the data directory stands; choose another one with --data-dir, or run chmod o+x {path}"
    )]
    Closed {
        /// The directory that is closed.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No directory is short enough.
    #[error(
        "no directory for sockets is short enough (at most {MAX_SOCKET_PATH} bytes for a socket); set XDG_RUNTIME_DIR to a short path"
    )]
    TooLong,
    /// Git separates paths by newlines where it lends objects.
    #[error("the data directory {0:?} holds a newline, which git cannot work with; choose another one with --data-dir")]
    Newline(PathBuf),
}

/// The data directory and the directory for sockets.
#[derive(Clone, Debug)]
pub struct Layout {
    data: PathBuf,
    sockets: PathBuf,
    directory: Uuid,
    /// A shared lock on the directory of sockets, by which others see that it is in use.
    _in_use: Arc<fs::File>,
}

impl Layout {
    /// Makes what is missing. With `shared`, other accounts may pass through to their own workspaces and sockets.
    pub fn open(data: &Path, shared: bool) -> Result<Self, LayoutError> {
        let reachable = closed::data(data, shared)?;
        let data = data.canonicalize().map_err(make_failed(data))?;
        if data.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(LayoutError::Newline(data));
        }
        if shared {
            passable(&data)?;
        }
        for (name, passable) in [("attempts", false), ("stores", false), ("workspaces", shared), ("homes", shared)] {
            closed::inner(&data.join(name), passable, reachable)?;
        }
        let attempts = data.join("attempts");
        let directory = directory_id(&attempts).map_err(make_failed(&attempts))?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let sockets = sockets::directory(&data, runtime.as_deref())?;
        let in_use = sockets::hold(&sockets, shared).map_err(make_failed(&sockets))?;
        let metadata = fs::symlink_metadata(&sockets).map_err(make_failed(&sockets))?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.mode() & 0o022 != 0 {
            return Err(LayoutError::Foreign { path: sockets, uid: metadata.uid(), mode: metadata.mode() & 0o7777 });
        }
        let layout = Self { data, sockets, directory, _in_use: Arc::new(in_use) };
        layout.tidy_attempts();
        sockets::tidy_others(runtime.as_deref());
        Ok(layout)
    }

    /// Name of the file that says who an executor is.
    pub const IDENTITY: &str = "executor.json";

    /// Who this executor is.
    pub fn identity(&self) -> PathBuf {
        self.data.join(Self::IDENTITY)
    }

    /// What proves who it is.
    pub fn keyring(&self) -> Result<Keyring, CredentialError> {
        Keyring::of(&self.data)
    }

    /// Where that stands.
    pub fn identity_directory(&self) -> PathBuf {
        self.data.join("identity")
    }

    /// Held while an executor works on the data directory.
    pub fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// Parent of all attempts' directories.
    pub fn attempts(&self) -> PathBuf {
        self.data.join("attempts")
    }

    /// Made with the directory of the attempts: with another one, what is missing here may be somewhere else.
    pub fn directory_id(&self) -> Uuid {
        self.directory
    }

    /// Spec, journal, spool and exit record of an attempt; out of the agent's reach.
    pub fn attempt(&self, id: AttemptId) -> PathBuf {
        self.attempts().join(id.to_string())
    }

    /// Whether there is no directory of an attempt where those of all attempts are. An error proves nothing: they may
    /// stand on a volume that is not mounted now.
    pub fn lacks(&self, id: AttemptId) -> io::Result<bool> {
        let path = self.attempt(id);
        let missing = || match path.symlink_metadata() {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        };
        if !missing()? {
            return Ok(false);
        }
        self.ours()?;
        missing()
    }

    /// Whether the directory of the attempts is the one that was there at the start.
    fn ours(&self) -> io::Result<()> {
        let id = fs::read_to_string(self.attempts().join(ID))?;
        if id.trim().parse() == Ok(self.directory) {
            return Ok(());
        }
        Err(io::Error::other(format!("{} is another directory than before", self.attempts().display())))
    }

    /// The agent's working copy, or its scratch directory.
    pub fn workspace(&self, id: AttemptId) -> PathBuf {
        self.workspaces().join(id.to_string())
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Parent of all workspaces.
    pub fn workspaces(&self) -> PathBuf {
        self.data.join("workspaces")
    }

    /// What was put aside as damaged.
    pub fn quarantine(&self) -> PathBuf {
        self.data.join("quarantine")
    }

    /// What is being removed.
    pub fn trash(&self) -> PathBuf {
        self.data.join("trash")
    }

    /// Parent of all stores.
    pub fn stores(&self) -> PathBuf {
        self.data.join("stores")
    }

    /// Base history of a project.
    pub fn store(&self, id: ProjectId) -> PathBuf {
        self.stores().join(format!("{id}.git"))
    }

    /// Parent of the homes of separated accounts.
    pub fn homes(&self) -> PathBuf {
        self.data.join("homes")
    }

    /// Sockets of an attempt; short enough for the kernel.
    pub fn sockets(&self, id: AttemptId) -> PathBuf {
        self.sockets.join(id.to_string())
    }

    /// Removes the directory of sockets when no attempt has one in it.
    pub fn tidy(&self) {
        self.tidy_attempts();
        let _occupied = fs::remove_dir(&self.sockets);
        if let Some(parent) =
            self.sockets.parent().filter(|parent| parent.ends_with(sockets::OURS) && *parent != self.data)
        {
            let _occupied = fs::remove_dir(parent);
        }
    }

    /// Removes what attempts that have gone left of their directories of sockets. An account may own the view's
    /// directory, so nothing inside is touched.
    fn tidy_attempts(&self) {
        for entry in fs::read_dir(&self.sockets).into_iter().flatten().flatten() {
            for leaf in ["control", "view"] {
                let _occupied = fs::remove_dir(entry.path().join(leaf));
            }
            let _occupied = fs::remove_dir(entry.path());
        }
    }
}

/// The id in the directory of the attempts. One that cannot be read is made anew: that only proves less.
fn directory_id(attempts: &Path) -> io::Result<Uuid> {
    let path = attempts.join(ID);
    if let Some(id) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    write_durably(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// Whether accounts of attempts can get to what is below `data`.
fn passable(data: &Path) -> Result<(), LayoutError> {
    for path in data.ancestors() {
        let fail = |source| LayoutError::Make { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(fail)?.mode() & 0o7777;
        if mode & 0o001 == 0 {
            return Err(LayoutError::Closed { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

fn make_failed(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Make { path, source }
}

fn make(path: &Path, passable: bool) -> io::Result<()> {
    let mode = if passable { 0o711 } else { 0o700 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if passable && metadata.mode() & 0o111 != 0o111 {
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | 0o111))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_another_one_has_another() {
        let root = tempfile::tempdir().unwrap();
        let id = || Layout::open(root.path(), false).unwrap().directory_id();
        let first = id();
        assert_eq!(id(), first);
        let replacements: [fn(&Path) -> io::Result<()>; 2] =
            [|attempts| fs::remove_dir_all(attempts), |attempts| fs::write(attempts.join("id"), "x")];
        for replace in replacements {
            let before = id();
            replace(&root.path().join("attempts")).unwrap();
            assert_ne!(id(), before);
        }
    }

    #[test]
    fn an_attempt_is_lacking_only_where_the_others_are() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open(root.path(), false).unwrap();
        let id = AttemptId(Uuid::new_v4());
        assert!(layout.lacks(id).unwrap());
        fs::create_dir(layout.attempt(id)).unwrap();
        assert!(!layout.lacks(id).unwrap());
        let away = root.path().join("away");
        fs::rename(layout.attempts(), &away).unwrap();
        assert!(layout.lacks(id).is_err(), "nothing is mounted there");
        let other = Layout::open(root.path(), false).unwrap();
        assert!(layout.lacks(id).is_err() && other.lacks(id).unwrap(), "something else is");
        fs::remove_dir_all(layout.attempts()).unwrap();
        fs::rename(&away, layout.attempts()).unwrap();
        fs::remove_file(layout.attempts().join(ID)).unwrap();
        assert!(!layout.lacks(id).unwrap(), "what is there needs no proof");
    }

    #[test]
    fn directories_are_for_their_owner_alone_unless_accounts_pass_through() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = Layout::open(&root.path().join("e"), true).unwrap_err();
        assert!(closed.to_string().contains(&format!("chmod o+x {}", root.path().display())), "{closed}");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let layout = Layout::open(&root.path().join("d"), false).unwrap();
        assert_eq!(fs::metadata(layout.attempts()).unwrap().mode() & 0o777, 0o700);
        let shared = Layout::open(&root.path().join("e"), true).unwrap();
        assert_eq!(fs::metadata(shared.attempts()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(shared.homes()).unwrap().mode() & 0o777, 0o711);
    }

    #[test]
    fn empty_directories_of_sockets_are_removed_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open(&root.path().join("d"), false).unwrap();
        for (id, inside) in [("gone", "control"), ("left", "view/tmux")] {
            fs::create_dir_all(layout.sockets.join(id).join(inside)).unwrap();
        }
        layout.tidy();
        assert!(!layout.sockets.join("gone").exists() && layout.sockets.join("left/view/tmux").exists());
    }
}

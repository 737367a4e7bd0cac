//! Where things stand on disk. Names are uuids, never text from a user or a repository.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sculpt_proto::id::{AttemptId, ProjectId};
use sha2::{Digest as _, Sha256};

/// Longest path of a unix socket that the kernel takes, in bytes.
pub const MAX_SOCKET_PATH: usize = 107;

/// Room for `/<attempt uuid>/<name of a socket>` below the directory of sockets.
const SOCKET_NAME_ROOM: usize = 1 + 36 + 1 + 16;

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
}

impl Layout {
    /// Makes what is missing. With `shared`, other accounts may pass through to their own workspaces and sockets.
    pub fn open(data: &Path, shared: bool) -> Result<Self, LayoutError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LayoutError::Make { path, source }
        };
        make(data, shared).map_err(fail(data))?;
        let data = data.canonicalize().map_err(fail(data))?;
        if data.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(LayoutError::Newline(data));
        }
        for (name, passable) in [("attempts", false), ("stores", false), ("workspaces", shared), ("homes", shared)] {
            let path = data.join(name);
            make(&path, passable).map_err(fail(&path))?;
        }
        let sockets = sockets_directory(&data, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).as_deref())?;
        make(&sockets, shared).map_err(fail(&sockets))?;
        let metadata = fs::symlink_metadata(&sockets).map_err(fail(&sockets))?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.mode() & 0o022 != 0 {
            return Err(LayoutError::Foreign { path: sockets, uid: metadata.uid(), mode: metadata.mode() & 0o7777 });
        }
        Ok(Self { data, sockets })
    }

    /// Who this executor is.
    pub fn identity(&self) -> PathBuf {
        self.data.join("executor.json")
    }

    /// Held while an executor works on the data directory.
    pub fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// Parent of all attempts' directories.
    pub fn attempts(&self) -> PathBuf {
        self.data.join("attempts")
    }

    /// Spec, journal, spool and exit record of an attempt; out of the agent's reach.
    pub fn attempt(&self, id: AttemptId) -> PathBuf {
        self.attempts().join(id.to_string())
    }

    /// The agent's working copy, or its scratch directory.
    pub fn workspace(&self, id: AttemptId) -> PathBuf {
        self.data.join("workspaces").join(id.to_string())
    }

    /// Base history of a project.
    pub fn store(&self, id: ProjectId) -> PathBuf {
        self.data.join("stores").join(format!("{id}.git"))
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
        let _occupied = fs::remove_dir(&self.sockets);
    }
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

/// The data directory when its path is short enough: no cleaner of temporary files comes there, and it survives the
/// user's logout. Else the user's runtime directory, else one below /tmp.
fn sockets_directory(data: &Path, runtime: Option<&Path>) -> Result<PathBuf, LayoutError> {
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let uid = rustix::process::geteuid().as_raw();
    let fits = |path: &PathBuf| path.as_os_str().len() + SOCKET_NAME_ROOM <= MAX_SOCKET_PATH;
    let runtime = runtime.filter(|path| path.is_absolute() && path.is_dir());
    [
        Some(data.join("run")),
        runtime.map(|path| path.join("sculpt").join(&short)),
        Some(PathBuf::from(format!("/tmp/sculpt-{uid}-{short}"))),
    ]
    .into_iter()
    .flatten()
    .find(fits)
    .ok_or(LayoutError::TooLong)
}

/// Writes a small file so that it is there whole or not at all, also after power loss.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_data_directory_has_its_sockets_elsewhere() {
        let short = sockets_directory(Path::new("/var/lib/sculpt"), None).unwrap();
        assert_eq!(short, Path::new("/var/lib/sculpt/run"));
        let long = PathBuf::from(format!("/{}", "d".repeat(199)));
        let elsewhere = sockets_directory(&long, None).unwrap();
        assert!(elsewhere.starts_with("/tmp"), "{elsewhere:?}");
        assert!(elsewhere.as_os_str().len() + SOCKET_NAME_ROOM <= MAX_SOCKET_PATH);
    }

    #[test]
    fn directories_are_for_their_owner_alone_unless_accounts_pass_through() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open(&root.path().join("d"), false).unwrap();
        assert_eq!(fs::metadata(layout.attempts()).unwrap().mode() & 0o777, 0o700);
        let shared = Layout::open(&root.path().join("e"), true).unwrap();
        assert_eq!(fs::metadata(shared.attempts()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(shared.homes()).unwrap().mode() & 0o777, 0o711);
    }
}

//! The directory for sockets, which must be short, and ours alone.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::{LayoutError, make};

/// Name, or beginning of the name, of what is not in the data directory.
pub(super) const OURS: &str = "sculpt";

/// Longest path of a unix socket that the kernel takes, in bytes.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Room for `/<attempt uuid>/<name of a socket>` below the directory of sockets.
const SOCKET_NAME_ROOM: usize = 1 + 36 + 1 + 16;

/// Makes the directory of sockets and takes a shared lock on it.
pub(super) fn hold(sockets: &Path, shared: bool) -> io::Result<fs::File> {
    loop {
        make(sockets, shared)?;
        // Another executor that tidies up may have been faster.
        let file = match fs::File::open(sockets) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        flock(&file, FlockOperation::LockShared)?;
        if fs::metadata(sockets).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino())) {
            return Ok(file);
        }
    }
}

/// Removes empty directories of sockets that executors with other data directories have left behind.
pub(super) fn tidy_others(runtime: Option<&Path>) {
    let uid = rustix::process::geteuid().as_raw();
    let (temporary, prefix) = (PathBuf::from("/tmp"), format!("{OURS}-{uid}-"));
    for (parent, prefix) in
        runtime.map(|path| (path.join(OURS), String::new())).into_iter().chain([(temporary, prefix)])
    {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let named = entry.file_name().to_str().is_some_and(|name| {
                name.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|it| it.is_ascii_hexdigit()))
            });
            let ours = entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == uid);
            if named
                && ours
                && let Ok(file) = fs::File::open(entry.path())
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _occupied = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The data directory when its path is short enough: no cleaner of temporary files comes there, and it survives the
/// user's logout. Else the user's runtime directory, else one below /tmp.
pub(super) fn directory(data: &Path, runtime: Option<&Path>) -> Result<PathBuf, LayoutError> {
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let uid = rustix::process::geteuid().as_raw();
    let fits = |path: &PathBuf| path.as_os_str().len() + SOCKET_NAME_ROOM <= MAX_SOCKET_PATH;
    let runtime = runtime.filter(|path| path.is_absolute() && path.is_dir());
    [
        Some(data.join("run")),
        runtime.map(|path| path.join(OURS).join(&short)),
        Some(PathBuf::from(format!("/tmp/{OURS}-{uid}-{short}"))),
    ]
    .into_iter()
    .flatten()
    .find(fits)
    .ok_or(LayoutError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_data_directory_has_its_sockets_elsewhere() {
        let short = directory(Path::new("/var/lib/sculpt"), None).unwrap();
        assert_eq!(short, Path::new("/var/lib/sculpt/run"));
        let long = PathBuf::from(format!("/{}", "d".repeat(199)));
        let elsewhere = directory(&long, None).unwrap();
        assert!(elsewhere.starts_with("/tmp"), "{elsewhere:?}");
        assert!(elsewhere.as_os_str().len() + SOCKET_NAME_ROOM <= MAX_SOCKET_PATH);
    }

    #[test]
    fn what_other_executors_left_is_removed_unless_they_hold_it() {
        let root = tempfile::tempdir().unwrap();
        let runtime = root.path().join("sculpt");
        for name in ["0123abcd", "89abcdef/x", "4567cdef"] {
            fs::create_dir_all(runtime.join(name)).unwrap();
        }
        let held = hold(&runtime.join("4567cdef"), false).unwrap();
        tidy_others(Some(root.path()));
        let left = |name: &str| runtime.join(name).exists();
        assert!(!left("0123abcd") && left("89abcdef/x") && left("4567cdef"));
        drop(held);
        tidy_others(Some(root.path()));
        assert!(!left("4567cdef"));
    }
}

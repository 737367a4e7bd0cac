//! The directory of the server's socket: short, whatever the length of the data directory's path.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{PostgresError, account::Account, file};

/// `.s.PGSQL.5432.lock` and a slash; a socket's whole path must stay below 108 bytes.
const LONGEST_DIRECTORY: usize = 107 - 20;

/// A directory for the socket of the cluster in `data` that only `account` can enter. The same for each start, unless
/// somebody else sits there.
pub(super) fn directory(data: &Path, account: &Account) -> Result<PathBuf, PostgresError> {
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let base = base(account);
    for attempt in 0..16 {
        let path =
            base.join(format!("sculpt-pg-{name}{}", if attempt == 0 { String::new() } else { format!("-{attempt}") }));
        if take(&path, account)? {
            return Ok(path);
        }
    }
    let taken = std::io::Error::other("16 names are taken by other accounts");
    Err(file("make the socket's directory in", &base)(taken))
}

/// Whether the directory is there and ours alone.
fn take(path: &Path, account: &Account) -> Result<bool, PostgresError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            account.give(path)?;
            return Ok(true);
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file("make the socket's directory", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(file("look at", path))?;
    let ours = found.is_dir() && found.uid() == account.uid();
    if ours && found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(file("close", path))?;
    }
    Ok(ours)
}

/// Where the account can have a socket.
fn base(account: &Account) -> PathBuf {
    let own = match account {
        Account::Own => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        Account::Other { .. } => None,
    };
    let fits = |path: &PathBuf| {
        let usable = fs::metadata(path).is_ok_and(|data| data.is_dir() && data.uid() == account.uid());
        path.is_absolute()
            && usable
            && path.as_os_str().len() + "/sculpt-pg-0123456789abcdef-15".len() <= LONGEST_DIRECTORY
    };
    own.filter(fits).unwrap_or_else(|| PathBuf::from("/tmp"))
}

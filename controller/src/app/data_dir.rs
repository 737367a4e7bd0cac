//! The data directory: one controller at a time, and where to find it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::closed;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another controller has it.
    #[error("{} is in use by the controller with pid {holder}. Stop that one first, or choose another --data-dir", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who has it, as it wrote.
        holder: String,
    },
    /// Another account could change what is kept in it.
    #[error(
        "{} belongs to the account {owner}, who could change what is kept there. Give it to the account of this controller \
         (`chown`), or choose another --data-dir", path.display()
    )]
    Anothers {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can write to it, and something in it is not ours.
    #[error(
        "others can write to {} (mode {mode:o}), and {} in it was not made by this controller: what is kept there could be \
         theirs. See whose it is and `chmod 700` the directory, or choose another --data-dir", path.display(), foreign.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What is not ours.
        foreign: PathBuf,
    },
    /// Others could write to a directory in it.
    #[error(
        "others can write to {} (mode {mode:o}): what is in it could be theirs. Remove what you do not know and \
         `chmod -R go-w` it, or choose another --data-dir", path.display()
    )]
    Writable {
        /// The directory in it.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file or directory in it cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The data directory, ours until dropped or until we end, however that comes.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory unless it is there, takes it, and closes it to others.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(failed("make", path))?;
        // First whose it is: a lock that another has put there could be a link to anywhere.
        let gaps = closed::gaps(path)?;
        let file = path.join(closed::LOCK);
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(failed("open", &file))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed("lock", &file)(error.into()));
            }
            let mut holder = String::new();
            lock.read_to_string(&mut holder).map_err(failed("read", &file))?;
            return Err(DataDirError::Held { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed("write", &file))?;
        gaps.close()?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes where this controller is, whole or not at all.
    pub fn announce(&self, ready: &serde_json::Value) -> Result<(), DataDirError> {
        let (path, fresh) = (self.join("controller.json"), self.join("controller.json.new"));
        fs::write(&fresh, format!("{ready}\n")).map_err(failed("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(failed("name", &path))
    }

    /// Nobody is here any more.
    pub fn retract(&self) {
        let path = self.join("controller.json");
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(%error, path = %path.display(), "cannot remove");
        }
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_second_controller_is_refused_with_the_pid_of_the_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/er");
        let first = DataDir::take(&path).expect("it is free");
        let error = DataDir::take(&path).expect_err("it is taken").to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        DataDir::take(&path).expect("it is free again");
    }

    #[test]
    fn one_that_is_in_use_is_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = DataDir::take(directory.path()).expect("it is free");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("open it");
        let second = DataDir::take(directory.path());
        assert!(matches!(second, Err(DataDirError::Held { .. })), "{second:?}");
        let mode = fs::metadata(directory.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "by the one who has it, or by nobody");
    }

    #[test]
    fn one_that_others_could_read_is_closed_when_it_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("open it");
        let _taken = DataDir::take(directory.path()).expect("it is ours and holds nothing");
        let mode = fs::metadata(directory.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o066, 0, "{mode:o}");
    }
}

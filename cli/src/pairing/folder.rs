//! Where what ssh reads stands: a directory for each task, its owner's alone. Many an ssh may begin at once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use sculpt_proto::id::TaskId;
use sha2::{Digest as _, Sha256};

use crate::config::{ConfigError, Context, xdg};

const LOCK: &str = "lock";

/// The directories of one context.
#[derive(Clone, Debug)]
pub(crate) struct Folders(PathBuf);

/// A task's directory, which no other process changes before this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folders {
    /// Of this context. Not in the runtime directory: ssh may be called where nobody is logged in.
    pub(crate) fn of(context: &Context) -> Result<Self, ConfigError> {
        let digest = Sha256::digest(format!("{}\0{}", context.name, context.address()));
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(xdg("XDG_STATE_HOME", ".local/state")?.join("sculpt/ssh").join(name)))
    }

    /// In this directory.
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where they stand.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the directory of a task is, or will be.
    pub(super) fn folder(&self, task: TaskId) -> PathBuf {
        self.0.join(task.to_string())
    }

    /// The directory of a task, unless another process has it.
    pub(super) fn take(&self, task: TaskId) -> io::Result<Option<Folder>> {
        let path = self.folder(task);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        loop {
            // Not with those above: of one that is swept away meanwhile it would be said that it is there and is none.
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => created?,
            }
            let lock = match open_lock(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
            // Whoever had it may have swept the directory away.
            if is_at(&lock, &path.join(LOCK)) {
                return Ok(Some(Folder { path, _lock: lock }));
            }
        }
    }

    /// Removes the directories in which nothing is of use any more; `is_of_use` looks at one.
    pub(super) fn sweep(&self, is_of_use: impl Fn(&Path) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_a_tasks =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<TaskId>().is_ok());
            if !is_a_tasks || is_of_use(&path) {
                continue;
            }
            let Ok(lock) = open_lock(&path) else { continue };
            // Looked at again, for it may have been made anew meanwhile.
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && !is_of_use(&path) {
                // Out of everybody's way first: who comes now makes it anew.
                let away = tempfile::tempdir_in(&self.0)?;
                fs::rename(&path, away.path())?;
            }
        }
        Ok(())
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in one step: who reads at this moment has the old one whole or the new one whole.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(&self.path)?;
        temporary.write_all(content.as_ref())?;
        temporary.persist(self.path.join(name))?;
        Ok(())
    }
}

fn open_lock(folder: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_stands_there_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders(root.path().join("state/sculpt/ssh"));
        let folder = folders.take(TaskId::fresh()).unwrap().unwrap();
        folder.write("key", "secret").unwrap();
        assert_eq!((mode(folder.path()), mode(&folder.path().join("key"))), (0o700, 0o600));
        assert_eq!(mode(folders.path()), 0o700);
    }

    #[test]
    fn one_at_a_time_and_never_in_one_that_was_swept() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders(root.path().to_owned());
        let task = TaskId::fresh();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mut tries = std::iter::repeat_with(|| folders.take(task).unwrap());
                        let folder = tries.find_map(|taken| taken).unwrap();
                        let mark = folder.path().join("mark");
                        assert!(File::create_new(&mark).is_ok(), "somebody else is here");
                        fs::remove_file(&mark).unwrap();
                    }
                });
            }
            scope.spawn(|| (0..200).for_each(|_| folders.sweep(|_| false).unwrap_or_default()));
        });
    }

    #[test]
    fn what_is_used_is_not_swept() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders(root.path().to_owned());
        let [taken, old, new] = [(); 3].map(|()| TaskId::fresh());
        let held = folders.take(taken).unwrap().unwrap();
        assert!(folders.take(taken).unwrap().is_none(), "it is somebody's");
        for task in [old, new] {
            drop(folders.take(task).unwrap());
        }
        let path = |task: TaskId| root.path().join(task.to_string());
        folders.sweep(|folder| folder == path(new)).unwrap();
        assert_eq!([taken, old, new].map(|task| path(task).exists()), [true, false, true]);
        drop(held);
    }
}

//! The attempt's directory, and whether it is gone: removed or moved away, and not only on a volume that is not there at
//! the moment.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The directory of one attempt.
pub(super) struct Home {
    path: PathBuf,
    /// Held open: one that was removed has no name left, wherever it stood.
    directory: File,
    /// Its parent as it was at the start.
    parent: (u64, u64),
}

impl Home {
    /// The directory at `path`, which is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let parent = fs::metadata(path.parent().unwrap_or(path))?;
        Ok(Self { path: path.to_owned(), directory: File::open(path)?, parent: identity(&parent) })
    }

    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing will stand there again.
    pub(super) fn is_gone(&self) -> bool {
        if self.directory.metadata().is_ok_and(|directory| directory.nlink() == 0) {
            return true;
        }
        let missing = self.path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        missing && fs::metadata(self.path.parent().unwrap_or(&self.path)).is_ok_and(|it| identity(&it) == self.parent)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_gone_when_it_was_removed_or_moved_and_not_with_its_volume() {
        let root = tempfile::tempdir().unwrap();
        let (parent, away) = (root.path().join("attempts"), root.path().join("away"));
        let path = parent.join("attempt");
        fs::create_dir_all(&path).unwrap();
        let home = Home::open(&path).unwrap();
        assert!(!home.is_gone());
        fs::rename(&parent, &away).unwrap();
        assert!(!home.is_gone(), "nothing is mounted there");
        fs::create_dir(&parent).unwrap();
        assert!(!home.is_gone(), "something else is");
        fs::remove_dir(&parent).unwrap();
        fs::rename(&away, &parent).unwrap();
        fs::rename(&path, &away).unwrap();
        assert!(home.is_gone(), "it was moved");
        fs::rename(&away, &path).unwrap();
        assert!(!home.is_gone(), "and is back");
        fs::remove_dir_all(&parent).unwrap();
        assert!(home.is_gone(), "it was removed with everything around it");
    }
}

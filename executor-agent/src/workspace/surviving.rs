//! A workspace that outlived its attempt, moved over to the next one as it is.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{fd::AsFd, unix::fs::lchown},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, openat, statat};

use super::WorkspaceError;
use crate::accounts::Account;

/// Whether something is there to go on in. What is not a directory of its own is no workspace.
pub fn stands(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Moves `from` to `to`, which must be free, so that after a power loss it stands at one of the two.
pub fn relocate(from: &Path, to: &Path) -> Result<(), WorkspaceError> {
    fs::rename(from, to).map_err(WorkspaceError::io("move the workspace to", to))?;
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(WorkspaceError::io("flush", parent))
}

/// Gives everything in the workspace that belongs to one of the accounts `from` to `to`; what is lent stays the executor's.
/// Nothing that an agent has put there is followed, and nothing outside is reached.
pub fn hand_over(path: &Path, from: &BTreeSet<u32>, to: &Account) -> Result<(), WorkspaceError> {
    let fail = || WorkspaceError::io("give away", path);
    give_entries(CWD, path, from, to).map_err(fail())?;
    // Last: until then nobody but the executor gets in.
    lchown(path, Some(to.uid), Some(to.gid)).map_err(fail())
}

fn give_entries(parent: impl AsFd, name: impl rustix::path::Arg, from: &BTreeSet<u32>, to: &Account) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    let owner = (Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid)));
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            give_entries(&directory, name, from, to)?;
        }
        if from.contains(&found.st_uid) {
            chownat(&directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

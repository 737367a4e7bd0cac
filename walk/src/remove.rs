//! Removal of a tree.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat, unlinkat},
    io::Errno,
};

use crate::{
    levels::{Place, Then, Visitor, open_directory, walk},
    remove::Kind::{Directory, Other},
};

/// How often a directory is gone through that is never empty at the end.
const ROUNDS: u32 = 5;

/// Removes `path` itself, not what a link leads to, with everything below it; one that is not there is no error. Directories
/// that their owner, who may be the caller, has closed are opened.
pub fn remove(path: &Path) -> io::Result<()> {
    let root = match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    if kind(&root) == Other {
        return gone(unlinkat(CWD, path, AtFlags::empty()));
    }
    open_up(CWD, path, &root);
    for _ in 0..ROUNDS {
        walk(open_directory(CWD, path)?, &mut Remover)?;
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {}
            removed => return gone(removed),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

#[derive(PartialEq, Eq)]
enum Kind {
    Directory,
    Other,
}

fn kind(found: &Stat) -> Kind {
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory { Directory } else { Other }
}

struct Remover;

impl Visitor for Remover {
    fn approach(&mut self, place: Place<'_>, found: &Stat) -> io::Result<()> {
        open_up(place.parent, place.name, found);
        Ok(())
    }

    fn enter(&mut self, _directory: BorrowedFd<'_>, _found: &Stat) -> io::Result<()> {
        Ok(())
    }

    fn pass(&mut self, place: Place<'_>, _found: &Stat) -> io::Result<()> {
        gone(unlinkat(place.parent, place.name, AtFlags::empty())).or_else(|error| self.refused(place, error))
    }

    fn leave(&mut self, place: Place<'_>, rounds: u32) -> io::Result<Then> {
        match unlinkat(place.parent, place.name, AtFlags::REMOVEDIR) {
            // A file system may pass over names when others go away.
            Err(Errno::NOTEMPTY) if rounds < ROUNDS => Ok(Then::Again),
            removed => gone(removed).or_else(|error| self.refused(place, error)).map(|()| Then::On),
        }
    }
}

fn gone(removed: rustix::io::Result<()>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Lets the owner into a directory again. What is there is held while its mode changes, so that no link can lead elsewhere.
fn open_up(parent: BorrowedFd<'_>, name: impl rustix::path::Arg, found: &Stat) {
    if found.st_mode & 0o700 == 0o700 {
        return;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(held) = openat(parent, name, flags, Mode::empty()) {
        let link = format!("/proc/self/fd/{}", held.as_fd().as_raw_fd());
        // Whoever may not change it may not need to; else what follows fails and says why.
        let _refused = fs::set_permissions(link, fs::Permissions::from_mode(0o700));
    }
}

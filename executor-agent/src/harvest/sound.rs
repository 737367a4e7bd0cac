//! Looks, before git is let near it, whether a working copy still is one, and has nothing in it that git would read from
//! without end.

use std::{io, os::fd::BorrowedFd, path::Path};

use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use sculpt_walk::{Place, Visitor, open_directory, walk};

use super::HarvestError;
use crate::workspace::git::git_dir;

/// An error when git cannot or must not be run in `work_tree`. Nothing in it is opened but directories.
pub(super) async fn check(work_tree: &Path) -> Result<(), HarvestError> {
    let directory = git_dir(work_tree);
    let looked = tokio::task::spawn_blocking(move || look(&directory)).await;
    looked.map_err(|error| HarvestError::Io {
        attempt: "look into",
        path: git_dir(work_tree),
        source: io::Error::other(error),
    })?
}

fn look(directory: &Path) -> Result<(), HarvestError> {
    let fail = |source| HarvestError::Io { attempt: "look into", path: directory.to_owned(), source };
    match statat(CWD, directory, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {}
        Ok(_) | Err(rustix::io::Errno::NOENT) => return Err(HarvestError::NoRepository),
        Err(error) => return Err(fail(error.into())),
    }
    let mut search = Search(None);
    let searched = open_directory(CWD, directory).and_then(|root| walk(root, &mut search));
    match search.0 {
        Some(name) => Err(HarvestError::Endless(name)),
        None => searched.map_err(fail),
    }
}

/// The first thing found that gives no end of bytes, or none until somebody writes.
struct Search(Option<String>);

impl Visitor for Search {
    fn enter(&mut self, _directory: BorrowedFd<'_>, _found: &Stat) -> io::Result<()> {
        Ok(())
    }

    fn pass(&mut self, place: Place<'_>, found: &Stat) -> io::Result<()> {
        let kind = match FileType::from_raw_mode(found.st_mode) {
            // Where it leads to is what git would open.
            FileType::Symlink => {
                statat(place.parent, place.name, AtFlags::NO_AUTOMOUNT).map_or(FileType::Unknown, kind)
            }
            kind => kind,
        };
        match kind {
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                self.0 = Some(place.to_string());
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(()),
        }
    }

    /// What git needs and cannot get at it says itself.
    fn refused(&mut self, _place: Place<'_>, _error: io::Error) -> io::Result<()> {
        Ok(())
    }
}

fn kind(found: Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

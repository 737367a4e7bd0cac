//! Removal of what one account owns among what others do.

use std::{io, os::fd::BorrowedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, FileType, Stat, statat, unlinkat},
    io::Errno,
};

use crate::levels::{Place, Then, Visitor, open_directory, walk};

/// How much is looked at before it counts as too much.
const MOST: u32 = 1_000_000;

/// Removes what the account `owner` has below `root`, a directory that everybody can write to. Looked through are `root`,
/// the directories of `owner`, and those that everybody can write to; what others have in a directory of `owner` stays, and
/// the directory with it. An error when something of `owner` may be left.
pub fn remove_owned(root: &Path, owner: u32) -> io::Result<()> {
    walk(open_directory(CWD, root)?, &mut Sweeper { owner, seen: 0 })
}

struct Sweeper {
    owner: u32,
    seen: u32,
}

impl Sweeper {
    fn count(&mut self) -> io::Result<()> {
        self.seen += 1;
        if self.seen > MOST {
            return Err(io::Error::other(format!("there is more than {MOST} in it")));
        }
        Ok(())
    }
}

impl Visitor for Sweeper {
    fn skips(&mut self, found: &Stat) -> bool {
        found.st_uid != self.owner && found.st_mode & 0o002 == 0
    }

    fn enter(&mut self, _directory: BorrowedFd<'_>, _found: &Stat) -> io::Result<()> {
        self.count()
    }

    fn pass(&mut self, place: Place<'_>, found: &Stat) -> io::Result<()> {
        self.count()?;
        if found.st_uid != self.owner {
            return Ok(());
        }
        match unlinkat(place.parent, place.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => self.refused(place, error.into()),
        }
    }

    fn leave(&mut self, place: Place<'_>, _rounds: u32) -> io::Result<Then> {
        let own =
            |found: Stat| found.st_uid == self.owner && FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(own) {
            match unlinkat(place.parent, place.name, AtFlags::REMOVEDIR) {
                // What others have put there is not the account's.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                Err(error) => return self.refused(place, error.into()).map(|()| Then::On),
            }
        }
        Ok(Then::On)
    }

    /// What is mounted there is not looked through, and what somebody removes meanwhile is gone.
    fn refused(&mut self, place: Place<'_>, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::CrossesDevices | io::ErrorKind::NotFound => Ok(()),
            kind => Err(io::Error::new(kind, format!("{place}: {error}"))),
        }
    }
}

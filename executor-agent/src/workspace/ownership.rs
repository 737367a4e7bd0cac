//! Who owns a workspace: the executor while it is made and after the attempt, the attempt's account meanwhile.

use std::{
    collections::BTreeSet,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::lchown,
    },
    path::Path,
};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, openat};
use sculpt_walk::{Place, Visitor, open_directory, walk};
use tokio_util::sync::CancellationToken;

use super::WorkspaceError;
use crate::{accounts::Account, blocking::proceed};

/// Gives a tree that no agent has touched to an account; what is lent stays the executor's.
pub(super) fn give(path: &Path, to: &Account, given_up: &CancellationToken) -> Result<(), WorkspaceError> {
    let is_lent = |found: &Stat| FileType::from_raw_mode(found.st_mode) != FileType::Directory && found.st_nlink > 1;
    give_away(path, to, given_up, |found| !is_lent(found))
}

/// Gives everything in the workspace that belongs to one of the accounts `from` to `to`; what is lent stays the executor's.
/// Nothing that an agent has put there is followed, and nothing outside is reached.
pub fn hand_over(
    path: &Path,
    from: &BTreeSet<u32>,
    to: &Account,
    given_up: &CancellationToken,
) -> Result<(), WorkspaceError> {
    give_away(path, to, given_up, |found| from.contains(&found.st_uid))
}

fn give_away(
    path: &Path,
    to: &Account,
    given_up: &CancellationToken,
    theirs: impl Fn(&Stat) -> bool,
) -> Result<(), WorkspaceError> {
    let owner = (Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid)));
    let give = || -> io::Result<()> {
        let root = open_directory(CWD, path)?;
        walk(root.try_clone()?, &mut Giver { owner, theirs, given_up })?;
        // Last: until then nobody but the executor gets in. And whatever an agent before has opened is closed to others.
        fchmod(&root, Mode::RWXU)?;
        Ok(fchown(&root, owner.0, owner.1)?)
    };
    give().map_err(WorkspaceError::io("give away", path))
}

struct Giver<'a, F> {
    owner: (Option<Uid>, Option<Gid>),
    theirs: F,
    given_up: &'a CancellationToken,
}

impl<F: Fn(&Stat) -> bool> Visitor for Giver<'_, F> {
    fn enter(&mut self, directory: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
        proceed(self.given_up).map_err(io::Error::other)?;
        if (self.theirs)(found) { Ok(fchown(directory, self.owner.0, self.owner.1)?) } else { Ok(()) }
    }

    fn pass(&mut self, place: Place<'_>, _found: &Stat) -> io::Result<()> {
        proceed(self.given_up).map_err(io::Error::other)?;
        // Held, what is judged is what is given, whoever changes names meanwhile.
        let held = openat(place.parent, place.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if (self.theirs)(&fstat(&held)?) {
            chownat(held.as_fd(), c"", self.owner.0, self.owner.1, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }
}

/// Lets the account of an attempt into its workspace again, after [`close`].
pub fn reopen(path: &Path, account: &Account) -> io::Result<()> {
    lchown(path, Some(account.uid), Some(account.gid))
}

/// Closes a workspace to the account that it was made for, which the next attempt has, and to whomever its agent has let in.
pub fn close(path: &Path) -> io::Result<()> {
    let root = open_directory(CWD, path)?;
    fchown(&root, Some(Uid::ROOT), Some(Gid::ROOT))?;
    // It also takes effect from what an access list grants.
    Ok(fchmod(&root, Mode::RWXU)?)
}

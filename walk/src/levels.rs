//! The walk itself, by descriptors: names are looked up in directories that are held, never along paths, which can be
//! replaced meanwhile and are longer than the kernel takes in deep trees.

use std::{
    ffi::{CStr, CString},
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat},
    io::Errno,
};

/// How many levels stay open, the deepest ones: enough that ordinary trees are never opened twice.
const OPEN: usize = 32;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A name in a directory. It says nothing about what has that name at the next look.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The directory.
    pub parent: BorrowedFd<'a>,
    /// The name.
    pub name: &'a CStr,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.name)
    }
}

/// What follows after a directory was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The walk goes on.
    On,
    /// It is gone through once more.
    Again,
}

/// Whoever goes along. An error ends the walk.
pub trait Visitor {
    /// Whether a directory is left out, with all that is in it.
    fn skips(&mut self, _found: &Stat) -> bool {
        false
    }

    /// A directory that is about to be opened.
    fn approach(&mut self, _place: Place<'_>, _found: &Stat) -> io::Result<()> {
        Ok(())
    }

    /// A directory, open, before what is in it.
    fn enter(&mut self, directory: BorrowedFd<'_>, found: &Stat) -> io::Result<()>;

    /// Something that is no directory. It was not opened.
    fn pass(&mut self, place: Place<'_>, found: &Stat) -> io::Result<()>;

    /// A directory after what is in it, which has been gone through `rounds` times.
    fn leave(&mut self, _place: Place<'_>, _rounds: u32) -> io::Result<Then> {
        Ok(Then::On)
    }

    /// Something that cannot be looked at or gone into; without an error it is left out.
    fn refused(&mut self, place: Place<'_>, error: io::Error) -> io::Result<()> {
        Err(io::Error::new(error.kind(), format!("{place}: {error}")))
    }
}

/// Opens the directory `name` of `parent` itself, not what a link leads to.
pub fn open_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// A directory between the root and where the walk is.
struct Level {
    name: CString,
    identity: (u64, u64),
    /// None: closed, to be opened again from below.
    stream: Option<Dir>,
    /// Where to read on.
    next: i64,
    rounds: u32,
}

impl Level {
    fn new(name: CString, directory: OwnedFd, found: &Stat) -> io::Result<Self> {
        Ok(Self { name, identity: identity(found), stream: Some(Dir::new(directory)?), next: 0, rounds: 0 })
    }

    fn directory(&self) -> io::Result<BorrowedFd<'_>> {
        let stream = self.stream.as_ref().ok_or_else(|| io::Error::other("a directory was closed too early"))?;
        Ok(stream.fd()?)
    }

    /// The next name; none at the end.
    fn read(&mut self) -> io::Result<Option<CString>> {
        loop {
            let Some(entry) = self.stream.as_mut().and_then(Dir::read) else { return Ok(None) };
            let entry = entry?;
            self.next = entry.offset();
            if entry.file_name() != c"." && entry.file_name() != c".." {
                return Ok(Some(entry.file_name().to_owned()));
            }
        }
    }

    /// Opens it again from `below`, one of its directories. Whoever has moved that meanwhile leads nowhere.
    fn reopen(&mut self, below: BorrowedFd<'_>) -> io::Result<()> {
        let directory = openat(below, c"..", DIRECTORY, Mode::empty())?;
        if identity(&fstat(&directory)?) != self.identity {
            return Err(io::Error::other(format!("what is in {:?} was moved meanwhile", self.name)));
        }
        let mut stream = Dir::new(directory)?;
        stream.seek(self.next)?;
        self.stream = Some(stream);
        Ok(())
    }
}

fn identity(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// Goes through everything below `root`, depth first. Links are not followed, and what is mounted below is refused.
pub fn walk(root: OwnedFd, visitor: &mut impl Visitor) -> io::Result<()> {
    let found = fstat(&root)?;
    let device = found.st_dev;
    let mut levels = vec![Level::new(CString::default(), root, &found)?];
    while let Some(level) = levels.last_mut() {
        match level.read()? {
            Some(name) => {
                if let Some(deeper) = meet(level, name, device, visitor)? {
                    levels.push(deeper);
                    if let Some(far) = levels.len().checked_sub(OPEN + 1) {
                        levels[far].stream = None;
                    }
                }
            }
            None => leave(&mut levels, visitor)?,
        }
    }
    Ok(())
}

/// Shows what has this name to the visitor; a directory is the next level.
fn meet(level: &Level, name: CString, device: u64, visitor: &mut impl Visitor) -> io::Result<Option<Level>> {
    let place = Place { parent: level.directory()?, name: &name };
    let found = match statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return visitor.refused(place, error.into()).map(|()| None),
        Ok(found) => found,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return visitor.pass(place, &found).map(|()| None);
    }
    if visitor.skips(&found) {
        return Ok(None);
    }
    visitor.approach(place, &found)?;
    let (directory, found) = match open_below(place, device) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return visitor.refused(place, error).map(|()| None),
    };
    visitor.enter(directory.as_fd(), &found)?;
    Level::new(name, directory, &found).map(Some)
}

fn open_below(place: Place<'_>, device: u64) -> io::Result<(OwnedFd, Stat)> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mounted = || io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted there; unmount it first");
    let opened = match openat2(place.parent, place.name, DIRECTORY, Mode::empty(), inside) {
        // A kernel or a sandbox without it: devices tell most mounts.
        Err(Errno::NOSYS | Errno::PERM) => openat(place.parent, place.name, DIRECTORY, Mode::empty()),
        opened => opened,
    };
    let directory = match opened {
        Err(Errno::XDEV) => return Err(mounted()),
        opened => opened?,
    };
    let found = fstat(&directory)?;
    if found.st_dev == device { Ok((directory, found)) } else { Err(mounted()) }
}

fn leave(levels: &mut Vec<Level>, visitor: &mut impl Visitor) -> io::Result<()> {
    let (Some(mut done), Some(parent)) = (levels.pop(), levels.last_mut()) else { return Ok(()) };
    if parent.stream.is_none() {
        parent.reopen(done.directory()?)?;
    }
    done.rounds += 1;
    let place = Place { parent: parent.directory()?, name: &done.name };
    if visitor.leave(place, done.rounds)? == Then::Again
        && let Some(stream) = &mut done.stream
    {
        stream.rewind();
        levels.push(done);
    }
    Ok(())
}

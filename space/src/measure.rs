//! What the system says.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use rustix::fs::{Mode, OFlags, Stat, open};
use sculpt_walk::{Place, Visitor, walk};

/// Bytes that a disk block counts for in `stat`.
const BLOCK: u64 = 512;

/// A file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub total: u64,
    /// What an ordinary user may still write.
    pub free: u64,
}

impl Disk {
    /// The one that `path` is on. Costs nothing.
    pub fn at(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }
}

/// What everything below `root` takes on its disk, in bytes: a file with several names counts once, links are not followed,
/// other file systems do not count, and what goes away or is closed to us is left out.
pub fn on_disk(root: &Path) -> u64 {
    // The root itself may be reached through a link.
    let Ok(found) = fs::metadata(root) else { return 0 };
    let mut sum = Sum { total: found.blocks() * BLOCK, device: found.dev(), several: HashSet::new() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(root) = open(root, flags, Mode::empty()) {
        // What is moved under the walk is counted at the next one.
        let _moved = walk(root, &mut sum);
    }
    sum.total
}

struct Sum {
    total: u64,
    device: u64,
    /// Files with several names that were met.
    several: HashSet<u64>,
}

impl Sum {
    fn add(&mut self, found: &Stat) -> io::Result<()> {
        self.total += u64::try_from(found.st_blocks).unwrap_or(0) * BLOCK;
        Ok(())
    }
}

impl Visitor for Sum {
    fn enter(&mut self, _directory: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
        self.add(found)
    }

    fn pass(&mut self, _place: Place<'_>, found: &Stat) -> io::Result<()> {
        let counted = found.st_nlink > 1 && !self.several.insert(found.st_ino);
        if counted || found.st_dev != self.device { Ok(()) } else { self.add(found) }
    }

    fn refused(&mut self, _place: Place<'_>, _error: io::Error) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work` on a thread of its own that gives way to everything else.
pub fn in_background(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let patient = move || {
        // Where that is forbidden it runs as everything else does.
        let _refused = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
        work();
    };
    thread::Builder::new().name("measure".to_owned()).spawn(patient).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::fd::{AsFd as _, OwnedFd},
    };

    use super::*;

    #[test]
    fn a_file_counts_once_and_links_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let empty = on_disk(root.path());
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let made = on_disk(root.path());
        fs::write(deep.join("file"), vec![1; 100_000]).unwrap();
        let one = on_disk(root.path());
        assert!(empty <= made && one >= made + 100_000, "{empty} {made} {one}");
        fs::hard_link(deep.join("file"), root.path().join("same")).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        assert!(on_disk(root.path()) < one + 50_000);
        assert_eq!(on_disk(&root.path().join("nothing")), 0);
    }

    #[test]
    fn depth_does_not_hide_what_is_below() {
        let root = tempfile::tempdir().unwrap();
        let mut at: OwnedFd = fs::File::open(root.path()).unwrap().into();
        // A path of more than the 4,096 bytes that the kernel takes.
        for _ in 0..50 {
            let name = "x".repeat(100);
            rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
            at = sculpt_walk::open_directory(at.as_fd(), &*name).unwrap();
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = rustix::fs::openat(&at, "file", flags, Mode::RWXU).unwrap();
        fs::File::from(file).write_all(&vec![1; 1_000_000]).unwrap();
        assert!(on_disk(root.path()) >= 1_000_000);
        sculpt_walk::remove(root.path()).unwrap();
    }

    #[test]
    fn a_disk_has_a_size() {
        let disk = Disk::at(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
    }
}

//! What the system says.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

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
/// other file systems do not count, and what goes away meanwhile is left out.
pub fn on_disk(root: &Path) -> u64 {
    // The root itself may be reached through a link.
    let Ok(first) = fs::metadata(root) else { return 0 };
    let mut total = first.blocks() * BLOCK;
    let mut several = HashSet::new();
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != first.dev() || (!found.is_dir() && found.nlink() > 1 && !several.insert(found.ino())) {
                continue;
            }
            total += found.blocks() * BLOCK;
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    total
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
    fn a_disk_has_a_size() {
        let disk = Disk::at(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
    }
}

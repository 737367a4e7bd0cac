//! Trees as an agent can leave them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt as _, lchown, symlink},
    },
    path::Path,
    process::Command,
};

use rustix::{
    fs::{CWD, Stat, mkdirat},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use sculpt_walk::{Place, Visitor, open_directory, remove, remove_owned, walk};

/// Names of 30 bytes: 20,000 of them are a path of 600 kB, where the kernel takes 4 kB.
const DEEP: usize = 20_000;
const NAME: &str = "a-directory-with-a-longer-name";

/// Makes `levels` directories, one in the other.
fn dig(root: &Path, levels: usize) {
    let mut at: OwnedFd = fs::File::open(root).unwrap().into();
    for _ in 0..levels {
        mkdirat(&at, NAME, 0o700.into()).unwrap();
        at = open_directory(at.as_fd(), NAME).unwrap();
    }
}

#[derive(Default)]
struct Count {
    directories: usize,
    others: Vec<String>,
    left: usize,
    refused: Vec<String>,
}

impl Visitor for Count {
    fn enter(&mut self, _directory: BorrowedFd<'_>, _found: &Stat) -> io::Result<()> {
        self.directories += 1;
        Ok(())
    }

    fn pass(&mut self, place: Place<'_>, _found: &Stat) -> io::Result<()> {
        self.others.push(place.to_string());
        Ok(())
    }

    fn leave(&mut self, _place: Place<'_>, _rounds: u32) -> io::Result<sculpt_walk::Then> {
        self.left += 1;
        Ok(sculpt_walk::Then::On)
    }

    fn refused(&mut self, place: Place<'_>, error: io::Error) -> io::Result<()> {
        self.refused.push(format!("{place}: {error}"));
        Ok(())
    }
}

fn count(root: &Path) -> Count {
    let mut count = Count::default();
    walk(open_directory(CWD, root).unwrap(), &mut count).unwrap();
    count.others.sort_unstable();
    count
}

#[test]
fn a_tree_of_twenty_thousand_levels_is_gone_through_and_removed_with_few_descriptors() {
    // In memory: a disk takes long for so many directories.
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    // Beside the way down, so that a walk has to find back.
    for beside in ["0", "z"] {
        fs::create_dir(root.join(beside)).unwrap();
        fs::write(root.join(beside).join("file"), "").unwrap();
    }
    dig(&root, DEEP);
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(256), ..before };
    setrlimit(Resource::Nofile, few).unwrap();
    // A thread of a program has 2 MiB; much less does as well.
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let work = move || {
        let found = count(&root);
        let removed = remove(&root);
        (found, removed, root.exists())
    };
    let (found, removed, left) = small.spawn(work).unwrap().join().unwrap();
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!((found.directories, found.left, found.others.len()), (DEEP + 2, DEEP + 2, 2));
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    removed.unwrap();
    assert!(!left);
}

#[test]
fn every_entry_of_wide_and_deep_trees_is_met_once() {
    let root = tempfile::tempdir().unwrap();
    for branch in 0..3 {
        let path = root.path().join(branch.to_string());
        fs::create_dir(&path).unwrap();
        // Deeper than what stays open, with something to come back for on every level.
        let mut path = path;
        for level in 0..100 {
            fs::write(path.join(format!("a{branch}-{level}")), "").unwrap();
            fs::write(path.join(format!("z{branch}-{level}")), "").unwrap();
            fs::create_dir(path.join("empty")).unwrap();
            path.push("m");
            fs::create_dir(&path).unwrap();
        }
    }
    let found = count(root.path());
    assert_eq!((found.directories, found.others.len()), (3 + 3 * 200, 3 * 200));
    let mut distinct = found.others.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), found.others.len());
}

#[test]
fn nothing_is_opened_followed_or_waited_for() {
    use std::os::unix::ffi::OsStrExt as _;

    let home = tempfile::tempdir().unwrap();
    let (root, outside) = (home.path().join("root"), home.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    fs::hard_link(outside.join("precious"), root.join("twin")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    for name in [&b"a\nb"[..], b"\xff\xfe", b"-rf", b" ", b"\x1b[31m"] {
        fs::create_dir(root.join(std::ffi::OsStr::from_bytes(name))).unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(name)).join("in"), "").unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 42).unwrap();
    let found = count(&root);
    assert_eq!((found.directories, found.others.len()), (5, 5 + 6));
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    remove(&root).unwrap();
    assert!(!root.exists());
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "x");
}

#[test]
fn directories_without_permissions_are_removed_by_their_owner() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("closed/deeper/still")).unwrap();
    fs::write(root.join("closed/deeper/file"), "").unwrap();
    for path in ["closed/deeper", "closed", ""] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    remove(&root).unwrap();
    assert!(!root.exists());
}

#[test]
fn a_link_in_place_of_the_root_is_removed_alone() {
    let home = tempfile::tempdir().unwrap();
    let (root, outside) = (home.path().join("root"), home.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    symlink(&outside, &root).unwrap();
    assert!(open_directory(CWD, &root).is_err());
    remove(&root).unwrap();
    assert!(fs::symlink_metadata(&root).is_err() && outside.join("precious").exists());
    remove(&root).unwrap();
}

/// A mount that a build has left behind leads to what belongs to others.
#[test]
fn what_is_mounted_below_is_left_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, outside) = (home.path().join("root"), home.path().join("outside"));
    fs::create_dir_all(root.join("a/mounted")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let mounted = root.join("a/mounted");
    let mount = Command::new("mount").arg("--bind").args([&outside, &mounted]).status();
    if !mount.is_ok_and(|status| status.success()) {
        return;
    }
    let found = count(&root);
    let removed = remove(&root);
    let unmounted = Command::new("umount").arg(&mounted).status().unwrap();
    assert!(unmounted.success());
    assert!(found.others.is_empty() && found.refused[0].contains("mounted"), "{:?}", found.refused);
    let error = removed.unwrap_err().to_string();
    assert!(error.contains("\"mounted\"") && error.contains("unmount it"), "{error}");
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "x");
    remove(&root).unwrap();
}

#[test]
fn what_an_account_owns_goes_from_where_everybody_can_write_and_nothing_else_does() {
    const OWNER: u32 = 61_234;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for name in ["own/closed", "common", "anothers"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for name in ["own/closed/file", "common/own", "common/anothers", "own/anothers", "anothers/own", "target"] {
        fs::write(path(name), "").unwrap();
    }
    symlink(path("target"), path("link")).unwrap();
    for name in ["own", "own/closed", "own/closed/file", "common/own", "anothers/own", "link"] {
        lchown(path(name), Some(OWNER), Some(OWNER)).unwrap();
    }
    fs::set_permissions(path("common"), fs::Permissions::from_mode(0o1777)).unwrap();
    remove_owned(root.path(), OWNER).unwrap();
    let here = |name: &str| fs::symlink_metadata(path(name)).is_ok();
    for gone in ["own/closed", "common/own", "link"] {
        assert!(!here(gone), "{gone}");
    }
    // It cannot have made what is where it cannot write; what others have put into its own directory is theirs.
    for stays in ["common/anothers", "own/anothers", "anothers/own", "target"] {
        assert!(here(stays), "{stays}");
    }
    fs::remove_file(path("own/anothers")).unwrap();
    remove_owned(root.path(), OWNER).unwrap();
    assert!(!here("own"));
}

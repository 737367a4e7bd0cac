//! Whether a clone may hold commits of its own, found out without running git on what an agent left behind.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};

/// Largest file that is looked into: a file of refs that is larger is no clone of ours as it was.
const LARGEST: u64 = 1 << 20;

/// Most refs that are looked at.
const REFS: usize = 10_000;

/// Whether every ref of the clone in `workspace` is at `base`. What cannot be read, or is not as we made it, says no.
pub(super) fn holds_only(workspace: &Path, base: &str) -> bool {
    let git = workspace.join(".git");
    let absent =
        |name: &str| fs::symlink_metadata(git.join(name)).is_err_and(|it| it.kind() == io::ErrorKind::NotFound);
    // Other places where refs can stand.
    if !["worktrees", "reftable", "commondir", "modules"].into_iter().all(absent) {
        return false;
    }
    let Some(mut files) = refs_below(git.join("refs")) else { return false };
    files.push(git.join("HEAD"));
    if !absent("packed-refs") {
        files.push(git.join("packed-refs"));
    }
    files.iter().all(|file| small_text(file).is_some_and(|text| text.lines().all(|line| names_only(line, base))))
}

/// A line of a ref, of HEAD or of packed-refs.
fn names_only(line: &str, base: &str) -> bool {
    let comment = line.starts_with('#') || line.is_empty();
    let symbolic = line.starts_with("ref: refs/");
    comment || symbolic || line.split(' ').next().is_some_and(|id| id == base)
}

fn refs_below(root: PathBuf) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![root];
    while let Some(directory) = open.pop() {
        if !fs::symlink_metadata(&directory).ok()?.is_dir() {
            return None;
        }
        for entry in fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            if entry.file_type().ok()?.is_dir() { &mut open } else { &mut files }.push(entry.path());
            if files.len() + open.len() > REFS {
                return None;
            }
        }
    }
    Some(files)
}

/// A pipe or a device would hold us up, whenever it takes the place of a file.
fn small_text(path: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::File::from(open(path, flags, Mode::empty()).ok()?);
    let found = file.metadata().ok()?;
    let mut text = String::new();
    (found.is_file() && found.len() <= LARGEST).then(|| file.take(LARGEST).read_to_string(&mut text).ok())??;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";

    fn clone() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let git = directory.path().join(".git");
        fs::create_dir_all(git.join("refs/heads/sculpt")).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/sculpt/17-x\n").unwrap();
        fs::write(git.join("refs/heads/sculpt/17-x"), format!("{BASE}\n")).unwrap();
        directory
    }

    #[test]
    fn a_clone_as_we_made_it_holds_nothing_of_its_own() {
        let clone = clone();
        assert!(holds_only(clone.path(), BASE) && !holds_only(clone.path(), OTHER));
        fs::write(clone.path().join(".git/packed-refs"), format!("# pack-refs with: peeled\n{BASE} refs/tags/a\n"))
            .unwrap();
        assert!(holds_only(clone.path(), BASE));
    }

    #[test]
    fn whatever_else_there_is_may_be_work() {
        let changes: [(&str, &str, String); 7] = [
            ("a commit", "refs/heads/sculpt/17-x", format!("{OTHER}\n")),
            ("another branch", "refs/heads/mine", format!("{OTHER}\n")),
            ("a detached head", "HEAD", format!("{OTHER}\n")),
            ("a stash", "refs/stash", format!("{OTHER}\n")),
            ("a packed ref", "packed-refs", format!("{BASE} refs/heads/a\n{OTHER} refs/heads/b\n")),
            ("another format", "reftable", String::new()),
            ("a huge file", "packed-refs", format!("{BASE} refs/heads/a\n").repeat(30_000)),
        ];
        for (what, file, text) in changes {
            let clone = clone();
            fs::write(clone.path().join(".git").join(file), text).unwrap();
            assert!(!holds_only(clone.path(), BASE), "{what}");
        }
        assert!(!holds_only(Path::new("/nowhere"), BASE));
        let linked = clone();
        std::os::unix::fs::symlink("/dev/zero", linked.path().join(".git/refs/heads/endless")).unwrap();
        assert!(!holds_only(linked.path(), BASE));
        let piped = clone();
        let pipe = std::process::Command::new("mkfifo").arg(piped.path().join(".git/refs/heads/silent")).status();
        assert!(pipe.unwrap().success() && !holds_only(piped.path(), BASE));
    }
}

//! Who else gets at the data directory: nobody, but the accounts of attempts on their way to what is theirs.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::process::geteuid;

use super::{Layout, LayoutError, make, make_failed};

/// A directory as it is found.
#[derive(Clone, Copy, Debug)]
struct Found {
    owner: u32,
    mode: u32,
    /// Others could have got to it.
    reachable: bool,
    empty: bool,
    /// An executor has made it what it is.
    held: bool,
}

/// What is to be done with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing. What is ours in one that holds others' things has closed directories of its own.
    Keep,
    /// It gets this mode.
    Narrow(u32),
    /// It belongs to another account.
    Anothers,
    /// Others could have put there what we would believe.
    Open,
}

/// PURE: what is to be done with a directory, as account `us`.
fn judge(found: Found, us: u32) -> Verdict {
    const ROOT: u32 = 0;
    let ours = found.owner == us;
    if !ours && found.owner != ROOT {
        return Verdict::Anothers;
    }
    // Root can change everything anyway, and says by the group of a volume for whom that is.
    let (mode, foreign) = (found.mode & 0o777, if ours { 0o022 } else { 0o002 });
    if mode & foreign != 0 && found.reachable && !(ours && found.empty) {
        return Verdict::Open;
    }
    // Root's executor may have given attempts accounts, which pass.
    let kept = if us == ROOT { 0o711 } else { 0o700 };
    if ours && mode & !kept != 0 && (found.held || found.empty) { Verdict::Narrow(mode & kept) } else { Verdict::Keep }
}

/// Makes the data directory unless it is there, and closes it to others; returns whether they could get into it.
pub(super) fn data(path: &Path, passable: bool) -> Result<bool, LayoutError> {
    make(path, passable).map_err(make_failed(path))?;
    let held = path.join(Layout::IDENTITY).exists();
    let mode = close(path, |mode| mode & 0o011 != 0, held)?;
    Ok(mode & 0o011 != 0)
}

/// The same for a directory that only executors make in it.
pub(super) fn inner(path: &Path, passable: bool, reachable: bool) -> Result<(), LayoutError> {
    make(path, passable).map_err(make_failed(path))?;
    close(path, |_| reachable, true).map(drop)
}

/// Returns the mode that was found.
fn close(path: &Path, reachable: impl FnOnce(u32) -> bool, held: bool) -> Result<u32, LayoutError> {
    let look = || -> io::Result<Found> {
        let metadata = fs::metadata(path)?;
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        // One that cannot be listed is another's, or root's.
        let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        Ok(Found { owner, mode, reachable: reachable(mode), empty, held })
    };
    let found = look().map_err(make_failed(path))?;
    let path = path.to_owned();
    match judge(found, geteuid().as_raw()) {
        Verdict::Keep => {}
        Verdict::Narrow(to) => narrow(&path, found, to)?,
        Verdict::Anothers => return Err(LayoutError::Anothers { path, uid: found.owner }),
        Verdict::Open => return Err(LayoutError::Open { path, mode: found.mode }),
    }
    Ok(found.mode)
}

/// Closes what was found, unless somebody has put something into it since it was found empty.
fn narrow(path: &Path, found: Found, to: u32) -> Result<(), LayoutError> {
    let set = |mode| fs::set_permissions(path, Permissions::from_mode(mode)).map_err(make_failed(path));
    set(to)?;
    let writable = found.reachable && found.mode & 0o022 != 0;
    if writable && fs::read_dir(path).map_err(make_failed(path))?.next().is_some() {
        // As it was, so that it is refused again.
        set(found.mode & 0o7777)?;
        return Err(LayoutError::Open { path: path.to_owned(), mode: found.mode });
    }
    let from = found.mode & 0o777;
    tracing::warn!(path = %path.display(), "others could get at it (mode {from:o}); it is closed to them now ({to:o})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_closed_and_what_others_may_have_written_is_refused() {
        const US: u32 = 1000;
        let plain = Found { owner: US, mode: 0o40_700, reachable: true, empty: false, held: true };
        let mode = |mode: u32| Found { mode: mode | 0o40_000, ..plain };
        for (found, us, verdict) in [
            (mode(0o700), US, Verdict::Keep),
            (mode(0o755), US, Verdict::Narrow(0o700)),
            (mode(0o711), US, Verdict::Narrow(0o700)),
            (Found { owner: 0, ..mode(0o711) }, 0, Verdict::Keep),
            (Found { owner: 0, ..mode(0o755) }, 0, Verdict::Narrow(0o711)),
            // Somebody's home, say.
            (Found { held: false, ..mode(0o755) }, US, Verdict::Keep),
            (Found { held: false, empty: true, ..mode(0o755) }, US, Verdict::Narrow(0o700)),
            (Found { held: false, empty: true, ..mode(0o777) }, US, Verdict::Narrow(0o700)),
            (mode(0o775), US, Verdict::Open),
            (mode(0o1777), US, Verdict::Open),
            (Found { held: false, ..mode(0o777) }, US, Verdict::Open),
            (Found { reachable: false, ..mode(0o777) }, US, Verdict::Narrow(0o700)),
            (Found { owner: 1001, ..mode(0o700) }, US, Verdict::Anothers),
            (Found { owner: 1001, ..mode(0o700) }, 0, Verdict::Anothers),
            // A volume that was mounted for us.
            (Found { owner: 0, ..mode(0o775) }, US, Verdict::Keep),
            (Found { owner: 0, empty: true, ..mode(0o777) }, US, Verdict::Open),
        ] {
            assert_eq!(judge(found, us), verdict, "{found:?} as {us}");
        }
    }

    #[test]
    fn a_directory_that_others_could_get_into_is_closed_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let (data, attempts) = (root.path().join("d"), root.path().join("d/attempts"));
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        fs::create_dir(&data).unwrap();
        set(&data, 0o777);
        Layout::open(&data, false).unwrap();
        assert_eq!([mode(&data) & 0o066, mode(&attempts)], [0, 0o700]);

        fs::write(data.join(Layout::IDENTITY), "").unwrap();
        set(&data, 0o755);
        set(&attempts, 0o755);
        Layout::open(&data, false).unwrap();
        assert_eq!([mode(&data) & 0o066, mode(&attempts) & 0o066], [0; 2]);

        for open in [&data, &attempts] {
            set(&data, 0o711);
            set(open, 0o777);
            let refused = Layout::open(&data, false).unwrap_err().to_string();
            let named = refused.contains(&format!("{} (mode 777)", open.display()));
            assert!(named && refused.contains("chmod 700"), "{refused}");
            assert_eq!(mode(open), 0o777, "a refusal changes nothing");
            set(open, 0o700);
        }
    }

    #[test]
    fn what_came_into_an_empty_one_before_it_was_closed_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("d");
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let owner = geteuid().as_raw();
        let found = Found { owner, mode: 0o40_777, reachable: true, empty: true, held: false };
        let refused = narrow(&path, found, 0o700).unwrap_err().to_string();
        assert!(refused.contains("others can write"), "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o777, "and would be once more");
        narrow(&path, Found { reachable: false, ..found }, 0o700).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_of_another_account_is_refused() {
        if !crate::host::is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(root.path(), Some(65_534), None).unwrap();
        let refused = Layout::open(root.path(), false).unwrap_err().to_string();
        assert!(refused.contains("account 65534") && refused.contains("chown"), "{refused}");
    }
}

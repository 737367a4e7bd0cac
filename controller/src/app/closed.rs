//! Who else gets at the data directory: nobody. What is kept in it is code, logs and keys.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    process::{geteuid, umask},
};

use super::data_dir::{DataDirError, failed};

/// What a controller makes in its data directory.
const OURS: [&str; 15] = [
    LOCK,
    AUTHORITY,
    "blobs",
    "cache",
    "controller.json",
    "controller.json.new",
    "postgres",
    "postgres.log",
    "postgres.log.1",
    "postgres.new",
    "tmp",
    "tokens",
    "trust.new",
    "trust.pem",
    // Every fresh file system has one.
    "lost+found",
];

/// What every data directory has that a controller has held.
pub(super) const LOCK: &str = "lock";

/// What belongs to the account of the built-in Postgres, which closes it by itself.
const OF_POSTGRES: [&str; 2] = ["postgres", "postgres.new"];

/// Who could write there could have put an authority of their own there: it is refused when it is opened.
const AUTHORITY: &str = "authority";

/// What is written from now on is ours alone, unless it says otherwise.
pub(super) fn from_now_on() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// A data directory as it is found.
#[derive(Clone, Debug)]
struct Found {
    owner: u32,
    mode: u32,
    /// A controller has held it.
    held: bool,
    /// Something in it that no controller makes, or that another account has made under such a name.
    foreign: Option<PathBuf>,
}

/// What is to be done with a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Closed,
    /// It gets this mode.
    Narrow(u32),
    /// It stays as it is, as it holds others' things; ours in it are closed.
    Beside,
    /// It belongs to another account.
    Anothers,
    /// Others could have put there what we would believe.
    Open,
}

/// PURE: what is to be done with a directory, as account `us`.
fn judge(found: &Found, us: u32) -> Verdict {
    // The account of the built-in Postgres may have to pass where we are root.
    let (mode, kept) = (found.mode & 0o777, if us == 0 { 0o711 } else { 0o700 });
    if found.owner != us {
        return Verdict::Anothers;
    }
    if mode & !kept == 0 {
        return Verdict::Closed;
    }
    match &found.foreign {
        Some(_) if mode & 0o022 != 0 => Verdict::Open,
        Some(_) if !found.held => Verdict::Beside,
        Some(_) | None => Verdict::Narrow(mode & kept),
    }
}

/// Closes the data directory and what a controller has made in it, or says why it cannot be used.
pub(super) fn close(path: &Path) -> Result<(), DataDirError> {
    let us = geteuid().as_raw();
    let found = look(path, us).map_err(failed("look at", path))?;
    match judge(&found, us) {
        Verdict::Anothers => return Err(DataDirError::Anothers { path: path.to_owned(), owner: found.owner }),
        Verdict::Open => {
            let foreign = found.foreign.unwrap_or_default();
            return Err(DataDirError::Open { path: path.to_owned(), mode: found.mode & 0o777, foreign });
        }
        Verdict::Narrow(mode) => narrow(path, found.mode, mode)?,
        Verdict::Closed | Verdict::Beside => {}
    }
    for name in OURS.iter().filter(|name| !OF_POSTGRES.contains(name) && **name != AUTHORITY) {
        let path = path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(entry) if entry.uid() == us && !entry.is_symlink() && entry.mode() & 0o077 != 0 => {
                narrow(&path, entry.mode(), entry.mode() & 0o700)?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", &path)(error)),
        }
    }
    Ok(())
}

fn narrow(path: &Path, from: u32, to: u32) -> Result<(), DataDirError> {
    fs::set_permissions(path, Permissions::from_mode(to)).map_err(failed("close", path))?;
    let (from, to) = (from & 0o777, to & 0o777);
    tracing::warn!(path = %path.display(), "others could get at it (mode {from:o}); it is closed to them now ({to:o})");
    Ok(())
}

fn look(path: &Path, us: u32) -> io::Result<Found> {
    let directory = fs::metadata(path)?;
    let (mut held, mut foreign) = (false, None);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let owner = entry.metadata()?.uid();
        let known = OURS.iter().find(|known| entry.file_name() == **known);
        match known {
            Some(known) if owner == us || OF_POSTGRES.contains(known) => held |= *known == LOCK,
            Some(_) | None => foreign = Some(entry.path()),
        }
    }
    Ok(Found { owner: directory.uid(), mode: directory.mode(), held, foreign })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_open_is_closed_where_it_is_ours_alone() {
        const US: u32 = 1000;
        let found = |owner, mode: u32, held, foreign: bool| Found {
            owner,
            mode: mode | 0o40_000,
            held,
            foreign: foreign.then(PathBuf::new),
        };
        for (as_it_is, us, verdict) in [
            (found(US, 0o700, false, true), US, Verdict::Closed),
            (found(US, 0o755, true, false), US, Verdict::Narrow(0o700)),
            (found(US, 0o777, false, false), US, Verdict::Narrow(0o700)),
            (found(US, 0o711, true, false), US, Verdict::Narrow(0o700)),
            // A file of settings beside what is kept, where nobody else could have put it.
            (found(US, 0o755, true, true), US, Verdict::Narrow(0o700)),
            // Somebody's home, say.
            (found(US, 0o755, false, true), US, Verdict::Beside),
            (found(US, 0o775, true, true), US, Verdict::Open),
            (found(US, 0o1777, false, true), US, Verdict::Open),
            (found(0, 0o700, true, false), US, Verdict::Anothers),
            (found(US, 0o700, true, false), 0, Verdict::Anothers),
            (found(0, 0o711, true, false), 0, Verdict::Closed),
            (found(0, 0o755, true, false), 0, Verdict::Narrow(0o711)),
        ] {
            assert_eq!(judge(&as_it_is, us), verdict, "{as_it_is:?} as {us}");
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    fn open(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn what_a_controller_has_made_is_closed_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let (home, other) = (directory.path(), tempfile::tempdir().expect("a directory"));
        for (name, mode) in [("blobs", 0o755), ("cache", 0o777), ("mine", 0o755)] {
            fs::create_dir(home.join(name)).expect("make");
            open(&home.join(name), mode);
        }
        open(other.path(), 0o755);
        symlink(other.path(), home.join("tmp")).expect("link");
        open(home, 0o755);
        close(home).expect("only others' eyes are kept from it");
        assert_eq!([mode(home), mode(&home.join("mine")), mode(other.path())], [0o755; 3], "that is not ours alone");
        assert_eq!([mode(&home.join("blobs")), mode(&home.join("cache"))], [0o700; 2]);

        fs::write(home.join(LOCK), "").expect("write");
        close(home).expect("a controller has held it");
        assert_eq!(mode(home) & 0o066, 0);

        open(home, 0o777);
        let error = close(home).expect_err("who put it there?").to_string();
        assert!(error.contains("mine") && error.contains("mode 777") && error.contains("chmod"), "{error}");
        fs::remove_dir(home.join("mine")).expect("remove");
        close(home).expect("nothing foreign is left");
        assert_eq!(mode(home) & 0o066, 0);
    }
}

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

/// Who can change everything anyway.
const ROOT: u32 = 0;

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

/// By these bits of a mode others pass through a directory, and write to it.
const PASSES: u32 = 0o011;
const WRITES: u32 = 0o022;

/// What is to be done with a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Closed,
    /// It gets this mode.
    Narrow(u32),
    /// It stays as it is, as it holds others' things or only root can close it; ours in it are closed.
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
    if ![us, ROOT].contains(&found.owner) {
        return Verdict::Anothers;
    }
    if mode & !kept == 0 {
        return Verdict::Closed;
    }
    match &found.foreign {
        Some(_) if mode & WRITES != 0 => Verdict::Open,
        Some(_) if !found.held => Verdict::Beside,
        // A volume that was given to us, say.
        Some(_) | None if found.owner != us => Verdict::Beside,
        Some(_) | None => Verdict::Narrow(mode & kept),
    }
}

/// PURE: whether others could have put something into a directory of mode `inner` that stands in one of mode `outer`.
fn could_plant(outer: u32, inner: u32) -> bool {
    outer & PASSES != 0 && inner & WRITES != 0
}

/// What is open to others of a data directory that can be used, and is not to be.
#[derive(Debug)]
#[must_use = "it is closed by whoever has the lock"]
pub(super) struct Gaps(Vec<Gap>);

#[derive(Debug)]
struct Gap {
    path: PathBuf,
    from: u32,
    to: u32,
}

/// What is open of the data directory at `path` and of what a controller has made in it, or why it cannot be used. Nothing is
/// changed: it may be in use.
pub(super) fn gaps(path: &Path) -> Result<Gaps, DataDirError> {
    let us = geteuid().as_raw();
    let found = look(path, us).map_err(failed("look at", path))?;
    let mode = found.mode & 0o777;
    let mut gaps = Vec::new();
    match judge(&found, us) {
        Verdict::Anothers => return Err(DataDirError::Anothers { path: path.to_owned(), owner: found.owner }),
        Verdict::Open => {
            let foreign = found.foreign.unwrap_or_default();
            return Err(DataDirError::Open { path: path.to_owned(), mode, foreign });
        }
        Verdict::Narrow(to) => gaps.push(Gap { path: path.to_owned(), from: mode, to }),
        Verdict::Beside if mode & WRITES != 0 => {
            tracing::warn!(path = %path.display(), "others can write to it (mode {mode:o}), and only root can close it");
        }
        Verdict::Closed | Verdict::Beside => {}
    }
    for name in OURS.iter().filter(|name| !OF_POSTGRES.contains(name) && **name != AUTHORITY) {
        let path = path.join(name);
        let Some(entry) = there(fs::symlink_metadata(&path)).map_err(failed("look at", &path))? else { continue };
        if entry.uid() != us || entry.is_symlink() {
            continue;
        }
        let from = entry.mode() & 0o777;
        if entry.is_dir() && could_plant(mode, from) {
            return Err(DataDirError::Writable { path, mode: from });
        }
        if from & 0o077 != 0 {
            gaps.push(Gap { path, from, to: from & 0o700 });
        }
    }
    Ok(Gaps(gaps))
}

impl Gaps {
    /// Closes them.
    pub(super) fn close(self) -> Result<(), DataDirError> {
        self.0.iter().try_for_each(Gap::close)
    }
}

impl Gap {
    fn close(&self) -> Result<(), DataDirError> {
        let Self { path, from, to } = self;
        let closed = fs::set_permissions(path, Permissions::from_mode(*to));
        if there(closed).map_err(failed("close", path))?.is_some() {
            tracing::warn!(path = %path.display(), "others could get at it (mode {from:o}); it is closed to them now ({to:o})");
        }
        Ok(())
    }
}

/// What was done to a file; `None`: it has gone meanwhile, as what another controller writes anew does.
fn there<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// PURE: whether what stands under a name of ours in a directory of that mode is taken for ours, as account `us`. The account
/// of the built-in Postgres is found out by its data, so that anybody could be it who can put some there.
fn is_own(name: &str, owner: u32, us: u32, mode: u32) -> bool {
    [us, ROOT].contains(&owner) || OF_POSTGRES.contains(&name) && mode & WRITES == 0
}

fn look(path: &Path, us: u32) -> io::Result<Found> {
    let directory = fs::metadata(path)?;
    let (mut held, mut foreign) = (false, None);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Some(owner) = there(entry.metadata())?.map(|metadata| metadata.uid()) else { continue };
        let known = OURS.iter().find(|known| entry.file_name() == **known);
        match known {
            Some(known) if is_own(known, owner, us, directory.mode()) => held |= *known == LOCK,
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
            (found(US + 1, 0o700, true, false), US, Verdict::Anothers),
            // A volume that root has made.
            (found(0, 0o775, true, false), US, Verdict::Beside),
            (found(0, 0o777, false, false), US, Verdict::Beside),
            (found(0, 0o755, true, true), US, Verdict::Beside),
            (found(0, 0o775, true, true), US, Verdict::Open),
            (found(US, 0o700, true, false), 0, Verdict::Anothers),
            (found(0, 0o711, true, false), 0, Verdict::Closed),
            (found(0, 0o755, true, false), 0, Verdict::Narrow(0o711)),
        ] {
            assert_eq!(judge(&as_it_is, us), verdict, "{as_it_is:?} as {us}");
        }
    }

    #[test]
    fn data_of_postgres_is_anybodys_where_others_can_write() {
        const US: u32 = 1000;
        for (name, owner, mode, own) in [
            ("blobs", US, 0o777, true),
            ("blobs", ROOT, 0o777, true),
            ("blobs", 5, 0o700, false),
            ("postgres", US, 0o777, true),
            ("postgres", 5, 0o711, true),
            ("postgres", 5, 0o755, true),
            ("postgres", 5, 0o775, false),
            ("postgres.new", 5, 0o1777, false),
        ] {
            assert_eq!(is_own(name, owner, US, mode), own, "{name} of {owner} in {mode:o}");
        }
    }

    /// Only root can give something away, so that only root's run shows it.
    #[test]
    fn planted_data_of_postgres_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("postgres");
        fs::create_dir(&data).expect("make");
        std::os::unix::fs::chown(&data, Some(12_345), None).expect("it is given away");
        open(directory.path(), 0o777);
        let error = close(directory.path()).expect_err("who put it there?").to_string();
        assert!(error.contains("postgres") && error.contains("mode 777"), "{error}");
        open(directory.path(), 0o755);
        close(directory.path()).expect("nobody else could have put it there");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    fn open(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    }

    fn close(path: &Path) -> Result<(), DataDirError> {
        gaps(path)?.close()
    }

    #[test]
    fn what_a_controller_has_made_is_closed_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let (home, other) = (directory.path(), tempfile::tempdir().expect("a directory"));
        for (name, mode) in [("blobs", 0o755), ("cache", 0o750), ("mine", 0o755)] {
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

    #[test]
    fn what_others_could_have_put_something_into_is_refused() {
        for (outer, inner, refused) in [
            (0o755, 0o777, true),
            (0o755, 0o775, true),
            (0o711, 0o722, true),
            (0o750, 0o770, true),
            (0o700, 0o777, false),
            (0o744, 0o777, false),
            (0o755, 0o755, false),
        ] {
            assert_eq!(could_plant(outer, inner), refused, "{inner:o} in {outer:o}");
            let directory = tempfile::tempdir().expect("a directory");
            let (home, cache) = (directory.path(), directory.path().join("cache"));
            fs::create_dir(&cache).expect("make");
            open(&cache, inner);
            open(home, outer);
            let closed = close(home).map_err(|error| error.to_string());
            assert_eq!(mode(&cache), if refused { inner } else { 0o700 }, "{inner:o} in {outer:o}: {closed:?}");
            let said = closed.err().unwrap_or_default();
            assert_eq!(said.contains("cache") && said.contains("chmod -R go-w"), refused, "{said}");
        }
    }

    #[test]
    fn a_file_that_others_could_have_written_to_is_written_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (home, trust) = (directory.path(), directory.path().join("trust.pem"));
        fs::write(&trust, "").expect("write");
        open(&trust, 0o664);
        open(home, 0o755);
        close(home).expect("it holds nothing that is read");
        assert_eq!(mode(&trust), 0o600);
    }

    #[test]
    fn what_has_gone_meanwhile_is_passed_over_and_nothing_else_is() {
        let failed = |kind: io::ErrorKind| there(Err::<(), _>(kind.into())).map_err(|error| error.kind());
        assert_eq!(failed(io::ErrorKind::NotFound), Ok(None));
        assert_eq!(failed(io::ErrorKind::PermissionDenied), Err(io::ErrorKind::PermissionDenied));

        let directory = tempfile::tempdir().expect("a directory");
        let fresh = directory.path().join("trust.new");
        fs::write(&fresh, "").expect("write");
        open(&fresh, 0o644);
        let found = gaps(directory.path()).expect("it is ours");
        fs::remove_file(&fresh).expect("remove");
        found.close().expect("there is nothing to close");
    }
}

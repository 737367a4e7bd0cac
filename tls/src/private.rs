//! Files that hold secrets: readable by their owner alone, and whole whenever they are looked at.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why a secret cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Others can read it.
    #[error(
        "{} can be read by others (mode {mode:o}), so what it holds may be known to them; `chmod 600` it if you are sure \
         that nobody read it, else have a new one made", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is in `path`; `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, PrivateError> {
    let failed = |what| move |source| PrivateError::File { what, path: path.to_owned(), source };
    let data = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        data => data.map_err(failed("look at"))?,
    };
    let mode = data.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PrivateError::Open { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(failed("read"))
}

/// Writes `text` to `path`, under another name first.
pub fn write(path: &Path, text: &str) -> Result<(), PrivateError> {
    let failed = |what| move |source| PrivateError::File { what, path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(FRESH);
    let fresh = path.with_file_name(name);
    // One that a crash left may have another mode.
    let _absent = fs::remove_file(&fresh);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed("make"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&fresh, path).map_err(failed("name"))?;
    flush_folder(path).map_err(failed("flush the folder of"))
}

/// Writes `text` to `path` unless there is such a file; says whether it did. Of many that do so at once, on whatever
/// machines, one does, and none sees the file half-written.
pub fn create(path: &Path, text: &str) -> Result<bool, PrivateError> {
    let failed = |what| move |source| PrivateError::File { what, path: path.to_owned(), source };
    // Its mode is 0600, and its name another one for each.
    let prefix = fresh_prefix(path);
    let fresh =
        tempfile::Builder::new().prefix(&prefix).suffix(FRESH).tempfile_in(folder(path)).map_err(failed("make"))?;
    fresh.as_file().write_all(text.as_bytes()).and_then(|()| fresh.as_file().sync_all()).map_err(failed("write"))?;
    match fresh.persist_noclobber(path) {
        Ok(_) => {}
        // The first may have removed ours already, as what a crash left.
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists || path.exists() => return Ok(false),
        Err(refused) => return Err(failed("name")(refused.error)),
    }
    remove_left_over(path).map_err(failed("remove what a crash left beside"))?;
    flush_folder(path).map_err(failed("flush the folder of"))?;
    Ok(true)
}

/// How the names end that files have until they are whole.
const FRESH: &str = ".new";

/// How those names begin that are tried for `path`.
fn fresh_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Removes what somebody who made `path` left behind in a crash: a secret that nobody uses.
fn remove_left_over(path: &Path) -> io::Result<()> {
    let prefix = fresh_prefix(path);
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        if rest.is_none_or(|rest| !rest.ends_with(FRESH.as_bytes())) {
            continue;
        }
        // Whose it was may have done so.
        fs::remove_file(entry.path()).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

/// Makes durable that `path` was made, named or removed.
fn flush_folder(path: &Path) -> io::Result<()> {
    fs::File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives the secret in `from` the name `to`, in one step and durably.
pub fn rename(from: &Path, to: &Path) -> Result<(), PrivateError> {
    let failed = |what| move |source| PrivateError::File { what, path: from.to_owned(), source };
    fs::rename(from, to).map_err(failed("name"))?;
    flush_folder(to).map_err(failed("flush the folder of"))
}

/// Removes `path` durably; that there is no such file is no error.
pub fn remove(path: &Path) -> Result<(), PrivateError> {
    let failed = |what| move |source| PrivateError::File { what, path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| flush_folder(path)).map_err(failed("remove")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        assert_eq!(read(&path).expect("nothing is no error"), None);
        fs::write(directory.path().join("secret.new"), "torn").expect("what a crash left");
        write(&path, "open sesame").expect("it is written");
        assert_eq!(read(&path).expect("it is read").as_deref(), Some("open sesame"));
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 1, "nothing else is left");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("open it");
        let error = read(&path).expect_err("others could read it").to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn of_many_that_make_it_at_once_one_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        fs::write(directory.path().join(".secret.x1y2z3.new"), "whole").expect("what a crash left");
        let begin = std::sync::Barrier::new(16);
        let make = |number: usize| {
            let text = number.to_string().repeat(4096);
            begin.wait();
            let made = create(&path, &text).expect("it is no error to come second");
            (made, text, read(&path).expect("it is whole").expect("it is there"))
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..16).map(|number| scope.spawn(move || make(number))).collect();
            makers.into_iter().map(|maker| maker.join().expect("it ends")).collect()
        });
        let [winner] = &all.iter().filter(|(made, ..)| *made).collect::<Vec<_>>()[..] else {
            panic!("one has made it")
        };
        assert!(all.iter().all(|(_, _, seen)| *seen == winner.1), "all see what that one wrote");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 1, "nothing else is left");
    }
}

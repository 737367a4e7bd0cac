//! Files that hold secrets: readable by their owner alone, and whole whenever they are looked at.

use std::{
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
    name.push(".new");
    let fresh = path.with_file_name(name);
    // One that a crash left may have another mode.
    let _absent = fs::remove_file(&fresh);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed("make"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&fresh, path).map_err(failed("name"))?;
    flush_folder(path).map_err(failed("flush the folder of"))
}

/// Makes durable that `path` was made, named or removed.
fn flush_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
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
}

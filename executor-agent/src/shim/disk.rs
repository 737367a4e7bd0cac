//! Files that are whole or not there, whatever dies meanwhile.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::stage::private_file;

/// Replaces the file `name` in `directory` by one with `content`, on disk when it returns; readable by its owner only.
pub(super) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = private_file(&temporary)?;
    file.write_all(content)?;
    finish(directory, name, &file)
}

/// Takes disk space for a file of at most `bytes`, so that [`fill_reserved`] succeeds on a full disk.
pub(super) fn reserve(directory: &Path, name: &str, bytes: usize) -> io::Result<()> {
    let mut file = private_file(&directory.join(format!("{name}.new")))?;
    file.write_all(&vec![b' '; bytes])?;
    file.sync_all()
}

/// Makes the reserved file `name` with `content`, on disk when it returns.
pub(super) fn fill_reserved(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::options().create(true).truncate(false).write(true).open(&temporary)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    finish(directory, name, &file)
}

fn finish(directory: &Path, name: &str, file: &File) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(directory.join(format!("{name}.new")), directory.join(name))?;
    File::open(directory)?.sync_all()
}

//! Files that are whole or not there, whatever dies meanwhile, and room for those that matter on a full disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::stage::private_file;

/// Writes a small file so that it is there whole or not at all, also after power loss; readable by its owner only.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    // Always the same name: what a death has left of it is replaced by the next attempt, and hoards no secret.
    let temporary = suffixed(path, ".part");
    let mut file = private_file(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

/// Takes disk space for the file `path` of at most `bytes`, so that [`fill_reserved`] succeeds on a full disk.
pub(crate) fn reserve(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = private_file(&reserved(path))?;
    file.write_all(&vec![b' '; bytes])?;
    file.sync_all()
}

/// Makes the reserved file `path` with `content`, on disk when it returns.
pub(crate) fn fill_reserved(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = reserved(path);
    let mut file = File::options().create(true).truncate(false).write(true).open(&temporary)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Gives back what was reserved and not needed.
pub(crate) fn unreserve(path: &Path) {
    let _absent = fs::remove_file(reserved(path));
}

fn reserved(path: &Path) -> PathBuf {
    suffixed(path, ".new")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes disk space for the first `bytes` of `file` without changing its length. False where the file system cannot.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<bool> {
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => return Err(error.into()),
            Err(_) => return Ok(false),
        }
    }
}

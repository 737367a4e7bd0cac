//! One `sculpt up` for a data directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::{exit::Exit, failure::Failure};

/// Holds the lock until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock, or says who has it.
pub(super) fn take(data: &Path) -> Result<Lock, Failure> {
    let path = data.join("up.lock");
    let attempted = format!("start on {}", data.display());
    let broken = |error: io::Error| Failure::new(Exit::Failed, &attempted, format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(broken)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = pid_in(&mut file).unwrap_or_else(|| "unknown".to_owned());
            return Err(Failure::new(
                Exit::Conflict,
                &attempted,
                format!("`sculpt up` runs there already, with pid {pid}"),
            )
            .next(format!("use that one, end it with `kill {pid}`, or name another --data-dir")));
        }
        Err(error) => return Err(broken(error.into())),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(broken)?;
    writeln!(file, "{}", std::process::id()).map_err(broken)?;
    Ok(Lock { _file: file })
}

/// The pid of the process that holds a part's lock file; `None` when nobody does.
pub(super) fn holder(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(pid_in(&mut file).unwrap_or_else(|| "unknown".to_owned())),
        _ => None,
    }
}

fn pid_in(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let pid = text.trim();
    pid.parse::<u32>().ok().map(|_| pid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::once;

    #[test]
    fn a_second_one_learns_the_first_ones_pid() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        let refusal = take(folder.path()).unwrap_err();
        assert_eq!(refusal.exit, Exit::Conflict);
        assert!(refusal.lines()[0].contains(&std::process::id().to_string()), "{:?}", refusal.lines());
        assert_eq!(holder(&folder.path().join("up.lock")), Some(std::process::id().to_string()));
        drop(first);
        once(|| holder(&folder.path().join("up.lock")).is_none().then_some(()));
        once(|| take(folder.path()).ok());
    }
}

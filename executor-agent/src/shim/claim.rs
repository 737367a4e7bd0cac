//! Who runs an attempt: a lock that its shim holds for life and that is taken once. A shim that comes late, after the
//! attempt was given up, finds the lock used and runs nothing.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::Signal,
};

use super::{files, supervisor};
use crate::tree::{self, ProcessId};

/// How long the lock may be held by somebody who only looks whether a shim lives.
const LOOKED_AT: Duration = Duration::from_secs(2);
/// How long a killed shim may take to go: one in uninterruptible sleep takes as long as its disk.
const KILLED_GOES: Duration = Duration::from_secs(5);
/// How often a lock that is held is tried for again.
const AGAIN: Duration = Duration::from_millis(20);
/// What the lock of an attempt says that never had a shim and is to have none.
const GIVEN_UP: &[u8] = b"\"given up\"";

/// Takes the lock for this process, until the file is closed. Refused when a shim runs the attempt, or ran it, or when it
/// was given up.
pub(super) fn take(attempt_dir: &Path) -> io::Result<File> {
    let file = open(attempt_dir)?;
    let begun = Instant::now();
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if begun.elapsed() > LOOKED_AT {
            return Err(error.into());
        }
        thread::sleep(AGAIN);
    }
    if file.metadata()?.len() > 0 {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "no attempt is run twice, or after it was given up"));
    }
    Ok(file)
}

/// Uses the lock that this process has taken: it runs the attempt from here on.
pub(super) fn sign(lock: &mut File) -> io::Result<()> {
    serde_json::to_writer(&mut *lock, &supervisor::own_identity())?;
    lock.flush()
}

/// Takes a launch back from which no shim has come: a late one finds nothing to run. False when one has come. The lock is
/// not flushed, so this is only to be asked in the boot of the launch.
pub fn take_back(attempt_dir: &Path) -> io::Result<bool> {
    let lock = open(attempt_dir)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    // A lock that was removed says nothing, so what a shim makes first is looked for as well.
    if lock.metadata()?.len() > 0 || attempt_dir.join(files::SPOOL).exists() {
        return Ok(false);
    }
    fs::remove_file(attempt_dir.join(files::LAUNCH))?;
    Ok(true)
}

/// Whether a shim runs the attempt in `attempt_dir`. A lock that somebody has removed, or put another file in place of, says
/// nothing; then the process itself is looked for.
pub fn is_locked(attempt_dir: &Path) -> io::Result<bool> {
    let file = match File::open(attempt_dir.join(files::LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(!unlocked(attempt_dir).is_empty()),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) if file.metadata()?.len() == 0 => Ok(!unlocked(attempt_dir).is_empty()),
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Sends `signal` to the shim that runs the attempt in `attempt_dir`, if one does. When it is killed its agent is left to
/// [`super::bury`].
pub fn signal(attempt_dir: &Path, signal: Signal) -> io::Result<()> {
    if is_locked(attempt_dir)? {
        let holder = File::open(attempt_dir.join(files::LOCK)).ok().and_then(|lock| holder(&lock));
        holder.map_or_else(|| unlocked(attempt_dir), |shim| vec![shim]).iter().for_each(|shim| shim.signal(signal));
    }
    Ok(())
}

/// The shims of an attempt whose lock is not to be had. One that was never launched has none, and costs no search.
fn unlocked(attempt_dir: &Path) -> Vec<ProcessId> {
    if ![files::LAUNCH, files::SPOOL, files::LOG].iter().any(|name| attempt_dir.join(name).exists()) {
        return Vec::new();
    }
    tree::with_arguments(&["shim".as_ref(), "run".as_ref(), attempt_dir.as_os_str()])
}

/// Kills the shim of the attempt, if it has one, and sees to it that none comes any more. In a directory that is not
/// there none can.
pub(super) fn give_up(attempt_dir: &Path) -> io::Result<()> {
    let mut file = match open(attempt_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let begun = Instant::now();
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if begun.elapsed() > KILLED_GOES {
            return Err(error.into());
        }
        // One that has the lock since a moment ago says who it is in the next.
        if let Some(shim) = holder(&file) {
            shim.signal(Signal::KILL);
        }
        thread::sleep(AGAIN);
    }
    if file.metadata()?.len() == 0 {
        let left = !tree::kill(|| unlocked(attempt_dir));
        if left {
            return Err(Errno::AGAIN.into());
        }
        file.write_all(GIVEN_UP)?;
    }
    Ok(())
}

fn open(attempt_dir: &Path) -> io::Result<File> {
    let path = attempt_dir.join(files::LOCK);
    File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

fn holder(lock: &File) -> Option<ProcessId> {
    let mut text = [0; 256];
    let length = lock.read_at(&mut text, 0).ok()?;
    serde_json::from_slice(&text[..length]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_once_and_never_after_it_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| take(path).unwrap_err().kind() == io::ErrorKind::AlreadyExists;
        let mut held = take(directory.path()).unwrap();
        sign(&mut held).unwrap();
        assert!(is_locked(directory.path()).unwrap());
        assert_eq!(holder(&held).map(|shim| shim.pid), Some(std::process::id()));
        drop(held);
        assert!(!is_locked(directory.path()).unwrap() && refused(directory.path()), "its shim has died");
        let another = tempfile::tempdir().unwrap();
        give_up(another.path()).unwrap();
        give_up(another.path()).unwrap();
        assert!(!is_locked(another.path()).unwrap() && refused(another.path()), "it never had one");
        give_up(&another.path().join("gone")).unwrap();
    }

    #[test]
    fn a_launch_is_taken_back_until_a_shim_has_come() {
        let directory = tempfile::tempdir().unwrap();
        let launch = directory.path().join(files::LAUNCH);
        fs::write(&launch, "").unwrap();
        assert!(take_back(directory.path()).unwrap() && !launch.exists());
        fs::write(&launch, "").unwrap();
        let mut held = take(directory.path()).unwrap();
        assert!(!take_back(directory.path()).unwrap(), "it has come");
        sign(&mut held).unwrap();
        drop(held);
        assert!(!take_back(directory.path()).unwrap() && launch.exists(), "it has gone again");
        fs::remove_file(directory.path().join(files::LOCK)).unwrap();
        fs::create_dir(directory.path().join(files::SPOOL)).unwrap();
        assert!(!take_back(directory.path()).unwrap() && launch.exists(), "somebody has removed its lock");
    }
}

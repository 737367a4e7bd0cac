//! What the kernel hands on from process to process, or keeps for an account, beyond files: keys, and what processes of one
//! host share by a number.

use std::{io, thread};

use keyutils_raw::keyctl_join_session_keyring;
use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;

/// Whether what is started here cannot leave that. Tried on a thread, which ends with what it has got.
pub fn shares_memory() -> bool {
    let tried = thread::Builder::new().name("apart".to_owned()).spawn(|| unshare(CloneFlags::CLONE_NEWIPC).is_ok());
    !tried.is_ok_and(|thread| thread.join().unwrap_or_default())
}

/// Leaves the memory, queues and semaphores that processes of this host share. A container may not let root do that:
/// [`shares_memory`] says so.
pub(super) fn leave_shared_memory() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWIPC) {
        Ok(()) | Err(nix::errno::Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Leaves the keys of whoever has started the executor, which the kernel would use for it, and list.
pub(super) fn leave_keys() -> io::Result<()> {
    allowed(keyctl_join_session_keyring(None))
}

/// Where the kernel has no keys, or lets nobody here ask for any, there are none to keep from anybody.
fn allowed<T>(answer: Result<T, impl Into<io::Error>>) -> io::Result<()> {
    const NONE: [Errno; 4] = [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP];
    match answer.map_err(Into::into) {
        Err(error) if !NONE.iter().any(|none| Some(none.raw_os_error()) == error.raw_os_error()) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

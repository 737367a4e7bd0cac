//! What the kernel hands on from process to process, or keeps for an account, beyond files: keys, and what processes of one
//! host share by a number.

use std::{io, thread};

use keyutils_raw::keyctl_join_session_keyring;
use nix::sched::{CloneFlags, unshare};

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

/// Leaves the keys of whoever has started the executor, which the kernel would use for it, and list. Where that is refused,
/// or the account has no key left to take, they stay in sight, and every call for them is refused all the same.
pub(super) fn leave_keys() {
    let _refused = keyctl_join_session_keyring(None);
}

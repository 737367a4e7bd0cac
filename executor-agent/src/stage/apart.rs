//! What the kernel hands on from process to process, or keeps for an account, beyond files: keys, and what processes of one
//! host share by a number.

use std::{io, thread};

use keyutils_raw::{
    KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING, KeyringSerial, keyctl_clear,
    keyctl_get_persistent, keyctl_join_session_keyring,
};
use nix::sched::{CloneFlags, unshare};
use rustix::{io::Errno, process::getuid};

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

/// Leaves the keys of whoever has started the executor, and with them those that other attempts have put there.
pub(super) fn leave_keys() -> io::Result<()> {
    allowed(keyctl_join_session_keyring(None))
}

/// Removes the keys that an earlier attempt of this account has left with it.
pub(super) fn forget_keys() -> io::Result<()> {
    let clear = |keyring: KeyringSerial| allowed(keyctl_clear(keyring));
    clear(KEY_SPEC_USER_KEYRING)?;
    clear(KEY_SPEC_USER_SESSION_KEYRING)?;
    // It outlives the account's processes for days, and is reached through another one only.
    match keyctl_get_persistent(getuid().as_raw(), KEY_SPEC_SESSION_KEYRING) {
        Ok(persistent) => clear(persistent)?,
        refused => allowed(refused)?,
    }
    leave_keys()
}

/// Where the kernel has no keys, or lets nobody here ask for any, there are none to keep from anybody.
fn allowed<T>(answer: Result<T, impl Into<io::Error>>) -> io::Result<()> {
    const NONE: [Errno; 4] = [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP];
    match answer.map_err(Into::into) {
        Err(error) if !NONE.iter().any(|none| Some(none.raw_os_error()) == error.raw_os_error()) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

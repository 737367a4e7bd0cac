//! The sockets of a shim: for the executor, and for the agent's account.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _, chown},
        net::UnixListener,
    },
    path::Path,
};

use super::{Error, launch::Launch, supervisor::failed};

/// Listens on `socket`; where `others_pass`, the agent's account comes through its directory.
pub(super) fn listen(socket: &Path, others_pass: bool) -> Result<UnixListener, Error> {
    let attempt = || format!("listen on {}", socket.display());
    let directory = socket.parent().ok_or_else(|| failed(attempt())(io::ErrorKind::InvalidInput.into()))?;
    // The agent's account passes through to the view's directory, and can list and open nothing.
    let mode = if others_pass { 0o711 } else { 0o700 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed(attempt()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(failed(attempt()))?;
    // The lock is held, so whoever made one has gone.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(failed(attempt()))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed(attempt()))?;
    Ok(listener)
}

/// Listens on `socket` for the agent's account; `name` is that of no other socket.
pub(super) fn listen_for_account(launch: &Launch, socket: &Path, name: &str) -> Result<UnixListener, Error> {
    let Some(identity) = &launch.identity else { return listen(socket, false) };
    let attempt = || failed(format!("give {} to account {}", socket.display(), identity.uid));
    // Made and given away where the account cannot put something else in its place, then moved to where it can.
    let made = launch.control_socket.with_file_name(name);
    let listener = listen(&made, true)?;
    chown(&made, Some(identity.uid), Some(identity.gid)).map_err(attempt())?;
    if let Some(directory) = socket.parent().filter(|own| Some(*own) != launch.control_socket.parent()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(attempt())?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(attempt())?;
        chown(directory, Some(identity.uid), Some(identity.gid)).map_err(attempt())?;
    }
    fs::rename(&made, socket).map_err(attempt())?;
    Ok(listener)
}

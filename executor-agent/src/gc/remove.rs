//! Removal: a name is taken away at once, so that nobody goes on in something half gone; what it named goes after that.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use sculpt_space::in_background;
use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    attempts::{Context, Handle},
    layout::Layout,
    shim::Launch,
    workspace,
};

/// Removes `path` and everything below; one that is not there is no error. The rename is what decides between this and an
/// attempt that wants to go on in the same workspace.
pub(super) async fn tree(context: &Arc<Context>, path: PathBuf) -> io::Result<()> {
    let (told, done) = oneshot::channel();
    let shared = Arc::clone(context);
    in_background(move || {
        let removed = remove(&shared.layout, &path);
        shared.room.sizes().forget(&path);
        // Nobody waits when the executor is ending.
        let _ending = told.send(removed);
    })?;
    done.await.map_err(io::Error::other)?
}

fn remove(layout: &Layout, path: &Path) -> io::Result<()> {
    let trash = layout.trash();
    let target = trash.join(uuid::Uuid::new_v4().to_string());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&trash);
    let gone = match made.and_then(|()| fs::rename(path, &target)) {
        Ok(()) => target.as_path(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Not even a name has room: then the first thing is to make some.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => path,
        Err(error) => return Err(error),
    };
    workspace::remove(gone).map_err(io::Error::other)
}

/// Removes what a removal that was cut short has left.
pub(super) fn empty_trash(layout: &Layout) {
    let left: Vec<PathBuf> = fs::read_dir(layout.trash()).into_iter().flatten().flatten().map(|it| it.path()).collect();
    let emptied = in_background(move || {
        for path in left {
            if let Err(error) = workspace::remove(&path) {
                warn!(%error, "could not remove what an earlier removal has left");
            }
        }
    });
    if let Err(error) = emptied {
        warn!(%error, "could not look for what an earlier removal has left");
    }
}

/// Removes the sockets and the cgroup of an attempt. False: a process in the cgroup has not gone yet.
pub(super) async fn sockets(layout: &Layout, handle: &Handle) -> io::Result<bool> {
    let (sockets, launch) = (layout.sockets(handle.id), Launch::read(&handle.dir));
    let work = tokio::task::spawn_blocking(move || {
        // An account of its own can write where its view is.
        sculpt_walk::remove(&sockets)?;
        Ok(launch.is_ok_and(|launch| !launch.cgroup.remove()))
    });
    work.await.unwrap_or(Ok(false)).map(|occupied| !occupied)
}

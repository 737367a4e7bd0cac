//! Joins the packs of stores: each base that is fetched brings one, and git gets slow with thousands.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::git::{self, GitError};

/// A store with fewer packs is left alone.
const MANY: usize = 20;
/// How often stores are looked at.
const PERIOD: Duration = Duration::from_secs(600);
/// How long joining may take.
const LIMIT: Duration = Duration::from_secs(3_600);
/// What a git that was killed left behind is removed when it is so old.
const STALE: Duration = Duration::from_secs(24 * 3_600);

/// Keeps all stores below `stores` compact until cancelled.
pub async fn run(stores: &Path, cancel: CancellationToken) {
    let work = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            for entry in fs::read_dir(stores).into_iter().flatten().flatten() {
                match compact(&entry.path()).await {
                    Ok(true) => info!(store = %entry.path().display(), "joined the packs of a store"),
                    Ok(false) => {}
                    Err(error) => warn!(store = %entry.path().display(), %error, "could not join the packs of a store"),
                }
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work => {}
    }
}

/// Joins the packs of `store` if there are many. Every object stays, whether a ref leads to it or not: workspaces
/// borrow them. Who reads meanwhile finds an object in the new pack when the old one has gone, as git does by itself.
pub async fn compact(store: &Path) -> Result<bool, GitError> {
    if packs(store).len() < MANY {
        return Ok(false);
    }
    remove_stale(store);
    let mut command = git::trusted(store);
    // The packs that are joined are given up with all of their objects in the new one; those that are large enough
    // stay as they are, so that the work does not grow with the history.
    command.args(["-c", "pack.threads=1", "-c", "repack.writeBitmaps=false"]);
    command.args(["repack", "--geometric=2", "-d", "--quiet"]);
    git::run("join the packs of the store", command, None, LIMIT).await?;
    Ok(true)
}

/// Names of the packs that a store has, without what stands beside them.
pub(super) fn packs(store: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(store.join("objects/pack")).into_iter().flatten().flatten();
    let mut packs: Vec<_> = entries
        .map(|entry| entry.file_name())
        .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "pack"))
        .collect();
    packs.sort_unstable();
    packs
}

fn remove_stale(store: &Path) {
    for entry in fs::read_dir(store.join("objects/pack")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let unfinished = name.starts_with(b".tmp-") || name.starts_with(b"tmp_");
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.and_then(|at| SystemTime::now().duration_since(at).map_err(io::Error::other));
        if unfinished && age.is_ok_and(|age| age > STALE) {
            let _gone = fs::remove_file(entry.path());
        }
    }
}

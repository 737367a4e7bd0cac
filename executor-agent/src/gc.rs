//! Removes what nobody needs any more: the workspace of a released attempt, and a day later the rest of it. What is
//! not published is never removed.

use std::{io, sync::Arc, time::Duration};

use tracing::{info, warn};

use crate::{
    attempts::{Attempts, Context, Handle, files},
    journal::Stamp,
    shim::{self, Client, Liveness},
    workspace,
};

/// How long a released attempt keeps its spool: a failover may make the controller lose the end of what it held.
pub const RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// How often it looks without being woken.
const PERIOD: Duration = Duration::from_secs(30);

/// How soon it looks again when a shim was still there: most go within moments of the end.
const SOON: Duration = Duration::from_millis(500);

/// What may be removed of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Keep,
    /// The workspace and the sockets.
    Workspace,
    /// Everything.
    All,
}

/// Looks after every release and every half minute, until cancelled.
pub async fn run(context: Arc<Context>, attempts: Attempts) {
    loop {
        let mut alive = false;
        for handle in attempts.all() {
            if handle.ended() && handle.released() {
                alive |= sweep(&context, &attempts, &handle).await;
            }
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = context.released.notified() => {}
            () = tokio::time::sleep(if alive { SOON } else { PERIOD }) => {}
        }
    }
}

/// True when its shim is still there.
async fn sweep(context: &Context, attempts: &Attempts, handle: &Handle) -> bool {
    // Somebody may still be attached, and stand in the workspace.
    let liveness = shim::probe(&handle.dir).await;
    if matches!(liveness, Liveness::Present(_)) {
        // Its socket may have been gone when it was told before.
        if let Some(launch) = launch(handle) {
            let _gone = Client::new(&launch.control_socket).release().await;
        }
    }
    let alive = !matches!(liveness, Liveness::Absent(_));
    let age = released_at(handle).map(|at| at.age(&Stamp::now(&context.boot)));
    let verdict = judge(age, handle.dir.join(files::KEEP).exists(), alive);
    let removed = match verdict {
        Verdict::Keep => Ok(()),
        Verdict::Workspace => remove_workspace(context, handle).await,
        Verdict::All => match remove_workspace(context, handle).await {
            Ok(()) => remove_all(handle),
            Err(error) => Err(error),
        },
    };
    match (removed, verdict) {
        (Ok(()), Verdict::All) => {
            info!(attempt = %handle.id, "removed what was left of a released attempt");
            attempts.forget(handle.id).await;
        }
        (Ok(()), Verdict::Keep | Verdict::Workspace) => {}
        (Err(error), _) => warn!(attempt = %handle.id, %error, "could not remove a released attempt"),
    }
    alive
}

fn judge(age: Option<Duration>, keep: bool, alive: bool) -> Verdict {
    match age {
        None => Verdict::Keep,
        Some(_) if keep || alive => Verdict::Keep,
        Some(age) if age < RETENTION => Verdict::Workspace,
        Some(_) => Verdict::All,
    }
}

fn released_at(handle: &Handle) -> Option<Stamp> {
    serde_json::from_slice(&std::fs::read(handle.dir.join(files::RELEASED)).ok()?).ok()
}

fn launch(handle: &Handle) -> Option<shim::Launch> {
    serde_json::from_slice(&std::fs::read(handle.dir.join(shim::files::LAUNCH)).ok()?).ok()
}

async fn remove_workspace(context: &Context, handle: &Handle) -> io::Result<()> {
    let path = context.layout.workspace(handle.id);
    let sockets = context.layout.sockets(handle.id);
    let launch = launch(handle);
    let work = tokio::task::spawn_blocking(move || {
        workspace::remove(&path).map_err(io::Error::other)?;
        if let Some(launch) = launch {
            // What is left in it keeps it, and is told elsewhere.
            let _occupied = launch.cgroup.remove();
        }
        match std::fs::remove_dir_all(&sockets) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    work.await.unwrap_or(Ok(()))
}

/// The spec goes last: a directory without one has never begun.
fn remove_all(handle: &Handle) -> io::Result<()> {
    std::fs::remove_dir_all(&handle.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unpublished_and_nothing_in_use_is_removed() {
        let old = Some(RETENTION * 2);
        let young = Some(Duration::from_secs(1));
        assert_eq!(judge(None, false, false), Verdict::Keep);
        assert_eq!(judge(young, false, false), Verdict::Workspace);
        assert_eq!(judge(old, false, false), Verdict::All);
        for age in [young, old] {
            assert_eq!(judge(age, true, false), Verdict::Keep);
            assert_eq!(judge(age, false, true), Verdict::Keep);
        }
    }
}

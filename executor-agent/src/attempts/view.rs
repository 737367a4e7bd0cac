//! Keeps the view of a living agent: it is for people, the agent never waits for it, and a lost one is made again.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{
    tmux::{Error, Liveness, Status, View},
    tree::ProcessId,
};

/// How often a lost view is looked for.
const LOOK: Duration = Duration::from_secs(2);

/// How soon it is seen whether the agent's sandbox stands, as it does within moments.
const COMING: Duration = Duration::from_millis(20);

/// How long one may take before it is said that it is not there.
const LATE: Duration = Duration::from_secs(10);

/// How many looks at the server's process go between two questions to the server itself.
const QUIET_LOOKS: u32 = 15;

/// Runs until it is dropped.
pub(super) async fn keep_view(view: View, mut status: watch::Receiver<Status>) {
    let mut told = false;
    let mut server = None;
    let mut looks = 0;
    let mut coming = None;
    let mut shown = None;
    loop {
        if view.is_coming() {
            let waited = coming.get_or_insert_with(Instant::now).elapsed();
            if waited > LATE && !told {
                warn!(
                    "the attempt's sandbox does not stand, or what is noted of it is lost; without it there is no view"
                );
                told = true;
            }
            tokio::time::sleep(pause(waited)).await;
            continue;
        }
        coming = None;
        looks += 1;
        match server.filter(|server: &ProcessId| server.is_alive()) {
            // Asked without its socket it would seem to be gone.
            Some(server) if view.mend_socket(server) || looks < QUIET_LOOKS => {}
            Some(_) | None => {
                looks = 0;
                match renew(&view, server).await {
                    Ok(found) => (server, told) = (found, false),
                    Err(error) if !told => {
                        warn!(%error, "the attempt has no view for now");
                        told = true;
                    }
                    Err(_) => {}
                }
            }
        }
        let wanted = server.map(|server| (server, status.borrow_and_update().clone()));
        if let Some((_, status)) = wanted.as_ref().filter(|_| shown != wanted) {
            match view.show(status).await {
                Ok(()) => shown = wanted,
                Err(error) => debug!(%error, "the view does not show how far the task has come"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Ok(()) = status.changed() => {}
        }
    }
}

/// How long until the next look at a sandbox that has been coming for so long.
fn pause(coming: Duration) -> Duration {
    (coming / 2).clamp(COMING, LOOK)
}

/// Makes a view where there is none; returns its server. One that cannot answer now keeps its place.
async fn renew(view: &View, known: Option<ProcessId>) -> Result<Option<ProcessId>, Error> {
    match view.alive().await {
        Liveness::Unknown => Ok(known),
        Liveness::Present => view.server().await.map(Some),
        Liveness::Absent => view.start().await.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_seen_soon_and_one_that_never_stands_costs_no_more_than_any_view() {
        let looks = |until: Duration| {
            let next = |waited: &Duration| Some(*waited + pause(*waited));
            std::iter::successors(Some(Duration::ZERO), next).take_while(|waited| *waited < until).count()
        };
        assert!(looks(Duration::from_millis(100)) >= 4);
        let (early, hour) = (looks(LATE), looks(LATE + Duration::from_secs(3_600)));
        assert!(early < 30 && hour - early <= 3_600 / 2, "{early}, {hour}");
    }
}

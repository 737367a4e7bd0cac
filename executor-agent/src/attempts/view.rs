//! Keeps the view of a living agent: it is for people, the agent never waits for it, and a lost one is made again.

use std::time::Duration;

use tracing::warn;

use crate::{
    tmux::{Error, Liveness, View},
    tree::ProcessId,
};

/// How often a lost view is looked for.
const LOOK: Duration = Duration::from_secs(2);

/// How often it is seen whether the agent's sandbox stands: within moments, or never.
const COMING: Duration = Duration::from_millis(20);

/// How many looks at the server's process go between two questions to the server itself.
const QUIET_LOOKS: u32 = 15;

/// Runs until it is dropped.
pub(super) async fn keep_view(view: View) {
    let mut told = false;
    let mut server = None;
    let mut looks = 0;
    loop {
        if view.is_coming() {
            tokio::time::sleep(COMING).await;
            continue;
        }
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
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes a view where there is none; returns its server. One that cannot answer now keeps its place.
async fn renew(view: &View, known: Option<ProcessId>) -> Result<Option<ProcessId>, Error> {
    match view.alive().await {
        Liveness::Unknown => Ok(known),
        Liveness::Present => view.server().await.map(Some),
        Liveness::Absent => view.start().await.map(Some),
    }
}

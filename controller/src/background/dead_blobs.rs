//! Deletes blobs that no row names any more: packs that were rolled up, and uploads that were never finished.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    blobs::Blobs,
    store::{Store, packs},
};

/// How long a dead blob stays: a replica may be reading it, and an upload may still get its row.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// How often they are looked for.
pub const PERIOD: Duration = Duration::from_secs(600);

/// Deletes what has been dead for [`GRACE`] until `stop`.
pub async fn run(store: Store, blobs: Blobs, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(sweep(&store, &blobs, GRACE)).await.is_none() {
            return;
        }
    }
}

/// Deletes what has been dead for `grace`; returns how many blobs that were.
pub async fn sweep(store: &Store, blobs: &Blobs, grace: Duration) -> usize {
    let mut deleted = 0;
    loop {
        match packs::bury(store, blobs, grace).await {
            Ok(Some(blob)) => {
                tracing::debug!(blob, "a dead blob was deleted");
                deleted += 1;
            }
            Ok(None) => return deleted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "delete dead blobs");
                return deleted;
            }
        }
    }
}

//! Executors that were locked or removed, or whose certificate has run out, are sent away: within moments where a signal
//! tells of it, and at the next look where none does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    bus::Bus,
    session::Present,
    store::{Store, StoreError},
};

/// How soon a lost signal is repaired.
const POLL: Duration = Duration::from_secs(5);

/// Looks after those who are `present` until `stop`.
pub async fn run(store: Store, present: Present, bus: Bus, stop: CancellationToken) {
    let mut changed = bus.access_changed();
    loop {
        changed.mark_unchanged();
        if let Err(error) = look(&store, &present).await {
            // Nobody can be locked meanwhile either.
            tracing::debug!(%error, "cannot see which executors may stay");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tokio::time::timeout(POLL, changed.changed()) => {}
        }
    }
}

async fn look(store: &Store, present: &Present) -> Result<(), StoreError> {
    let here = present.all();
    if here.is_empty() {
        return Ok(());
    }
    for (executor, bar) in store.barred(&here).await? {
        tracing::info!(%executor, %bar, "an executor is sent away");
        present.send_away(executor, bar);
    }
    Ok(())
}

//! Day partitions made ahead, old days of the journal and emptied days of logs dropped, old request ids forgotten.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// How often it is looked at; partitions reach three days ahead, so many of these may fail.
const PERIOD: Duration = Duration::from_secs(3600);

/// Does it once an hour until `stop`.
pub async fn run(store: Store, event_days: u32, stop: CancellationToken) {
    loop {
        if let Err(error) = once(&store, event_days).await {
            tracing::warn!(%error, "cannot tend the partitions; trying again within the hour");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Does it now.
pub async fn once(store: &Store, event_days: u32) -> Result<(), StoreError> {
    store.make_partitions().await?;
    let dropped = store.drop_old_events(event_days).await?;
    if dropped > 0 {
        tracing::info!(days = dropped, "dropped old days of the journal");
    }
    let emptied = store.drop_empty_log_days().await?;
    if emptied > 0 {
        tracing::debug!(days = emptied, "dropped days of logs that are all sealed");
    }
    Ok(())
}

//! Retention of logs: those of tasks that ended long ago are dropped, once they are sealed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError, retention};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(3600);

/// Logs that one transaction drops.
const BATCH: u32 = 100;

/// Drops logs of tasks that ended `age` ago until `stop`; without an age they are kept for ever.
pub async fn run(store: Store, age: Option<Duration>, stop: CancellationToken) {
    let Some(age) = age else { return };
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(sweep(&store, age)).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(dropped)) => tracing::info!(dropped, "dropped old logs"),
            Some(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "drop old logs"),
        }
    }
}

/// Drops them now; returns how many.
pub async fn sweep(store: &Store, age: Duration) -> Result<u64, StoreError> {
    let mut count = 0;
    loop {
        let found = retention::old_logs(&mut *store.read().await?, age, BATCH).await?;
        let dropped = store
            .write::<_, StoreError>(move |conn| Box::pin(async move { retention::drop_logs(conn, &found, age).await }))
            .await?;
        count += dropped;
        // What could not be dropped would be found again at once.
        if dropped < u64::from(BATCH) {
            return Ok(count);
        }
    }
}

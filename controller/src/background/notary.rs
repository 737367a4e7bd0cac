//! The notary: hangs what was done onto the chain of the record, as the role that owns it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{bus::Bus, store::Store};

/// How soon an act that nobody told of is chained.
const PERIOD: Duration = Duration::from_secs(2);

/// Chains until `stop`, whenever something has happened. `store` is the tables' owner: the service adds no link.
pub async fn run(store: Store, bus: Bus, stop: CancellationToken) {
    // Nearly every act tells one of these.
    let (mut journal, mut access) = (bus.journal_moved(), bus.access_changed());
    loop {
        journal.mark_unchanged();
        access.mark_unchanged();
        match stop.run_until_cancelled(store.chain()).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(_)) => bus.audit(),
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "chain what was done; trying again");
            }
        }
        let woken = async {
            tokio::select! {
                _ = journal.changed() => {}
                _ = access.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        };
        if stop.run_until_cancelled(woken).await.is_none() {
            return;
        }
    }
}

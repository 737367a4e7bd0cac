//! When tokens were last used, written down away from the calls that use them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::Authority;

/// How exactly it is known.
const PERIOD: Duration = Duration::from_secs(60);

/// Writes it down until `stop`, and once more then.
pub async fn run(authority: Authority, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        if let Err(error) = authority.note_use().await {
            tracing::debug!(%error, "cannot note which tokens were used");
        }
        if stopped {
            return;
        }
    }
}

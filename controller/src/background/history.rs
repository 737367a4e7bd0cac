//! A database that was promoted or set back may have lost what executors were told that it has. A session that works
//! meanwhile loses its connection and is begun anew; one that has nothing to do would not notice, so all are recalled:
//! with their next census what is missing is sent again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    session::Sessions,
    store::{Store, StoreError, history},
};

/// How often the database is asked.
const PERIOD: Duration = Duration::from_secs(5);

/// Recalls the sessions of this replica whenever the database is no longer the one that it was, until `stop`.
pub async fn run(store: Store, sessions: Sessions, stop: CancellationToken) {
    let mut before: Option<history::Place> = None;
    loop {
        // A database that is away ends sessions by itself.
        if let Ok(now) = look(&store).await
            && before.replace(now.clone()).is_some_and(|before| !now.follows(&before))
        {
            tracing::warn!(
                ?now,
                "the database was promoted or set back; executors are asked again for what it may lack"
            );
            sessions.recall();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn look(store: &Store) -> Result<history::Place, StoreError> {
    let mut conn = store.read().await?;
    history::place(&mut conn).await
}

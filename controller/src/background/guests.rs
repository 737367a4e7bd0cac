//! Executors hear whom to let in: at once when a session begins, when a pairing is opened or taken back, and when somebody
//! may no longer what theirs lets them do; at the next look where no signal tells of it, as when a token runs out, or when an
//! attempt ends, of which its executor knows first.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Bus,
    pki::SshAuthorities,
    session::Sessions,
    store::{Store, StoreError},
};

/// How soon a change is found that no signal tells of.
pub const POLL: Duration = Duration::from_secs(4);

/// Shortest time between two looks: signals that come meanwhile are one.
const GATHER: Duration = Duration::from_millis(20);

/// Why executors do not know whom to let in.
#[derive(Debug, thiserror::Error)]
enum GuestsError {
    #[error("read whom executors let in")]
    Store(#[from] StoreError),
    #[error("name the authorities that certify people")]
    Authorities(#[from] ssh_key::Error),
}

/// Tells the executors of this replica's `sessions` until `stop`, and looks every `poll` whether there is more to tell.
pub async fn run(
    store: Store,
    sessions: Sessions,
    ssh: Arc<SshAuthorities>,
    bus: Bus,
    poll: Duration,
    stop: CancellationToken,
) {
    let (mut access, mut guests, mut begun) = (bus.access_changed(), bus.guests_changed(), sessions.begun());
    loop {
        access.mark_unchanged();
        guests.mark_unchanged();
        begun.mark_unchanged();
        if let Err(error) = tell(&store, &sessions, &ssh).await {
            // What executors know stands until they are told better.
            tracing::warn!(error = &error as &dyn std::error::Error, "executors are not told whom to let in");
        }
        let told = Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = access.changed() => {}
            _ = guests.changed() => {}
            _ = begun.changed() => {}
            () = sleep(poll) => {}
        }
        sleep_until(told + GATHER).await;
    }
}

/// Everybody is told everything: sessions pass on what is news.
async fn tell(store: &Store, sessions: &Sessions, ssh: &SshAuthorities) -> Result<(), GuestsError> {
    let held: Vec<_> = sessions.held().into_iter().map(|epoch| epoch.executor).collect();
    if held.is_empty() {
        return Ok(());
    }
    let authorities = ssh.people()?.into();
    let mut guests = store.guests(&held).await?;
    for executor in held {
        sessions.invite(executor, guests.remove(&executor).unwrap_or_default(), &authorities);
    }
    Ok(())
}

//! Sealing: older parts of long logs, and logs that are closed, move from rows into compressed blobs.
//!
//! A segment takes room before its rows give theirs back: to later rows, and to the disk when the database's own cleaning
//! finds the end of the table empty, at the latest when the day is dropped, which it never is while it holds a row. So a full
//! disk that the database stands on too is no reason to stop: it is one to seal sooner, down to a reserve that is left to
//! Postgres. Where the database is elsewhere, sealing would only take room here, and waits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    blobs::Blobs,
    session::held::{self, SEGMENT},
    store::{Store, StoreError, logs},
};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(10);

/// What stays in rows of a log that grows: readers that follow find it there. In bytes.
const TAIL: u64 = 2 * SEGMENT;

/// How long a closed log stays in rows.
const FINISHED: Duration = Duration::from_secs(3600);

/// Logs that one look takes up.
const LIMIT: u32 = 100;

/// Seals until `stop`. `together`: rows and blobs stand on one disk.
pub async fn run(store: Store, blobs: Blobs, together: bool, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some((tail, finished)) = due(blobs.has_room().is_ok(), together) else { continue };
        match stop.run_until_cancelled(seal(&store, &blobs, tail, finished)).await {
            None => return,
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "no logs were sealed"),
        }
    }
}

/// PURE: what is to stay in rows of a log that grows, in bytes, and for how long closed logs do; none when sealing has to wait.
const fn due(room: bool, together: bool) -> Option<(u64, Duration)> {
    match (room, together) {
        (true, _) => Some((TAIL, FINISHED)),
        (false, true) => Some((SEGMENT, Duration::ZERO)),
        (false, false) => None,
    }
}

/// Seals what is beyond `tail` bytes of growing logs, and logs that were closed `finished` ago; returns how many segments
/// were made. A log that cannot be sealed hinders no other.
pub async fn seal(store: &Store, blobs: &Blobs, tail: u64, finished: Duration) -> Result<usize, StoreError> {
    if blobs.has_reserve().is_err() {
        return Ok(0);
    }
    let logs = {
        let mut conn = store.read().await?;
        logs::sealable(&mut conn, tail, finished, LIMIT).await?
    };
    let mut made = 0;
    for mut log in logs {
        while log.closed || log.end - log.sealed > tail {
            match held::seal_next(store, blobs, log).await {
                Ok(Some(sealed)) => {
                    log.sealed = sealed;
                    made += 1;
                }
                Ok(None) => break,
                Err(error) => {
                    let attempt = log.attempt;
                    tracing::warn!(%attempt, error = &error as &dyn std::error::Error, "a log was not sealed");
                    break;
                }
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_sealed_at_once_where_that_makes_room_on_it() {
        for (room, together, expected) in [
            (true, true, Some((TAIL, FINISHED))),
            (true, false, Some((TAIL, FINISHED))),
            (false, true, Some((SEGMENT, Duration::ZERO))),
            (false, false, None),
        ] {
            assert_eq!(due(room, together), expected, "{room} {together}");
        }
    }
}

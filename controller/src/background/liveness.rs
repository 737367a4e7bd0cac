//! Liveness: executors that are silent are shown so, and so are their attempts; what follows is the task's own choice.
//!
//! Replicas may all run it: whatever moves is decided again under the task's lock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sculpt_core::{
    attempt::{AttemptState, Offer},
    liveness::Liveness,
    task::{Event, IllegalTransition, Task},
};
use sculpt_proto::id::TaskId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    store::{
        Connection, StoreError,
        silence::{self, Pulse},
        task_state,
    },
};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(5);

/// A controller that was away itself (stopped, or without its database) judges nobody until executors had the time to come
/// back: their watchdog and a reconnect.
const FAIR: Duration = Duration::from_secs(45);

/// Attempts that one look moves at most.
const LIMIT: u32 = 500;

/// Judges silence until `stop`.
pub async fn run(dispatch: Dispatch, stop: CancellationToken) {
    let mut since = Instant::now();
    let mut last: Option<Reading> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let looked = match Reading::take(&dispatch).await {
            Ok(now) => {
                if !last.replace(now).is_some_and(|last| now.follows(last)) {
                    since = now.ours;
                }
                if since.elapsed() < FAIR {
                    continue;
                }
                look(&dispatch).await
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(Looked { failed, .. }) => {
                for (task, error) in failed {
                    tracing::warn!(%task, error = &error as &dyn std::error::Error, "a task's silence was not judged");
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "silence was not judged");
                since = Instant::now();
            }
        }
    }
}

/// Two clocks at one moment: silence is measured by the database's, which may be set, and goes on while the machine is
/// suspended or the database is out of reach.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ours: Instant,
    database: DateTime<Utc>,
}

impl Reading {
    async fn take(dispatch: &Dispatch) -> Result<Self, DispatchError> {
        let mut conn = dispatch.store().read().await?;
        let database = silence::clock(&mut conn).await?;
        Ok(Self { ours: Instant::now(), database })
    }

    /// Whether nobody was away since `before` and no clock was set: only then is silence an executor's own.
    fn follows(self, before: Self) -> bool {
        let ours = self.ours.duration_since(before.ours);
        let by_database = (self.database - before.database).to_std();
        ours <= 3 * PERIOD && by_database.is_ok_and(|passed| passed.abs_diff(ours) <= 2 * PERIOD)
    }
}

/// What one look came to.
#[derive(Debug, Default)]
pub struct Looked {
    /// Moves that were made.
    pub moved: usize,
    /// Tasks that could not be judged, and why; they hinder no other.
    pub failed: Vec<(TaskId, DispatchError)>,
}

/// Looks once. It fails as a whole only without the database.
pub async fn look(dispatch: &Dispatch) -> Result<Looked, DispatchError> {
    let silent = dispatch
        .store()
        .write::<_, DispatchError>(|conn| Box::pin(async move { Ok(silence::mark_silent(conn).await?) }))
        .await?;
    if !silent.is_empty() {
        dispatch.bus().journal();
    }
    let pulses = {
        let mut conn = dispatch.store().read().await?;
        silence::pulses(&mut conn, LIMIT).await?
    };
    let mut looked = Looked::default();
    for pulse in pulses {
        match settle(dispatch, pulse).await {
            Ok(moved) => looked.moved += moved,
            Err(error) => {
                if matches!(error, DispatchError::Store(StoreError::Unavailable(_))) {
                    // A row that somebody holds looks the same as a database that is away; the clock tells.
                    Reading::take(dispatch).await?;
                }
                looked.failed.push((pulse.task, error));
            }
        }
    }
    Ok(looked)
}

/// Marked silent first, then withdrawn or expired: each is a move of its own. Returns how many there were.
async fn settle(dispatch: &Dispatch, pulse: Pulse) -> Result<usize, DispatchError> {
    let mut count = 0;
    loop {
        match dispatch.store().write(move |conn| Box::pin(async move { judge(conn, pulse).await })).await {
            Ok(Some(moved)) => dispatch.after_commit(&moved),
            // The database's clock may stand before the one that chose it: the next look is soon.
            Ok(None) | Err(DispatchError::Illegal(IllegalTransition::TooEarly { .. })) => return Ok(count),
            Err(error) => return Err(error),
        }
        count += 1;
    }
}

async fn judge(conn: &mut Connection, pulse: Pulse) -> Result<Option<Moved>, DispatchError> {
    // Held until the end: nobody is given up who is heard of meanwhile.
    let Some(last_heard) = silence::last_heard(conn, pulse).await? else { return Ok(None) };
    let Some(locked) = task_state::lock(conn, pulse.task).await? else { return Ok(None) };
    if locked.task.attempt().is_none_or(|attempt| attempt.fence.id != pulse.attempt.0) {
        return Ok(None);
    }
    let Some(event) = silence(&locked.task, last_heard, locked.now) else { return Ok(None) };
    Dispatch::move_locked(conn, &locked, &event, &Actor::system(), Duration::ZERO).await.map(Some)
}

/// PURE: what it means at `now` for the newest attempt of `task` that its executor was last heard of at `last_seen`.
pub fn silence(task: &Task, last_seen: DateTime<Utc>, now: DateTime<Utc>) -> Option<Event> {
    let attempt = task.attempt().filter(|attempt| !attempt.ended())?;
    let fence = attempt.fence;
    let liveness = Liveness::of(last_seen, task.policy.lost_after, now);
    if liveness == Liveness::Connected {
        let back = attempt.liveness != Liveness::Connected;
        return back.then_some(Event::Liveness { fence, liveness });
    }
    if attempt.state == (AttemptState::Offered { offer: Offer::Unread }) {
        return Some(Event::Withdrawn { fence });
    }
    if attempt.liveness != liveness {
        return Some(Event::Liveness { fence, liveness });
    }
    task.expires_at().filter(|at| now >= *at).map(|_| Event::Expired { fence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_only_while_both_clocks_go_alike() {
        let before = Reading { ours: Instant::now(), database: DateTime::UNIX_EPOCH };
        for (ours, database, follows, what) in [
            (5, 5, true, "as it should be"),
            (6, 5, true, "a slow answer"),
            (5, 3605, false, "the database's clock was set, or the machine was suspended"),
            (5, -3595, false, "it was set back"),
            (600, 600, false, "this process stood still"),
        ] {
            let now = Reading {
                ours: before.ours + Duration::from_secs(ours),
                database: before.database + chrono::TimeDelta::seconds(database),
            };
            assert_eq!(now.follows(before), follows, "{what}");
        }
    }
}

//! What an executor has against what the database says it should have.
//!
//! | executor has it | database | what follows |
//! |---|---|---|
//! | yes | does not know it, or another cluster minted it | recorded as unknown, left alone |
//! | yes | released | told that it need not be kept |
//! | yes, ended | fenced | its end is recorded, released |
//! | no | offered | stays desired: it never said that it has the spec, so it has published nothing, and reads the spec again |
//! | no | accepted or later, not ended | failed as `interrupted` and fenced: its first run may have had effects, so it is not run again unasked |
//! | no | ended or fenced | released: nothing more will come |

use std::collections::BTreeSet;

use sculpt_core::{
    attempt::{Fence, Step},
    liveness::Liveness,
    outcome::{Cause, Failure, Outcome},
    task::Event,
};
use sculpt_proto::id::{AttemptId, ClusterId};

use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    session::state::Census,
    store::{
        Connection, attempts,
        sessions::{self, Epoch, Standing},
        task_state,
    },
};

/// What the executor has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// It need not keep these.
    pub released: Vec<AttemptId>,
    /// It owes reports, logs or commits of these.
    pub owed: Vec<AttemptId>,
}

/// Compares and converges.
pub async fn reconcile(
    dispatch: &Dispatch,
    cluster: ClusterId,
    epoch: Epoch,
    census: Census,
) -> Result<Comparison, DispatchError> {
    let named: BTreeSet<AttemptId> = census.keys().copied().collect();
    let mut conn = dispatch.store().read().await?;
    let standings = sessions::standings(&mut conn, epoch.executor, &named).await?;
    let silent = sessions::silent_attempts(&mut conn, epoch.executor).await?;
    let foreign =
        |attempt: &AttemptId| census.get(attempt).and_then(|seen| seen.cluster).is_some_and(|id| id != cluster);
    let unknown: Vec<AttemptId> =
        named.iter().filter(|attempt| foreign(attempt) || !standings.contains_key(attempt)).copied().collect();
    sessions::record_unknown(&mut conn, epoch, &unknown).await?;
    drop(conn);
    let Comparison { mut released, mut owed } = Comparison::default();
    let (mut stopped, mut gone, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (attempt, standing) in standings {
        match census.get(&attempt) {
            Some(_) if foreign(&attempt) => {}
            Some(_) if standing.released => released.push(attempt),
            Some(seen) if standing.fenced && seen.ended => {
                stopped.push(attempt);
                released.push(attempt);
            }
            Some(_) => owed.push(attempt),
            None if standing.fenced => stopped.push(attempt),
            None if standing.ended => gone.push(attempt),
            None if !standing.begun => {}
            None => lost.push((attempt, standing)),
        }
    }
    settle(dispatch, epoch, stopped, gone).await?;
    for (attempt, standing) in lost {
        interrupt(dispatch, epoch, attempt, standing).await?;
    }
    for pulse in silent {
        reachable(dispatch, epoch, pulse.task, pulse.attempt).await?;
    }
    Ok(Comparison { released, owed })
}

/// Nothing more will come of these. Only the newest session knows that: what an older one does not have, a newer one may.
async fn settle(
    dispatch: &Dispatch,
    epoch: Epoch,
    stopped: Vec<AttemptId>,
    gone: Vec<AttemptId>,
) -> Result<(), DispatchError> {
    if stopped.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let settled = dispatch.store().write(move |conn: &mut Connection| {
        Box::pin(async move {
            if sessions::holds(conn, epoch).await? {
                attempts::end_fenced(conn, &stopped).await?;
                attempts::release_gone(conn, epoch.executor, &gone).await?;
            }
            Ok::<_, DispatchError>(())
        })
    });
    settled.await
}

/// Ends an attempt that its executor has lost.
async fn interrupt(
    dispatch: &Dispatch,
    epoch: Epoch,
    attempt: AttemptId,
    standing: Standing,
) -> Result<(), DispatchError> {
    let message = "its executor no longer has it: the executor's data directory was replaced or damaged".to_owned();
    let outcome = Outcome::Failed(Failure { cause: Cause::Interrupted, message });
    let work = move |locked: &task_state::Locked| {
        let current = locked.task.attempt().filter(|current| current.fence.id == attempt.0 && !current.ended())?;
        Some(Event::Stepped { fence: current.fence, step: Step::Ended { outcome } })
    };
    tracing::warn!(executor = %epoch.executor, %attempt, "the executor no longer has an attempt that it had begun");
    move_if(dispatch, epoch, standing.task, work, Some(attempt)).await
}

/// The executor of a live attempt is back.
async fn reachable(
    dispatch: &Dispatch,
    epoch: Epoch,
    task: sculpt_proto::id::TaskId,
    attempt: AttemptId,
) -> Result<(), DispatchError> {
    let work = move |locked: &task_state::Locked| {
        let current = locked.task.attempt().filter(|current| current.fence.id == attempt.0 && !current.ended())?;
        let fence: Fence = current.fence;
        (current.liveness != Liveness::Connected).then_some(Event::Liveness { fence, liveness: Liveness::Connected })
    };
    move_if(dispatch, epoch, task, work, None).await
}

/// Moves `task` by what `decide` makes of its locked state, if this session is still the newest.
async fn move_if(
    dispatch: &Dispatch,
    epoch: Epoch,
    task: sculpt_proto::id::TaskId,
    decide: impl FnOnce(&task_state::Locked) -> Option<Event> + Send + 'static,
    disown: Option<AttemptId>,
) -> Result<(), DispatchError> {
    let moved: Option<Moved> = dispatch
        .store()
        .write(move |conn: &mut Connection| {
            Box::pin(async move {
                if !sessions::holds(conn, epoch).await? {
                    return Ok(None);
                }
                let Some(locked) = task_state::lock(conn, task).await? else { return Ok(None) };
                let Some(event) = decide(&locked) else { return Ok(None) };
                let moved =
                    Dispatch::move_locked(conn, &locked, &event, &Actor::system(), std::time::Duration::ZERO).await?;
                if let Some(attempt) = disown {
                    attempts::disown(conn, attempt).await?;
                }
                Ok::<_, DispatchError>(Some(moved))
            })
        })
        .await?;
    if let Some(moved) = moved {
        dispatch.after_commit(&moved);
    }
    Ok(())
}

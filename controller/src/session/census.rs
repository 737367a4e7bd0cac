//! What an executor has against what the database says it should have.
//!
//! | executor has it | database | what follows |
//! |---|---|---|
//! | yes | does not know it, or another cluster minted it | recorded as unknown, left alone |
//! | yes, ended | released | told that it need not be kept |
//! | yes, not ended | released before this session | its end is owed again, and it is fenced: nothing runs for ever |
//! | yes, ended | fenced | its end is recorded, released |
//! | yes | in another directory of this executor | it is in this one from now on; and as the other lines say |
//! | yes, unreadable | not ended | failed as `internal` with the executor's words, fenced and released |
//! | yes, unreadable | ended or fenced | released: nothing more will come |
//! | no | in another directory of this executor | left alone: that this directory lacks it proves nothing |
//! | no | offered | stays desired: it never said that it has the spec, so it has published nothing, and reads the spec again |
//! | no | accepted or later, not ended | failed as `interrupted` and fenced: its first run may have had effects, so it is not run again unasked |
//! | no | ended or fenced | released: nothing more will come |
//!
//! A database that was set back may lack reports that it had acknowledged: they are asked for again.

use std::collections::{BTreeMap, BTreeSet};

use sculpt_core::{
    attempt::{Fence, Step},
    liveness::Liveness,
    outcome::{Cause, Failure, Outcome},
    task::Event,
};
use sculpt_proto::id::{AttemptId, ClusterId, TaskId};

use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    session::state::{Census, Observed},
    store::{
        Connection, attempts,
        sessions::{self, Epoch, Standing},
        silence::{self, Pulse},
        task_state,
    },
};

/// What an attempt ends with that its executor has lost.
const GONE: &str = "its executor no longer has it: the executor's data directory was replaced or damaged";

/// What the executor has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// It need not keep these.
    pub released: Vec<AttemptId>,
    /// It owes reports, logs or commits of these.
    pub owed: Vec<AttemptId>,
    /// It has more reports of these than the database, which holds so many.
    pub behind: Vec<(AttemptId, u64)>,
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
    let Sorted { comparison, unknown, settled, given_up } = sort(cluster, &census, standings);
    sessions::record_unknown(&mut conn, epoch, &unknown).await?;
    drop(conn);
    settle(dispatch, epoch, settled).await?;
    for GivenUp { attempt, task, failure } in given_up {
        tracing::warn!(executor = %epoch.executor, %attempt, failure.message, "an attempt is given up");
        give_up(dispatch, epoch, task, attempt, failure).await?;
    }
    for pulse in silent(dispatch, epoch).await? {
        reachable(dispatch, epoch, pulse.task, pulse.attempt).await?;
    }
    Ok(comparison)
}

/// Both sides, attempt by attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// What the executor has of ours.
    pub comparison: Comparison,
    /// It has these, and they are not ours.
    pub unknown: Vec<AttemptId>,
    /// What needs no transition.
    pub settled: Settled,
    /// It has begun these, and cannot go on with them.
    pub given_up: Vec<GivenUp>,
}

/// Rows that are set right without a transition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// They went to another directory, and are in this one.
    pub brought: Vec<AttemptId>,
    /// Released, and running there all the same.
    pub running: Vec<AttemptId>,
    /// Fenced, and not running there any more.
    pub stopped: Vec<AttemptId>,
    /// Over, and nothing more will come of them.
    pub gone: Vec<AttemptId>,
}

/// An attempt that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Which.
    pub attempt: AttemptId,
    /// Of which task.
    pub task: TaskId,
    /// Why.
    pub failure: Failure,
}

/// PURE: the table above.
pub fn sort(cluster: ClusterId, census: &Census, standings: BTreeMap<AttemptId, Standing>) -> Sorted {
    let foreign =
        |attempt: &AttemptId| census.get(attempt).and_then(|seen| seen.cluster).is_some_and(|id| id != cluster);
    let unknown = census.keys().filter(|attempt| foreign(attempt) || !standings.contains_key(attempt)).copied();
    let mut sorted = Sorted { unknown: unknown.collect(), ..Sorted::default() };
    let Comparison { released, owed, behind } = &mut sorted.comparison;
    let Settled { brought, running, stopped, gone } = &mut sorted.settled;
    for (attempt, standing) in standings {
        let given_up = |cause, message| GivenUp { attempt, task: standing.task, failure: Failure { cause, message } };
        let seen = census.get(&attempt).filter(|_| !foreign(&attempt));
        if seen.is_some() && !standing.here {
            brought.push(attempt);
        }
        match seen {
            None if !standing.here || foreign(&attempt) => {}
            None if standing.fenced => stopped.push(attempt),
            None if standing.ended => gone.push(attempt),
            None if !standing.begun => {}
            None => sorted.given_up.push(given_up(Cause::Interrupted, GONE.to_owned())),
            Some(seen) if standing.released && seen.ended => released.push(attempt),
            Some(_) if standing.released => {
                running.push(attempt);
                owed.push(attempt);
            }
            Some(seen) if standing.fenced && seen.ended => {
                stopped.push(attempt);
                released.push(attempt);
            }
            Some(Observed { unreadable: Some(why), .. }) => {
                owed.push(attempt);
                if standing.fenced {
                    stopped.push(attempt);
                } else if standing.ended {
                    gone.push(attempt);
                } else {
                    let message = format!("what its executor had of it is damaged and was put aside: {why}");
                    sorted.given_up.push(given_up(Cause::Internal, message));
                }
            }
            Some(seen) => {
                owed.push(attempt);
                if seen.reports > standing.reports {
                    behind.push((attempt, standing.reports));
                }
            }
        }
    }
    sorted
}

/// Nothing more will come of these. Only the newest session knows that: what an older one does not have, a newer one may.
async fn settle(dispatch: &Dispatch, epoch: Epoch, settled: Settled) -> Result<(), DispatchError> {
    if settled == Settled::default() {
        return Ok(());
    }
    let Settled { brought, running, stopped, gone } = settled;
    let settled = dispatch.store().write(move |conn: &mut Connection| {
        Box::pin(async move {
            if sessions::holds(conn, epoch).await? {
                sessions::bring(conn, epoch, &brought).await?;
                attempts::take_back(conn, epoch, &running).await?;
                attempts::end_fenced(conn, &stopped).await?;
                attempts::release_gone(conn, epoch.executor, &gone).await?;
            }
            Ok::<_, DispatchError>(())
        })
    });
    settled.await
}

/// Ends an attempt that its executor cannot go on with.
async fn give_up(
    dispatch: &Dispatch,
    epoch: Epoch,
    task: TaskId,
    attempt: AttemptId,
    failure: Failure,
) -> Result<(), DispatchError> {
    let work = move |locked: &task_state::Locked| {
        let current = locked.task.attempt().filter(|current| current.fence.id == attempt.0 && !current.ended())?;
        Some(Event::Stepped { fence: current.fence, step: Step::Ended { outcome: Outcome::Failed(failure) } })
    };
    move_if(dispatch, epoch, task, work, Some(attempt)).await
}

/// Live attempts that are here and shown as silent.
async fn silent(dispatch: &Dispatch, epoch: Epoch) -> Result<Vec<Pulse>, DispatchError> {
    let mut conn = dispatch.store().read().await?;
    Ok(silence::silent_attempts(&mut conn, epoch.executor).await?)
}

/// The executor of a live attempt is back.
async fn reachable(dispatch: &Dispatch, epoch: Epoch, task: TaskId, attempt: AttemptId) -> Result<(), DispatchError> {
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
    task: TaskId,
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

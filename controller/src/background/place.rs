//! Placement: gives queued tasks to the executors whose sessions this replica holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sculpt_core::{
    attempt::Fence,
    placement::{self, Class, Queued},
    task::{Event, Run},
};
use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId, TaskId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    room::Room,
    session::{Sessions, spec},
    store::{self, Connection, StoreError, attempts, claims, sessions::Epoch, task_state},
};

/// How soon a lost signal is repaired.
const POLL: Duration = Duration::from_secs(5);

/// Tasks that one transaction claims at most.
const CLAIMS: u32 = 64;

/// Tasks that one look passes over because they cannot be claimed: more than these are no longer the tasks' own fault.
const PASSED_OVER: usize = 1024;

/// Why tasks were not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A task could not be moved.
    #[error("claim a task")]
    Dispatch(#[from] DispatchError),
    /// Its spec cannot be made.
    #[error("make the spec of an attempt")]
    Spec(#[from] spec::SpecError),
    /// The database.
    #[error("read the queue")]
    Store(#[from] StoreError),
}

impl PlaceError {
    /// Whether it would be the same for any other task.
    fn concerns_all(&self) -> bool {
        match self {
            Self::Dispatch(DispatchError::Store(error)) | Self::Store(error) => match error {
                StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Interrupted(_) => true,
                StoreError::Nul(_)
                | StoreError::Conflict { .. }
                | StoreError::Unreadable { .. }
                | StoreError::Sqlx(_) => false,
            },
            Self::Dispatch(DispatchError::NotFound(_) | DispatchError::Revision { .. } | DispatchError::Illegal(_))
            | Self::Spec(_) => false,
        }
    }
}

/// Places tasks whenever the queue or the free slots change and there is room for what they bring, until `stop`.
pub async fn run(dispatch: Dispatch, sessions: Sessions, cluster: ClusterId, room: Room, stop: CancellationToken) {
    let (mut placed, mut access) = (dispatch.bus().placed(), dispatch.bus().access_changed());
    // Each is told once, for as long as it cannot be placed.
    let mut told = BTreeSet::new();
    loop {
        // What changes from here on is seen by the wait.
        placed.mark_unchanged();
        access.mark_unchanged();
        // What new work brings must have a place.
        let epochs = if room.closed().is_some() { Vec::new() } else { sessions.held() };
        let Some(result) = stop.run_until_cancelled(place_all(&dispatch, cluster, &epochs)).await else { return };
        match result {
            Ok(Placed { failed, .. }) => {
                for (task, error) in failed.iter().filter(|(task, _)| !told.contains(task)) {
                    tracing::error!(%task, error = error as &dyn std::error::Error, "a task cannot be placed");
                }
                told = failed.into_iter().map(|(task, _)| task).collect();
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "tasks were not placed"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = placed.changed() => {}
            // A pool takes others' tasks, or an executor is unlocked.
            _ = access.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Placed {
    /// How many tasks were placed.
    pub count: usize,
    /// Tasks that cannot be claimed, and why: they stay queued and hinder no other.
    pub failed: Vec<(TaskId, PlaceError)>,
}

/// Places what can be placed on these sessions' executors.
pub async fn place_all(dispatch: &Dispatch, cluster: ClusterId, sessions: &[Epoch]) -> Result<Placed, PlaceError> {
    let mut placed = Placed::default();
    if sessions.is_empty() {
        return Ok(placed);
    }
    loop {
        let sessions = sessions.to_vec();
        let without: Vec<TaskId> = placed.failed.iter().map(|(task, _)| *task).collect();
        let round = dispatch
            .store()
            .write(move |conn| Box::pin(async move { place_in(conn, cluster, &sessions, &without).await }))
            .await?;
        let over = round.moved.is_empty() && round.failed.is_empty();
        if !round.moved.is_empty() {
            sculpt_failpoints::pass("claim.committed");
        }
        placed.count += round.moved.len();
        for moved in &round.moved {
            dispatch.after_commit(moved);
        }
        placed.failed.extend(round.failed);
        if over || placed.failed.len() > PASSED_OVER {
            return Ok(placed);
        }
    }
}

/// What one transaction came to.
#[derive(Debug, Default)]
struct Round {
    moved: Vec<Moved>,
    failed: Vec<(TaskId, PlaceError)>,
}

async fn place_in(
    conn: &mut Connection,
    cluster: ClusterId,
    sessions: &[Epoch],
    without: &[TaskId],
) -> Result<Round, PlaceError> {
    let mut round = Round::default();
    // Before the executors are locked: with an empty queue nobody waits for anybody.
    let waiting = claims::waiting_classes(conn).await?;
    if waiting.is_empty() {
        return Ok(round);
    }
    let mut candidates = claims::candidates(conn, sessions).await?;
    // Only those that can take anything: in a fleet that is full each class would be held against each executor in vain.
    candidates.retain(|candidate| candidate.is_ready().is_ok());
    let fitting: BTreeMap<i64, Class> = waiting
        .into_iter()
        .filter(|(_, class)| candidates.iter().any(|candidate| candidate.fits(class).is_ok()))
        .collect();
    let free: u32 = candidates.iter().map(placement::Candidate::free).fold(0, u32::saturating_add);
    if fitting.is_empty() {
        return Ok(round);
    }
    let ids: Vec<i64> = fitting.keys().copied().collect();
    let next = claims::next(conn, &ids, without, free.min(CLAIMS)).await?;
    let queue: Vec<Queued> = next
        .into_iter()
        .filter_map(|(task, class)| fitting.get(&class).map(|class| Queued { task: task.0, class: class.clone() }))
        .collect();
    for (task, executor) in placement::place(&queue, &mut candidates) {
        let task = TaskId(task);
        let claimed =
            store::savepoint(conn, |conn| Box::pin(async move { claim(conn, cluster, task, executor).await })).await;
        match claimed {
            Ok(moved) => round.moved.extend(moved),
            Err(error) if error.concerns_all() => return Err(error),
            Err(error) => round.failed.push((task, error)),
        }
    }
    Ok(round)
}

async fn claim(
    conn: &mut Connection,
    cluster: ClusterId,
    task: TaskId,
    executor: Uuid,
) -> Result<Option<Moved>, PlaceError> {
    let Some(locked) = task_state::lock(conn, task).await? else { return Ok(None) };
    let Run::Queued { next } = locked.task.run else { return Ok(None) };
    let fence = Fence { number: next, id: AttemptId::fresh().0 };
    let order = claims::order(conn, task, ExecutorId(executor)).await?;
    let sealed = spec::build(cluster, task, fence, order)?;
    let event = Event::Claimed { fence, executor };
    let moved = Dispatch::move_locked(conn, &locked, &event, &Actor::system(), Duration::ZERO).await?;
    attempts::keep_spec(conn, AttemptId(fence.id), &sealed.body, &sealed.digest).await?;
    sculpt_failpoints::pass("claim.before_commit");
    Ok(Some(moved))
}

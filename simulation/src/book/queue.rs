//! Placement, silence, specs and publications, as the controller's background duties and calls do them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prost::Message as _;
use sculpt_controller::{
    background::liveness::silence,
    session::{Sessions, spec},
    store::{
        StoreError,
        claims::{Allowance, Order},
        sessions::Epoch,
    },
};
use sculpt_core::{
    attempt::{Attempt, AttemptState, Fence},
    liveness::REPLACEMENT_MARGIN,
    review::Commit,
    task::{Effect, Event, Intent, Task},
};
use sculpt_proto::{
    id::{AttemptId, ClusterId, TaskId},
    v1::{Command, TaskSpec, task_spec::Work},
};
use tonic::Status;
use uuid::Uuid;

use crate::{guard::Guard, world::World};

use super::{
    Book,
    rows::{AttemptRow, Next, Rows},
};

/// An executor heard of within this time may be given tasks.
const HEARD: i64 = 30;

impl Book {
    /// Gives queued tasks to the executors whose sessions `sessions` holds.
    pub async fn place(&self, sessions: &Sessions) -> Result<(), StoreError> {
        let held = sessions.held();
        let world = self.world.clone();
        let cluster = self.cluster;
        let effects = self.transact(move |rows| {
            let now = world.wall();
            let mut effects = Vec::new();
            for epoch in held {
                while let Some(task) = fitting(rows, epoch, now) {
                    let id = world.dice.uuid();
                    world.tell(format_args!("book: {task} is offered to {} as {id}", epoch.executor));
                    effects.extend(claim(rows, cluster, task, epoch, id, now));
                }
            }
            effects
        });
        let effects = effects.await?;
        // Placing again changes nothing: only the executors are told.
        let told: Vec<Effect> = effects.into_iter().filter(|effect| matches!(effect, Effect::Tell(_))).collect();
        self.after_commit(&told);
        Ok(())
    }

    /// Judges silence once.
    pub async fn judge(&self) -> Result<(), StoreError> {
        let world = self.world.clone();
        let effects = self.transact(move |rows| {
            let now = world.wall();
            let tasks: Vec<TaskId> = rows.tasks.keys().copied().collect();
            tasks.into_iter().flat_map(|task| judge(rows, task, now, &world)).collect::<Vec<_>>()
        });
        let effects = effects.await?;
        self.after_commit(&effects);
        Ok(())
    }

    /// The spec of an offered attempt.
    pub async fn hand_out(&self, epoch: Epoch, attempt: AttemptId) -> Result<Vec<u8>, Status> {
        let world = self.world.clone();
        let handed = self.transact(move |rows| {
            if !rows.holds(epoch) {
                return Err(Status::aborted("a newer session has this executor; end this one"));
            }
            let known = rows.attempts.get(&attempt).filter(|row| row.attempt.executor == epoch.executor.0);
            let Some(row) = known else { return Err(Status::not_found("there is no such attempt")) };
            if !rows.newest(attempt) || !matches!(row.attempt.state, AttemptState::Offered { .. }) {
                return Err(Status::failed_precondition("it may not begin any more"));
            }
            let (task, fence, body) = (row.task, row.attempt.fence, row.spec.body.clone());
            let moved = rows.apply(task, &Event::SpecRead { fence }, world.wall());
            moved.map(|_| body).map_err(|illegal| Status::failed_precondition(illegal.to_string()))
        });
        handed.await.map_err(|error| Status::unavailable(error.to_string()))?
    }

    /// Takes a head.
    pub async fn publish(&self, epoch: Epoch, attempt: AttemptId, head: String) -> Result<String, Status> {
        let witness = self.witness.clone();
        let world = self.world.clone();
        let unfenced = self.world.lacks(Guard::Fence);
        let published = self.transact(move |rows| {
            if !rows.holds(epoch) {
                return Err(Status::aborted("a newer session has this executor; end this one"));
            }
            let known = rows.attempts.get(&attempt).filter(|row| row.attempt.executor == epoch.executor.0);
            let Some(row) = known else { return Err(Status::not_found("there is no such attempt")) };
            let (task, fence) = (row.task, row.attempt.fence);
            let fence = rows.stolen_fence(task).filter(|_| unfenced).unwrap_or(fence);
            let event = Event::Published { fence, head: Commit(head.clone()) };
            if let Err(illegal) = rows.apply(task, &event, world.wall()) {
                // Its reports come in another stream and may be late.
                return Err(match illegal {
                    sculpt_core::task::IllegalTransition::Fenced { .. } => {
                        Status::failed_precondition(illegal.to_string())
                    }
                    _ => Status::unavailable(illegal.to_string()),
                });
            }
            witness.wrote(rows, epoch);
            witness.published(rows, attempt, &head);
            world.tell(format_args!("book: {attempt} published {head}"));
            if let Some(row) = rows.tasks.get_mut(&task) {
                row.published = Some((fence.number, head.clone()));
            }
            Ok(head)
        });
        published.await.map_err(|error| Status::unavailable(error.to_string()))?
    }
}

fn fitting(rows: &Rows, epoch: Epoch, now: DateTime<Utc>) -> Option<TaskId> {
    let executor = rows.executors.get(&epoch.executor).filter(|row| row.epoch == epoch.number)?;
    if executor.closed.is_some() || (now - executor.last_seen).num_seconds() >= HEARD {
        return None;
    }
    let used = rows.attempts.values().filter(|row| {
        row.attempt.executor == epoch.executor.0 && !row.released && !row.fenced && row.attempt.takes_slot()
    });
    if used.count() >= executor.slots as usize {
        return None;
    }
    let queued = rows
        .tasks
        .iter()
        .filter(|(_, row)| matches!(row.run, Next::Queued(_)) && row.intent == Intent::Run)
        .min_by_key(|(_, row)| row.number);
    queued.map(|(id, _)| *id)
}

fn claim(rows: &mut Rows, cluster: ClusterId, task: TaskId, epoch: Epoch, id: Uuid, now: DateTime<Utc>) -> Vec<Effect> {
    let Some(Next::Queued(number)) = rows.tasks.get(&task).map(|row| row.run) else { return Vec::new() };
    let Some(row) = rows.tasks.get(&task) else { return Vec::new() };
    let fence = Fence { number, id };
    let work = Work::Command(Command { argv: vec![Bytes::from_static(b"agent").into()] });
    let lost_after = row.policy.lost_after.to_std().unwrap_or_default();
    let body = TaskSpec {
        work: Some(work),
        on_lost: on_lost(row.policy.on_lost).into(),
        lost_after: Some(sculpt_proto::to_duration(lost_after)),
        ..TaskSpec::default()
    };
    let order = Order {
        number: row.number,
        title: String::new(),
        intent: None,
        branch: String::new(),
        spec: body.encode_to_vec(),
        agent: None,
        project: None,
        workspace_of: None,
        allowance: Allowance::default(),
    };
    let Ok(spec) = spec::build(cluster, task, fence, order) else { return Vec::new() };
    let attempt = Attempt::offered(fence, epoch.executor.0);
    let row = AttemptRow {
        task,
        attempt,
        offered_at: now,
        fenced: false,
        released: false,
        spec,
        through: 0,
        log: Vec::new(),
        log_final: None,
    };
    rows.attempts.insert(AttemptId(id), row);
    let executor = epoch.executor.0;
    rows.apply(task, &Event::Claimed { fence, executor }, now).unwrap_or_default()
}

fn on_lost(on_lost: sculpt_core::task::OnLost) -> sculpt_proto::v1::OnLost {
    match on_lost {
        sculpt_core::task::OnLost::Wait => sculpt_proto::v1::OnLost::Wait,
        sculpt_core::task::OnLost::Retry => sculpt_proto::v1::OnLost::Retry,
        sculpt_core::task::OnLost::Fail => sculpt_proto::v1::OnLost::Fail,
    }
}

fn judge(rows: &mut Rows, id: TaskId, now: DateTime<Utc>, world: &World) -> Vec<Effect> {
    let mut effects = Vec::new();
    // Marked silent first, then withdrawn or expired: each is a move of its own.
    while let Some(task) = rows.task(id)
        && let Some(attempt) = task.attempt()
        && let Some(executor) = rows.executors.get(&attempt.executor.into())
    {
        let due = silence(&task, executor.last_seen, now).map(|event| (event, now));
        let hasty = || world.lacks(Guard::Margin).then(|| without_margin(&task, now)).flatten();
        let Some((event, at)) = due.or_else(hasty) else { break };
        match rows.apply(id, &event, at) {
            Ok(after) => {
                world.tell(format_args!("book: {id}: {}", event.kind()));
                effects.extend(after);
            }
            Err(illegal) => {
                world.wrong(format_args!("silence of {id} was judged wrongly: {illegal}"));
                break;
            }
        }
    }
    effects
}

/// The newest attempt is given up as soon as its lease is over, by a clock that is ahead.
fn without_margin(task: &Task, now: DateTime<Utc>) -> Option<(Event, DateTime<Utc>)> {
    let ahead = now + REPLACEMENT_MARGIN;
    task.expires_at().filter(|at| ahead >= *at)?;
    Some((Event::Expired { fence: task.attempt()?.fence }, ahead))
}

//! What control sessions ask, answered as `store::sessions` and `session::census` of the controller do.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sculpt_controller::{
    bus::Bus,
    dispatch::DispatchError,
    session::{
        book::Book as SessionBook,
        census::{self, Comparison, GivenUp, Settled, Sorted},
        reports::{Answer, Report, ReportError},
        state::Census,
    },
    store::{
        StoreError,
        sessions::{Epoch, Introduction, OpenError, Phase, Said, Standing, Wish},
    },
};
use sculpt_core::{
    attempt::{AttemptState, Step},
    liveness::Liveness,
    outcome::Outcome,
    task::{Effect, Event, Intent},
};
use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId};

use super::{
    Book,
    rows::{AttemptRow, ExecutorRow, Rows},
};

impl SessionBook for Book {
    fn bus(&self) -> &Bus {
        &self.bus
    }

    async fn open(&self, who: Introduction) -> Result<Epoch, OpenError> {
        let world = self.world.clone();
        let id = who.id;
        let opened = self.transact(move |rows| {
            let now = world.wall();
            let row = rows.executors.entry(who.id).or_insert(ExecutorRow {
                epoch: 0,
                last_seen: now,
                closed: None,
                slots: who.slots,
            });
            row.epoch += 1;
            (row.last_seen, row.closed) = (now, None);
            row.epoch
        });
        let number = opened.await?;
        self.world.tell(format_args!("book: session {number} of {id}"));
        Ok(Epoch { executor: id, number })
    }

    async fn close(&self, epoch: Epoch, reason: String) -> Result<bool, StoreError> {
        self.world.tell(format_args!("book: session {} of {} ended: {reason}", epoch.number, epoch.executor));
        self.transact(move |rows| rows.holds(epoch)).await
    }

    async fn seen(&self, epoch: Epoch, closed: Option<String>) -> Result<bool, StoreError> {
        let world = self.world.clone();
        self.transact(move |rows| {
            let now = world.wall();
            rows.holding(epoch).map(|row| (row.last_seen, row.closed) = (now, closed)).is_some()
        })
        .await
    }

    async fn apply(&self, epoch: Epoch, report: Report) -> Result<Answer, ReportError> {
        self.apply_report(epoch, report).await
    }

    async fn reconcile(&self, cluster: ClusterId, epoch: Epoch, census: Census) -> Result<Comparison, DispatchError> {
        let world = &self.world;
        let standings = self.transact(|rows| standings(rows, epoch.executor)).await?;
        let Sorted { comparison, settled, given_up, .. } = census::sort(cluster, &census, standings);
        self.transact(|rows| settle(rows, epoch, &settled, world.wall())).await?;
        for given_up in given_up {
            let GivenUp { attempt, failure, .. } = &given_up;
            self.world.wrong(format_args!("{attempt} of {} is given up: {}", epoch.executor, failure.message));
            let effects = self.transact(|rows| give_up(rows, epoch, given_up, world.wall())).await?;
            self.after_commit(&effects);
        }
        self.transact(|rows| reachable(rows, epoch, world.wall())).await?;
        Ok(comparison)
    }

    async fn wishes(&self, executor: ExecutorId) -> Result<BTreeMap<AttemptId, Wish>, StoreError> {
        self.transact(move |rows| {
            let mine = rows.attempts.iter().filter(|(_, row)| row.attempt.executor == executor.0 && !row.released);
            mine.filter_map(|(id, row)| Some((*id, wish(rows, row)?))).collect()
        })
        .await
    }
}

impl Rows {
    /// Whether `epoch` is its executor's newest session.
    pub fn holds(&self, epoch: Epoch) -> bool {
        self.executors.get(&epoch.executor).is_some_and(|row| row.epoch == epoch.number || self.any_epoch)
    }

    fn holding(&mut self, epoch: Epoch) -> Option<&mut ExecutorRow> {
        let any = self.any_epoch;
        self.executors.get_mut(&epoch.executor).filter(|row| row.epoch == epoch.number || any)
    }
}

fn wish(rows: &Rows, row: &AttemptRow) -> Option<Wish> {
    let task = rows.tasks.get(&row.task)?;
    let phase = match (row.fenced, task.intent) {
        (true, _) => Phase::Fence,
        (false, Intent::Cancel) => Phase::Stop,
        (false, Intent::Hold) => Phase::Hold,
        (false, Intent::Run) => Phase::Run,
    };
    Some(Wish {
        task: row.task,
        task_number: task.number,
        number: row.attempt.fence.number,
        digest: row.spec.digest.clone(),
        phase,
        said: Said::default(),
        may_begin: matches!(row.attempt.state, AttemptState::Offered { .. }) && !row.fenced,
    })
}

fn standings(rows: &Rows, executor: ExecutorId) -> BTreeMap<AttemptId, Standing> {
    let mine = rows.attempts.iter().filter(|(_, row)| row.attempt.executor == executor.0);
    mine.map(|(id, row)| {
        let standing = Standing {
            task: row.task,
            ended: row.attempt.ended(),
            fenced: row.fenced,
            released: row.released,
            begun: row.begun(),
            here: true,
            reports: row.through,
        };
        (*id, standing)
    })
    .collect()
}

fn settle(rows: &mut Rows, epoch: Epoch, settled: &Settled, now: DateTime<Utc>) {
    if !rows.holds(epoch) {
        return;
    }
    for attempt in &settled.stopped {
        if let Some(row) = rows.attempts.get_mut(attempt) {
            row.end_fenced(now);
        }
    }
    for attempt in &settled.gone {
        if let Some(row) = rows.attempts.get_mut(attempt) {
            row.released |= row.attempt.ended();
        }
    }
}

fn give_up(rows: &mut Rows, epoch: Epoch, given_up: GivenUp, now: DateTime<Utc>) -> Vec<Effect> {
    let GivenUp { attempt, task, failure } = given_up;
    let Some(row) = rows.attempts.get(&attempt) else { return Vec::new() };
    if !rows.holds(epoch) || row.attempt.ended() || !rows.newest(attempt) {
        return Vec::new();
    }
    let outcome = Outcome::Failed(failure);
    let event = Event::Stepped { fence: row.attempt.fence, step: Step::Ended { outcome } };
    let effects = rows.apply(task, &event, now).unwrap_or_default();
    if let Some(row) = rows.attempts.get_mut(&attempt).filter(|row| row.attempt.ended()) {
        (row.fenced, row.released) = (true, true);
    }
    effects
}

fn reachable(rows: &mut Rows, epoch: Epoch, now: DateTime<Utc>) {
    if !rows.holds(epoch) {
        return;
    }
    let silent: Vec<_> = rows
        .attempts
        .iter()
        .filter(|(id, row)| {
            let live = row.attempt.executor == epoch.executor.0 && !row.attempt.ended() && rows.newest(**id);
            live && row.attempt.liveness != Liveness::Connected
        })
        .map(|(_, row)| (row.task, row.attempt.fence))
        .collect();
    for (task, fence) in silent {
        let event = Event::Liveness { fence, liveness: Liveness::Connected };
        // It was looked at a moment ago, and nothing came between.
        drop(rows.apply(task, &event, now));
    }
}

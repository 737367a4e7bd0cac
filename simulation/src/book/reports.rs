//! Reports, applied as `session::reports` of the controller does in the database.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sculpt_controller::{
    session::reports::{self, Answer, Report, ReportError, Ruling, Told},
    store::{attempts::Ledger, sessions::Epoch},
};
use sculpt_core::task::{Effect, Event};
use sculpt_proto::{executor::v1::report_ack::Refusal, id::AttemptId};

use super::{Book, rows::Rows};
use crate::guard::Guard;

impl Book {
    /// Applies a report and says what to answer.
    pub(super) async fn apply_report(&self, epoch: Epoch, report: Report) -> Result<Answer, ReportError> {
        let world = self.world.clone();
        let witness = self.witness.clone();
        let unfenced = self.world.lacks(Guard::Fence);
        let attempt = report.attempt;
        let done = self.transact(move |rows| {
            let done = apply(rows, epoch, &report, world.wall(), unfenced);
            if done.is_some() {
                witness.wrote(rows, epoch);
            }
            witness.reported(rows, &report);
            done
        });
        let Some((answer, effects)) = done.await? else { return Err(ReportError::Superseded) };
        if matches!(answer.refusal, Some((Refusal::Fenced, _))) {
            self.bus.tell(epoch.executor);
        }
        self.after_commit(&effects);
        self.world.tell(format_args!("book: report of {attempt}: through {} {:?}", answer.through, answer.refusal));
        Ok(answer)
    }
}

/// `None`: the session is not the newest.
fn apply(
    rows: &mut Rows,
    epoch: Epoch,
    report: &Report,
    now: DateTime<Utc>,
    unfenced: bool,
) -> Option<(Answer, Vec<Effect>)> {
    let attempt = report.attempt;
    let answer = |through, refusal| Some((Answer { attempt, through, refusal }, Vec::new()));
    if !rows.holds(epoch) {
        return None;
    }
    let known = rows.attempts.get(&attempt).filter(|row| row.attempt.executor == epoch.executor.0);
    let Some(row) = known else { return answer(0, Some((Refusal::UnknownAttempt, String::new()))) };
    let (task, fence) = (row.task, row.attempt.fence);
    let ledger = Ledger {
        fence,
        fenced: row.fenced && !unfenced,
        ended: row.attempt.ended(),
        through: row.through,
        log_bytes: row.log.len() as u64,
        head: row.attempt.head.as_ref().map(|head| head.0.clone()),
    };
    let fence = rows.stolen_fence(task).filter(|_| unfenced).unwrap_or(fence);
    let at = ago(row.offered_at, report.age, now);
    let mut effects = Vec::new();
    match reports::rule(report, &ledger) {
        Ruling::Again => return answer(ledger.through, None),
        Ruling::Refused(refusal, text) => return answer(ledger.through, Some((refusal, text))),
        Ruling::Fenced(text) => {
            if matches!(report.told, Told::Ended { .. })
                && let Some(row) = rows.attempts.get_mut(&attempt)
            {
                row.end_fenced(now);
            }
            return answer(report.sequence, Some((Refusal::Fenced, text)));
        }
        Ruling::Taken(None) => {}
        Ruling::Taken(Some(step)) => match rows.apply_late(task, &Event::Stepped { fence, step }, at, now) {
            Ok(after) => effects = after,
            Err(illegal) => {
                advance(rows, attempt, report.sequence);
                return answer(report.sequence, Some((Refusal::Illegal, illegal.to_string())));
            }
        },
    }
    advance(rows, attempt, report.sequence);
    if let (Told::Ended { log_length, .. }, Some(row)) = (&report.told, rows.attempts.get_mut(&attempt)) {
        row.log_final = Some(*log_length);
        row.release_complete();
    }
    Some((Answer { attempt, through: report.sequence, refusal: None }, effects))
}

fn advance(rows: &mut Rows, attempt: AttemptId, through: u64) {
    if let Some(row) = rows.attempts.get_mut(&attempt) {
        row.through = row.through.max(through);
    }
}

/// `age` ago, but not before the claim.
fn ago(offered: DateTime<Utc>, age: Duration, now: DateTime<Utc>) -> DateTime<Utc> {
    let then = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age)).unwrap_or(now);
    then.max(offered).min(now)
}

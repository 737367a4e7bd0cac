//! Every kind of task and of event, by name.
//!
//! A task is written as its state followed by what is not ordinary: `idle.h1.needed.lost` is an idle session whose published
//! head is `h1`, which waits for review, and whose executor is lost; `there` is what goes on in a surviving workspace.

use chrono::{DateTime, TimeDelta, Utc};
use sculpt_core::{
    attempt::{Attempt, AttemptState, Fence, Offer, Step},
    liveness::{DEFAULT_LOST_AFTER, Liveness, REPLACEMENT_MARGIN},
    outcome::{Cause, Exit, Failure, Outcome},
    review::{Commit, Review, Verdict},
    task::{Event, Intent, OnLost, Policy, Run, Surviving, Task},
    turn::{Ask, Turn, TurnStep},
};
use uuid::Uuid;

use crate::notation::named;

named!(
    /// Where the work of a task stands.
    State {
        Queued = "queued",
        Unread = "unread",
        Read = "read",
        Accepted = "accepted",
        Preparing = "preparing",
        Working = "working",
        Idle = "idle",
        Question = "question",
        Permission = "permission",
        Limited = "limited",
        Parked = "parked",
        Finalizing = "finalizing",
        Completed = "completed",
        Failed = "failed",
        Stopped = "stopped",
        Fenced = "fenced",
        Left = "left",
    }
);

named!(
    /// What can happen.
    What {
        Stop = "stop",
        Hold = "hold",
        Resume = "resume",
        Retry = "retry",
        RetryInWorkspace = "retry_there",
        Accept = "accept",
        Reject = "reject",
        Merge = "merge",
        Claim = "claim",
        Adopt = "adopt",
        SpecRead = "spec_read",
        Withdraw = "withdraw",
        StepAccepted = "accepted",
        StepPreparing = "preparing",
        StepRunning = "running",
        StepFinalizing = "finalizing",
        EndCompleted = "completed",
        EndFailed = "failed",
        EndCancelled = "cancelled",
        EndFenced = "fenced",
        EndLeft = "left",
        Began = "began",
        Over = "over",
        AskedQuestion = "question",
        AskedPermission = "permission",
        Limited = "limited",
        Parked = "parked",
        PublishH1 = "publish-h1",
        PublishH2 = "publish-h2",
        Connected = "connected",
        Unreachable = "unreachable",
        Lost = "lost",
        Expire = "expire",
        Replace = "replace",
    }
);

pub(crate) const EXECUTOR: Uuid = Uuid::from_u128(0xe);

/// When everything began.
pub(crate) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

/// When an attempt whose executor was last heard of at [`start`] may be replaced.
pub(crate) fn late() -> DateTime<Utc> {
    start() + DEFAULT_LOST_AFTER + REPLACEMENT_MARGIN
}

pub(crate) fn policy(on_lost: OnLost) -> Policy {
    Policy { on_lost, lost_after: DEFAULT_LOST_AFTER }
}

pub(crate) fn commit(name: &str) -> Commit {
    Commit(name.to_owned())
}

pub(crate) fn fence(number: u32) -> Fence {
    Fence { number, id: Uuid::from_u128(0xa00 + u128::from(number)) }
}

impl State {
    pub(crate) fn of(run: &Run) -> Self {
        match run {
            Run::Queued { .. } => Self::Queued,
            Run::Attempt(attempt) => Self::of_attempt(&attempt.state),
        }
    }

    pub(crate) fn of_attempt(state: &AttemptState) -> Self {
        match state {
            AttemptState::Offered { offer: Offer::Unread } => Self::Unread,
            AttemptState::Offered { offer: Offer::Read } => Self::Read,
            AttemptState::Accepted => Self::Accepted,
            AttemptState::Preparing => Self::Preparing,
            AttemptState::Running { turn, .. } => Self::of_turn(turn),
            AttemptState::Finalizing { .. } => Self::Finalizing,
            AttemptState::Ended { outcome, .. } => match outcome {
                Outcome::Completed => Self::Completed,
                Outcome::Failed(Failure { cause: Cause::ExecutorLost, .. }) => Self::Left,
                Outcome::Failed(_) => Self::Failed,
                Outcome::Cancelled => Self::Stopped,
                Outcome::Fenced => Self::Fenced,
            },
        }
    }

    pub(crate) fn of_turn(turn: &Turn) -> Self {
        match turn {
            Turn::Working => Self::Working,
            Turn::Idle => Self::Idle,
            Turn::Asking { ask: Ask::Question, .. } => Self::Question,
            Turn::Asking { ask: Ask::Permission, .. } => Self::Permission,
            Turn::Limited { .. } => Self::Limited,
            Turn::Parked => Self::Parked,
        }
    }

    /// An attempt in this state; `None` for a queued task.
    pub(crate) fn attempt(self) -> Option<AttemptState> {
        let ended = |outcome| AttemptState::Ended { outcome, at: start() };
        Some(match self {
            Self::Queued => return None,
            Self::Unread => AttemptState::Offered { offer: Offer::Unread },
            Self::Read => AttemptState::Offered { offer: Offer::Read },
            Self::Accepted => AttemptState::Accepted,
            Self::Preparing => AttemptState::Preparing,
            Self::Working | Self::Idle | Self::Question | Self::Permission | Self::Limited | Self::Parked => {
                AttemptState::Running { since: start(), turn: self.turn()? }
            }
            Self::Finalizing => AttemptState::Finalizing { exit: Some(Exit::Code(0)) },
            Self::Completed => ended(Outcome::Completed),
            Self::Failed => ended(Outcome::Failed(failure())),
            Self::Stopped => ended(Outcome::Cancelled),
            Self::Fenced => ended(Outcome::Fenced),
            Self::Left => ended(Outcome::Failed(left())),
        })
    }

    /// The session in this state; `None` where there is none.
    pub(crate) fn turn(self) -> Option<Turn> {
        let asking = |ask| Turn::Asking { ask, text: "may I?".into() };
        match self {
            Self::Working => Some(Turn::Working),
            Self::Idle => Some(Turn::Idle),
            Self::Question => Some(asking(Ask::Question)),
            Self::Permission => Some(asking(Ask::Permission)),
            Self::Limited => Some(Turn::Limited { until: Some(late()) }),
            Self::Parked => Some(Turn::Parked),
            Self::Queued
            | Self::Unread
            | Self::Read
            | Self::Accepted
            | Self::Preparing
            | Self::Finalizing
            | Self::Completed
            | Self::Failed
            | Self::Stopped
            | Self::Fenced
            | Self::Left => None,
        }
    }
}

impl What {
    /// The event on an attempt with `fence`; claims mint it.
    pub(crate) fn event(self, fence: Fence) -> Event {
        let step = |step| Event::Stepped { fence, step };
        let ended = |outcome| Event::Stepped { fence, step: Step::Ended { outcome } };
        let turn = |step| Event::Turned { fence, step };
        let published = |head| Event::Published { fence, head: commit(head) };
        let liveness = |liveness| Event::Liveness { fence, liveness };
        match self {
            Self::Stop => Event::Stop,
            Self::Hold => Event::Hold,
            Self::Resume => Event::Resume,
            Self::Retry => Event::Retry,
            Self::RetryInWorkspace => Event::RetryInWorkspace,
            Self::Accept => Event::Reviewed(Verdict::Accept { head: commit("h1") }),
            Self::Reject => Event::Reviewed(Verdict::Reject { reason: "no tests".into() }),
            Self::Merge => Event::Reviewed(Verdict::Merge { head: commit("h1"), commit: commit("m1") }),
            Self::Claim => Event::Claimed { fence, executor: EXECUTOR },
            Self::Adopt => Event::Adopted { fence, executor: EXECUTOR },
            Self::SpecRead => Event::SpecRead { fence },
            Self::Withdraw => Event::Withdrawn { fence },
            Self::StepAccepted => step(Step::Accepted),
            Self::StepPreparing => step(Step::Preparing),
            Self::StepRunning => step(Step::Running),
            Self::StepFinalizing => step(Step::Finalizing { exit: Some(Exit::Code(0)) }),
            Self::EndCompleted => ended(Outcome::Completed),
            Self::EndFailed => ended(Outcome::Failed(failure())),
            Self::EndCancelled => ended(Outcome::Cancelled),
            Self::EndFenced => ended(Outcome::Fenced),
            Self::EndLeft => ended(Outcome::Failed(left())),
            Self::Began => turn(TurnStep::Began),
            Self::Over => turn(TurnStep::Over),
            Self::AskedQuestion => turn(TurnStep::Asked { ask: Ask::Question, text: "may I?".into() }),
            Self::AskedPermission => turn(TurnStep::Asked { ask: Ask::Permission, text: "may I?".into() }),
            Self::Limited => turn(TurnStep::Limited { until: None }),
            Self::Parked => turn(TurnStep::Parked),
            Self::PublishH1 => published("h1"),
            Self::PublishH2 => published("h2"),
            Self::Connected => liveness(Liveness::Connected),
            Self::Unreachable => liveness(Liveness::Unreachable { since: start() }),
            Self::Lost => liveness(Liveness::Lost { since: start() }),
            Self::Expire => Event::Expired { fence },
            Self::Replace => Event::Replaced { fence },
        }
    }

    /// The name of `event`. No kind of event escapes this match, so none escapes the tables.
    pub(crate) fn of(event: &Event) -> Self {
        match event {
            Event::Stop => Self::Stop,
            Event::Hold => Self::Hold,
            Event::Resume => Self::Resume,
            Event::Retry => Self::Retry,
            Event::RetryInWorkspace => Self::RetryInWorkspace,
            Event::Reviewed(Verdict::Accept { .. }) => Self::Accept,
            Event::Reviewed(Verdict::Reject { .. }) => Self::Reject,
            Event::Reviewed(Verdict::Merge { .. }) => Self::Merge,
            Event::Claimed { .. } => Self::Claim,
            Event::Adopted { .. } => Self::Adopt,
            Event::SpecRead { .. } => Self::SpecRead,
            Event::Withdrawn { .. } => Self::Withdraw,
            Event::Stepped { step, .. } => Self::of_step(step),
            Event::Turned { step, .. } => Self::of_turn(step),
            Event::Published { head, .. } if head.0 == "h2" => Self::PublishH2,
            Event::Published { .. } => Self::PublishH1,
            Event::Liveness { liveness: Liveness::Connected, .. } => Self::Connected,
            Event::Liveness { liveness: Liveness::Unreachable { .. }, .. } => Self::Unreachable,
            Event::Liveness { liveness: Liveness::Lost { .. }, .. } => Self::Lost,
            Event::Expired { .. } => Self::Expire,
            Event::Replaced { .. } => Self::Replace,
        }
    }

    fn of_step(step: &Step) -> Self {
        match step {
            Step::Accepted => Self::StepAccepted,
            Step::Preparing => Self::StepPreparing,
            Step::Running => Self::StepRunning,
            Step::Finalizing { .. } => Self::StepFinalizing,
            Step::Ended { outcome: Outcome::Completed } => Self::EndCompleted,
            Step::Ended { outcome: Outcome::Failed(Failure { cause: Cause::ExecutorLost, .. }) } => Self::EndLeft,
            Step::Ended { outcome: Outcome::Failed(_) } => Self::EndFailed,
            Step::Ended { outcome: Outcome::Cancelled } => Self::EndCancelled,
            Step::Ended { outcome: Outcome::Fenced } => Self::EndFenced,
        }
    }

    fn of_turn(step: &TurnStep) -> Self {
        match step {
            TurnStep::Began => Self::Began,
            TurnStep::Over => Self::Over,
            TurnStep::Asked { ask: Ask::Question, .. } => Self::AskedQuestion,
            TurnStep::Asked { ask: Ask::Permission, .. } => Self::AskedPermission,
            TurnStep::Limited { .. } => Self::Limited,
            TurnStep::Parked => Self::Parked,
        }
    }
}

pub(crate) fn failure() -> Failure {
    Failure { cause: Cause::AgentExit, message: "the agent returned 1".into() }
}

/// What a shim ends an attempt with whose lease is over.
pub(crate) fn left() -> Failure {
    Failure { cause: Cause::ExecutorLost, message: "nobody was heard of".into() }
}

/// The task that `name` describes.
pub(crate) fn build(name: &str) -> Task {
    let mut marks = name.split('.');
    let (state, next) = match marks.next().unwrap_or_default() {
        "queued#2" => (State::Queued, 2),
        state => (State::read(state), 1),
    };
    let mut task = Task::new(policy(OnLost::Wait));
    let mut attempt = Attempt::offered(fence(1), EXECUTOR);
    for mark in marks {
        let head = attempt.head.clone();
        match mark {
            "hold" => task.intent = Intent::Hold,
            "cancel" => task.intent = Intent::Cancel,
            "h1" | "h2" => attempt.head = Some(commit(mark)),
            "needed" => task.review = Review::Needed { head: head.unwrap() },
            "accepted" => task.review = Review::Accepted { head: head.unwrap() },
            "merged" => task.review = Review::Merged { commit: commit("m1") },
            "rejected" => task.review = Review::Rejected { reason: "no tests".into() },
            "unreachable" => attempt.liveness = Liveness::Unreachable { since: start() },
            "lost" => attempt.liveness = Liveness::Lost { since: start() },
            "there" => task.surviving = Some(Surviving { attempt: fence(1).id, executor: EXECUTOR }),
            other => panic!("no such mark: {other}"),
        }
    }
    task.run = match state.attempt() {
        Some(state) => Run::Attempt(Attempt { state, ..attempt }),
        None => Run::Queued { next },
    };
    task
}

/// The name of `task`; what [`build`] reads.
pub(crate) fn describe(task: &Task) -> String {
    let mut name = State::of(&task.run).text().to_owned();
    match &task.run {
        Run::Queued { next: 1 } => {}
        Run::Queued { next } => name += &format!("#{next}"),
        Run::Attempt(attempt) => name += &attempt.head.as_ref().map(|head| format!(".{}", head.0)).unwrap_or_default(),
    }
    name += match task.intent {
        Intent::Run => "",
        Intent::Hold => ".hold",
        Intent::Cancel => ".cancel",
    };
    name += match &task.review {
        Review::None => "",
        Review::Needed { .. } => ".needed",
        Review::Accepted { .. } => ".accepted",
        Review::Merged { .. } => ".merged",
        Review::Rejected { .. } => ".rejected",
    };
    name += match task.attempt().map(|attempt| attempt.liveness) {
        None | Some(Liveness::Connected) => "",
        Some(Liveness::Unreachable { .. }) => ".unreachable",
        Some(Liveness::Lost { .. }) => ".lost",
    };
    name += if task.surviving.is_some() { ".there" } else { "" };
    name
}

/// A moment at which `event` may happen after everything that happened at [`start`].
pub(crate) fn soon() -> DateTime<Utc> {
    start() + TimeDelta::seconds(1)
}

#[test]
fn every_name_is_of_its_own_kind() {
    for state in State::ALL {
        assert_eq!(State::of(&build(state.text()).run), *state);
    }
    for what in What::ALL {
        assert_eq!(What::of(&what.event(fence(1))), *what);
    }
    for name in
        ["queued#2.hold", "idle.h1.needed", "limited.h2.cancel.merged.lost", "failed.h1.rejected", "queued#2.there"]
    {
        assert_eq!(describe(&build(name)), name);
    }
}

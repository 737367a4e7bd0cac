//! What the journal keeps of an event beyond its kind.

use sculpt_core::{
    attempt::Step,
    liveness::Liveness,
    outcome::{Exit, Outcome},
    review::Verdict,
    task::Event,
    turn::{Ask, TurnStep},
};
use serde_json::{Value, json};

use crate::dispatch::Actor;

/// What the journal keeps of `event` beyond its kind.
pub(super) fn details(event: &Event, by: &Actor) -> Value {
    let mut data = match event {
        Event::Stop
        | Event::Hold
        | Event::Resume
        | Event::Retry
        | Event::Claimed { .. }
        | Event::Adopted { .. }
        | Event::SpecRead { .. }
        | Event::Withdrawn { .. }
        | Event::Expired { .. }
        | Event::Replaced { .. } => json!({}),
        Event::RetryInWorkspace => json!({ "in_workspace": true }),
        Event::Reviewed(Verdict::Accept { head }) => json!({ "head": head }),
        Event::Reviewed(Verdict::Reject { reason }) => json!({ "reason": reason }),
        Event::Reviewed(Verdict::Merge { head, commit }) => json!({ "head": head, "commit": commit }),
        Event::Published { head, .. } => json!({ "head": head }),
        Event::Liveness { liveness, .. } => match liveness {
            Liveness::Connected => json!({}),
            Liveness::Unreachable { since } | Liveness::Lost { since } => json!({ "since": since }),
        },
        Event::Stepped { step, .. } => match step {
            Step::Accepted | Step::Preparing | Step::Running => json!({}),
            Step::Finalizing { exit } => match exit {
                Some(Exit::Code(code)) => json!({ "exit_code": code }),
                Some(Exit::Signal(signal)) => json!({ "exit_signal": signal }),
                None => json!({}),
            },
            Step::Ended { outcome } => match outcome {
                Outcome::Completed | Outcome::Cancelled | Outcome::Fenced => json!({ "outcome": outcome.as_str() }),
                Outcome::Failed(failure) => {
                    json!({ "outcome": "failed", "cause": failure.cause.as_str(), "message": failure.message })
                }
            },
        },
        Event::Turned { step, .. } => match step {
            TurnStep::Began | TurnStep::Over | TurnStep::Parked => json!({}),
            TurnStep::Asked { ask, text } => json!({ "ask": ask_name(*ask), "text": text }),
            TurnStep::Limited { until } => json!({ "until": until }),
        },
    };
    if !by.reason.is_empty()
        && let Value::Object(map) = &mut data
    {
        map.entry("reason").or_insert_with(|| Value::String(by.reason.clone()));
    }
    data
}

/// The name of what an agent asks for.
pub(super) fn ask_name(ask: Ask) -> &'static str {
    match ask {
        Ask::Question => "question",
        Ask::Permission => "permission",
    }
}

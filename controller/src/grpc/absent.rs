//! Why a task whose executor stays away does not go on, and what will come of it.

use chrono::{DateTime, Utc};
use sculpt_core::{
    liveness::{lost_at, replaceable_at},
    task::{OnLost, Policy},
};
use sculpt_proto::{timestamp, v1};

/// What is known of an attempt whose executor is silent.
pub(super) struct Absent<'a> {
    /// The executor's name.
    pub(super) executor: &'a str,
    /// When it was last heard of.
    pub(super) since: DateTime<Utc>,
    /// Whether it is away for longer than the task allows.
    pub(super) lost: bool,
    /// Whether a person has stopped the task.
    pub(super) stopped: bool,
    /// Whether its agent has answered, so that nothing starts in its place.
    pub(super) answered: bool,
    /// What the task says about it.
    pub(super) policy: Policy,
}

impl From<Absent<'_>> for v1::Waiting {
    fn from(absent: Absent<'_>) -> Self {
        let Absent { executor, since, lost, stopped, answered, policy: Policy { on_lost, lost_after } } = absent;
        let (gone, replaceable) = (lost_at(since, lost_after), replaceable_at(since, lost_after));
        let ends = if on_lost == OnLost::Fail { gone } else { replaceable };
        let (what, at) = match (stopped, answered, on_lost) {
            (true, _, _) => {
                (format!("it is being stopped: it ends when the executor is back, or at {}", clock(ends)), Some(ends))
            }
            (false, true, OnLost::Wait) => {
                ("it has answered, and takes messages again when the executor is back".to_owned(), None)
            }
            (false, true, OnLost::Retry | OnLost::Fail) => {
                let text = format!(
                    "it has answered; its agent is given up at {}, unless the executor is back before",
                    clock(ends)
                );
                (text, Some(ends))
            }
            (false, false, OnLost::Wait) if lost => {
                (format!("it goes on when the executor is back, and can be retried from {}", clock(ends)), Some(ends))
            }
            (false, false, OnLost::Wait) => {
                (format!("it goes on when the executor is back, and is lost at {}", clock(gone)), Some(gone))
            }
            (false, false, OnLost::Retry) => {
                (format!("it starts anew at {}, unless the executor is back before", clock(ends)), Some(ends))
            }
            (false, false, OnLost::Fail) => {
                (format!("it fails at {}, unless the executor is back before", clock(ends)), Some(ends))
            }
        };
        let text = format!("executor {executor} was last heard of at {}; {what}", clock(since));
        Self { reason: v1::waiting::Reason::Unreachable.into(), text, not_before: at.map(timestamp) }
    }
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn says_what_will_come_of_it_and_when() {
        let since = DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default();
        let waiting = |on_lost, lost, stopped, answered| {
            let policy = Policy { on_lost, lost_after: TimeDelta::minutes(5) };
            v1::Waiting::from(Absent { executor: "one", since, lost, stopped, answered, policy })
        };
        const NO: bool = false;
        for (on_lost, lost, stopped, answered, what) in [
            (OnLost::Wait, NO, NO, NO, "it goes on when the executor is back, and is lost at 2023-11-14 22:18:20 UTC"),
            (
                OnLost::Wait,
                true,
                NO,
                NO,
                "it goes on when the executor is back, and can be retried from 2023-11-14 22:19:20 UTC",
            ),
            (
                OnLost::Wait,
                true,
                true,
                NO,
                "it is being stopped: it ends when the executor is back, or at 2023-11-14 22:19:20 UTC",
            ),
            (OnLost::Wait, NO, NO, true, "it has answered, and takes messages again when the executor is back"),
            (OnLost::Wait, true, NO, true, "it has answered, and takes messages again when the executor is back"),
            (
                OnLost::Retry,
                true,
                NO,
                NO,
                "it starts anew at 2023-11-14 22:19:20 UTC, unless the executor is back before",
            ),
            (
                OnLost::Retry,
                true,
                true,
                NO,
                "it is being stopped: it ends when the executor is back, or at 2023-11-14 22:19:20 UTC",
            ),
            (
                OnLost::Retry,
                true,
                NO,
                true,
                "it has answered; its agent is given up at 2023-11-14 22:19:20 UTC, unless the executor is back before",
            ),
            (
                OnLost::Retry,
                true,
                true,
                true,
                "it is being stopped: it ends when the executor is back, or at 2023-11-14 22:19:20 UTC",
            ),
            (OnLost::Fail, NO, NO, NO, "it fails at 2023-11-14 22:18:20 UTC, unless the executor is back before"),
            (
                OnLost::Fail,
                NO,
                NO,
                true,
                "it has answered; its agent is given up at 2023-11-14 22:18:20 UTC, unless the executor is back before",
            ),
            (
                OnLost::Fail,
                NO,
                true,
                NO,
                "it is being stopped: it ends when the executor is back, or at 2023-11-14 22:18:20 UTC",
            ),
        ] {
            let expected = format!("executor one was last heard of at 2023-11-14 22:13:20 UTC; {what}");
            assert_eq!(waiting(on_lost, lost, stopped, answered).text, expected);
        }
    }
}

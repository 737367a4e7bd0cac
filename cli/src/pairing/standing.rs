//! PURE: whether somebody can sit beside a task's agent now, later, or never.

use sculpt_proto::v1::{Attempt, Task, TaskState};

use crate::{
    exit::{Exit, state_name},
    output::tasks::current,
};

/// For what the agent is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its terminal.
    Terminal,
    /// Its workspace.
    Workspace,
}

/// How a task stands for somebody who comes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing<'a> {
    /// Its agent is there.
    Ready(&'a Attempt),
    /// Not yet, for this reason.
    Later(String),
    /// Not any more, or not at all.
    Never(String),
}

/// How it stands.
pub(crate) fn standing(task: &Task, need: Need) -> Standing<'_> {
    let state = state_name(task.state()).replace('_', " ");
    if need == Need::Terminal && task.spec.as_ref().is_some_and(|spec| !spec.tty) {
        return Standing::Never("it was started with --no-tty and has no terminal".to_owned());
    }
    let attempt = current(task);
    if let Some(attempt) = attempt.filter(|attempt| attempt.state == "running") {
        return Standing::Ready(attempt);
    }
    let gone = match need {
        Need::Terminal => "its terminal is gone",
        Need::Workspace => "nobody works in its workspace any more",
    };
    if attempt.is_some_and(|attempt| attempt.state == "finalizing") {
        return Standing::Never(format!("its agent has just ended, and {gone}"));
    }
    if Exit::of_state(task.state()).is_some() && !task.live {
        return Standing::Never(format!("it is {state}, and {gone}"));
    }
    let why = task.waiting.as_ref().map(|waiting| format!(": {}", waiting.text)).unwrap_or_default();
    Standing::Later(format!("it is {state}{why}"))
}

/// What there is to do about a task beside which nobody can sit.
pub(crate) fn afterwards(task: &Task) -> Vec<String> {
    let number = task.number;
    let mut advice = vec![format!("`sculpt logs {number}` prints what it wrote")];
    if !task.head.is_empty() && !task.project_removed {
        advice.push(format!("`sculpt fetch {number}` brings what it published"));
    }
    if matches!(task.state(), TaskState::Failed | TaskState::Cancelled) && !task.live {
        advice.push(format!(
            "`sculpt retry {number} --in-workspace` runs it again where it stopped, with what it left there"
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::{TaskSpec, Waiting};

    use super::*;

    fn task(state: TaskState, attempt: &str, tty: bool) -> Task {
        let attempts = if attempt.is_empty() {
            Vec::new()
        } else {
            vec![Attempt { number: 1, state: attempt.to_owned(), ..Attempt::default() }]
        };
        let spec = TaskSpec { tty, ..TaskSpec::default() };
        let waiting = (state == TaskState::Queued).then(|| Waiting { text: "no slot".into(), ..Waiting::default() });
        Task { state: state.into(), attempts, spec: Some(spec), waiting, ..Task::default() }
    }

    #[test]
    fn who_comes_learns_when() {
        use Need::{Terminal, Workspace};
        use TaskState::{Completed, Idle, Lost, NeedsReview, Queued, Running, Starting};
        for (task, need, said) in [
            (task(Running, "running", true), Terminal, "ready"),
            (task(Idle, "running", true), Terminal, "ready"),
            (task(Lost, "running", true), Terminal, "ready"),
            (task(Running, "running", false), Workspace, "ready"),
            (task(Running, "running", false), Terminal, "never: it was started with --no-tty and has no terminal"),
            (task(Queued, "", false), Terminal, "never: it was started with --no-tty and has no terminal"),
            (task(Queued, "", true), Terminal, "later: it is queued: no slot"),
            (task(Queued, "ended", true), Terminal, "later: it is queued: no slot"),
            (task(Starting, "preparing", true), Workspace, "later: it is starting"),
            (task(Running, "finalizing", true), Terminal, "never: its agent has just ended, and its terminal is gone"),
            (task(NeedsReview, "ended", true), Terminal, "never: it is needs review, and its terminal is gone"),
            (
                task(Completed, "ended", true),
                Workspace,
                "never: it is completed, and nobody works in its workspace any more",
            ),
        ] {
            let heard = match standing(&task, need) {
                Standing::Ready(attempt) => {
                    assert_eq!(attempt.number, 1);
                    "ready".to_owned()
                }
                Standing::Later(why) => format!("later: {why}"),
                Standing::Never(why) => format!("never: {why}"),
            };
            assert_eq!(heard, said);
        }
    }

    #[test]
    fn who_comes_too_late_learns_what_is_left() {
        use TaskState::{Completed, Failed, Running};
        for (state, head, live, verbs) in [
            (Running, "", true, &["logs"][..]),
            (Completed, "", false, &["logs"]),
            (Completed, "ab", false, &["logs", "fetch"]),
            (Failed, "", true, &["logs"]),
            (Failed, "ab", false, &["logs", "fetch", "retry"]),
        ] {
            let task = Task { number: 17, head: head.into(), live, ..task(state, "ended", true) };
            let advice = afterwards(&task);
            let named =
                advice.iter().zip(verbs).all(|(advice, verb)| advice.starts_with(&format!("`sculpt {verb} 17")));
            assert!(advice.len() == verbs.len() && named, "{state:?}: {advice:?}");
        }
    }
}

//! PURE: where an attempt goes on, from its journal and from what is found of its shim; and what became of it.

use std::time::Duration;

use crate::{
    report::{Cause, Exit, Failure, Outcome, Step},
    session::Wish,
    shim::{self, EndedBy, ExitRecord},
};

/// What is found of an attempt's shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It answers.
    Present,
    /// It recorded the end.
    Recorded(Box<ExitRecord>),
    /// It is gone without a record.
    Vanished,
    /// It was never started.
    Never,
    /// Nothing is: the attempt's directory has been removed.
    Removed,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Make the workspace and start the agent.
    Prepare,
    /// Follow the living shim.
    Attend,
    /// Gather, publish, end.
    Finish(End),
    /// Everything is reported.
    Rest,
}

/// How the agent's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a record.
    Recorded(Box<ExitRecord>),
    /// Its shim died, and it was ended with it.
    Vanished,
    /// The host was rebooted under it.
    Rebooted,
    /// Its directory was removed, and nothing of it is known any more.
    Removed,
}

/// Where an attempt goes on. `same_boot`: its last step was in this boot of the host.
pub(super) fn next(last: Option<&Step>, found: Found, same_boot: bool) -> Next {
    let gone = || if same_boot { End::Vanished } else { End::Rebooted };
    match (last, found) {
        (Some(Step::Ended(_)), _) => Next::Rest,
        (_, Found::Removed) => Next::Finish(End::Removed),
        (_, Found::Recorded(record)) => Next::Finish(End::Recorded(record)),
        (_, Found::Vanished) => Next::Finish(gone()),
        (Some(Step::Finalizing { .. }), Found::Present | Found::Never) => Next::Finish(gone()),
        (
            None
            | Some(
                Step::Accepted
                | Step::Preparing
                | Step::Running { .. }
                | Step::Note { .. }
                | Step::Milestone { .. }
                | Step::Seat(_),
            ),
            Found::Present,
        ) => Next::Attend,
        (Some(Step::Running { .. }), Found::Never) => Next::Finish(gone()),
        (
            None | Some(Step::Accepted | Step::Preparing | Step::Note { .. } | Step::Milestone { .. } | Step::Seat(_)),
            Found::Never,
        ) => Next::Prepare,
    }
}

/// The end of the main process as it is reported.
pub(super) fn exit(end: &End) -> Exit {
    match end {
        End::Recorded(record) => match record.outcome {
            shim::Outcome::Code(code) => Exit { code: Some(code), signal: None },
            shim::Outcome::Signal(signal) => Exit { code: None, signal: Some(signal) },
            shim::Outcome::NotStarted(_) => Exit::default(),
        },
        End::Vanished | End::Rebooted | End::Removed => Exit::default(),
    }
}

/// What an attempt has come to whose directory is gone.
const REMOVED: &str = "the attempt's directory on the executor was removed while it ran, perhaps by its agent; \
                       what the agent made stays in its workspace";

/// What became of an attempt whose work could be handed over. `agent` names it for people.
pub(super) fn judge(end: &End, wish: Wish, agent: &str, limit: Option<Duration>) -> Outcome {
    let failed = |cause, message: String| Outcome::Failed(Failure::new(cause, message));
    if wish == Wish::Fence {
        return Outcome::Fenced;
    }
    let record = match end {
        End::Recorded(record) => record,
        End::Removed if wish == Wish::Stop => return Outcome::Cancelled,
        End::Removed => return failed(Cause::Internal, REMOVED.to_owned()),
        End::Rebooted => {
            return failed(Cause::Interrupted, "the host was rebooted while the agent ran; retry the task".to_owned());
        }
        End::Vanished if wish == Wish::Stop => return Outcome::Cancelled,
        End::Vanished => {
            let text = "the process that watches the agent was killed, and the agent was ended with it; retry the task";
            return failed(Cause::Internal, text.to_owned());
        }
    };
    if let shim::Outcome::NotStarted(why) = &record.outcome {
        return failed(Cause::Setup, format!("the agent could not be started: {why}"));
    }
    match record.ended_by {
        EndedBy::Stop => Outcome::Cancelled,
        EndedBy::Timeout => {
            let limit = limit.map(|limit| format!(" of {}", humantime::format_duration(limit))).unwrap_or_default();
            failed(Cause::Timeout, format!("it ran longer than its limit{limit}"))
        }
        EndedBy::Lease => {
            let text =
                "the executor did not reach the controller for longer than the task allows, so its agent was ended";
            failed(Cause::ExecutorLost, text.to_owned())
        }
        EndedBy::Removed => failed(Cause::Internal, REMOVED.to_owned()),
        EndedBy::Signal => {
            let text = "somebody ended the process that watches the agent, and the agent with it; retry the task";
            failed(Cause::Internal, text.to_owned())
        }
        EndedBy::Host => {
            failed(Cause::Interrupted, "the host was shut down while the agent ran; retry the task".into())
        }
        EndedBy::Itself => match record.outcome {
            shim::Outcome::Code(0) => Outcome::Completed,
            _ if record.out_of_memory => failed(Cause::Oom, "the kernel ended it for lack of memory".to_owned()),
            shim::Outcome::Code(code) => failed(Cause::AgentExit, format!("{agent:?} exited with code {code}")),
            shim::Outcome::Signal(signal) => {
                failed(Cause::AgentExit, format!("{agent:?} was ended by signal {signal}{}", signal_name(signal)))
            }
            shim::Outcome::NotStarted(_) => Outcome::Completed,
        },
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

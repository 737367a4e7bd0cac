//! What is asked of tasks that are there.

use std::time::Duration;

use clap::Args;

use super::value::{named, span, state, whole};

pub(super) const EXIT_CODES: &str = "Exit codes, for several tasks the first that is not 0 in the order given:\n  \
    0 done  1 failed  3 waiting for an answer  4 cancelled  5 rejected  75 limited\n  \
    7 --for a state that will not come   124 --timeout ran out\n\n\
    A lost task goes on when its executor is back, starts anew or fails, as its --on-lost says, and is waited for; \
    `--for lost` returns as soon as it is lost. Each task is told when its wait ends.";

#[derive(Args)]
pub(crate) struct LsArgs {
    /// Only tasks in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state())]
    pub(crate) states: Vec<String>,
    /// Only tasks of this project
    #[arg(long, value_name = "PROJECT", value_parser = named)]
    pub(crate) project: Option<String>,
    /// Only tasks that you created
    #[arg(long)]
    pub(crate) mine: bool,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = whole::<u32>(1, u32::MAX.into()))]
    pub(crate) limit: u32,
    /// Go on showing what changes until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args)]
pub(crate) struct TaskArg {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
}

#[derive(Args)]
pub(crate) struct TasksArg {
    /// Numbers, uuids, or unique prefixes of uuids
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
}

#[derive(Args)]
pub(crate) struct RetryArgs {
    /// Numbers, uuids, or unique prefixes of uuids
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// In the workspace that the last attempt left, instead of a fresh clone
    #[arg(long)]
    pub(crate) in_workspace: bool,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Numbers, uuids, or unique prefixes of uuids
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// Wait for this state instead of the end of the turn
    #[arg(long = "for", value_name = "STATE", value_parser = state())]
    pub(crate) until: Option<String>,
    /// Give up after this time, with exit code 124
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Go on until the log is complete
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// An attempt other than the current one
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, u32::MAX.into()))]
    pub(crate) attempt: Option<u32>,
    /// Start at this byte
    #[arg(long, value_name = "BYTE", default_value_t = 0, value_parser = whole::<u64>(0, i64::MAX))]
    pub(crate) from_offset: u64,
    /// Text alone, without colours and other control sequences
    #[arg(long)]
    pub(crate) plain: bool,
    /// How long the rest of an ended attempt's log may stand still: an executor that sends nothing for so long is out of
    /// reach
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span, hide = true)]
    pub(crate) patience: Duration,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// The files and how much changed in each
    #[arg(long)]
    pub(crate) stat: bool,
}

#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Only this task's branch becomes a local branch
    #[arg(value_name = "TASK")]
    pub(crate) task: Option<String>,
}

//! `sculpt up` and `sculpt run`, as they are typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use sculpt_proto::v1::OnLost;

use super::value::{named, on_lost, pair, span, variable, whole};

pub(super) const RUN_EXAMPLES: &str = "Examples:\n  sculpt run \"add a test for the parser\"\n  \
    sculpt run -- cargo test --workspace\n  sculpt run --agent reviewer --base main < prompt.md\n  \
    id=$(sculpt run -q -d --no-repo -- sh -c 'seq 1 10'); sculpt wait \"$id\"\n\n\
    Exit codes:\n  0 done  1 failed  3 waiting for an answer  4 cancelled  5 rejected  75 limited\n  \
    130 let go of by Ctrl-C: the task goes on";

#[derive(Args)]
pub(crate) struct UpArgs {
    /// Where everything is kept [default: /var/lib/sculpt for root, else ~/.local/share/sculpt, or below
    /// $XDG_DATA_HOME]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address for the command line and git, on loopback [default: 127.0.0.1:7433, else a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Attempts that run at once on this machine
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 10_000))]
    pub(crate) slots: Option<u32>,
    /// Keep attempts apart: each under an account of its own as root, else in a sandbox of bubblewrap
    #[arg(long)]
    pub(crate) separate: bool,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// What the agent is to do; `-`, or nothing with a pipe, reads standard input
    pub(crate) prompt: Option<String>,
    /// Agent that gets the prompt, as the executors' configuration names it
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub(crate) agent: Option<String>,
    /// Commit to start from: branch, tag or id [default: HEAD]
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    /// Start from HEAD with the changes that are not committed; index and files stay as they are
    #[arg(long, conflicts_with = "base")]
    pub(crate) include_changes: bool,
    /// A project that the controller knows, by name or uuid
    #[arg(long, value_name = "PROJECT", value_parser = named)]
    pub(crate) project: Option<String>,
    /// Shown in lists
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// What the task is for, in one line, for those who sit down at its terminal [default: the title]
    #[arg(long, value_name = "TEXT")]
    pub(crate) intent: Option<String>,
    /// A label of the task, to find it again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// A label that the executor must have
    #[arg(long = "require", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) requirements: Vec<(String, String)>,
    /// Pool of executors
    #[arg(long, value_parser = named)]
    pub(crate) pool: Option<String>,
    /// Higher starts earlier, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<i32>(-1000, 1000))]
    pub(crate) priority: Option<i32>,
    /// A variable for the agent; without a value, the one of this shell
    #[arg(long = "env", value_name = "KEY[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Stop the agent after this time, such as 90s or "2h 30m"
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// When the executor stays away for --lost-after: wait for it, retry in another attempt, or fail; of a task that
    /// failed so the agent ends when the executor is back [default: wait]
    #[arg(long, value_name = "wait|retry|fail", value_parser = on_lost(), hide_possible_values = true)]
    pub(crate) on_lost: Option<OnLost>,
    /// Call the task lost when its executor was not heard of for this time, such as 5m; not before it counts as away,
    /// which takes 30s [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) lost_after: Option<Duration>,
    /// Pipes instead of a terminal: exact bytes, nothing to attach to
    #[arg(long)]
    pub(crate) no_tty: bool,
    /// An empty scratch directory instead of a repository
    #[arg(long, conflicts_with_all = ["base", "include_changes", "project", "commit"])]
    pub(crate) no_repo: bool,
    /// Commit what a command leaves uncommitted
    #[arg(long)]
    pub(crate) commit: bool,
    /// Return at once instead of following the task
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Print the number of the task and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A command to run instead of an agent
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

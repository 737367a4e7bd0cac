//! `sculpt milestone`, as it is typed.

use clap::Args;

pub(super) const MILESTONE: &str = "Within a task's workspace a milestone needs no task and no login: the agent says it of its own task.\nWhat is said there is a \
claim of whoever runs there; with a task it is said under your name.\nA milestone is one line of up to 500 characters, an intent one of up to 200.\n\nExamples:\n  \
sculpt milestone \"the parser passes its tests\"\n  sculpt milestone 17 \"reviewed the plan\"\n  \
sculpt milestone 17 --intent \"parse dates without a locale\"";

#[derive(Args)]
pub(crate) struct MilestoneArgs {
    /// The task, unless you are within its workspace, and how far it has come
    #[arg(value_name = "[TASK] TEXT", required_unless_present = "intent", num_args = 1..=2)]
    pub(crate) words: Vec<String>,
    /// Say in one line what the task is for; an empty one is its title again
    #[arg(long, value_name = "TEXT")]
    pub(crate) intent: Option<String>,
}

//! `sculpt executor`, as it is typed.

use clap::{Args, Subcommand};

use super::value::named;
use crate::commands::{ExecutorRmArgs, ExecutorTokenArgs};

#[derive(Subcommand)]
pub(crate) enum ExecutorVerb {
    /// List executors
    Ls,
    /// Say everything about one executor
    Show {
        /// Name, uuid, or unique prefix of the uuid
        #[arg(value_parser = named)]
        executor: String,
    },
    /// Take over attempts that an executor has and this controller does not know, as after its database was restored
    #[command(
        after_help = "Without ATTEMPT all that are not known are taken over: `sculpt executor show` names them. Their reports and \
        logs come again from the beginning, and their agents notice nothing. An executor that belongs to another cluster does not \
        connect; where this controller has taken that one's place, `sculpt-executor rebind` on its machine forgets the old one."
    )]
    Adopt {
        /// Name, uuid, or unique prefix of the uuid
        #[arg(value_parser = named)]
        executor: String,
        /// Uuids of attempts [default: all that are not known]
        #[arg(value_name = "ATTEMPT")]
        attempts: Vec<String>,
    },
    /// Remove what nobody needs on an executor's disk; never commits that the controller does not have
    Gc(ExecutorGcArgs),
    /// Make a token with which machines become executors; it is shown this once
    #[command(after_help = "Examples, the second for machines that start and end by themselves:\n  \
        sculpt executor token -q |\n    \
        ssh build-7 sculpt-executor join https://controller.example:7434 --token-file -\n  \
        sculpt executor token --pool build --label arch=amd64 --ttl 24h --uses 50")]
    Token(ExecutorTokenArgs),
    /// Cut an executor off for good, within 10 s
    Rm(ExecutorRmArgs),
}

#[derive(Args)]
pub(crate) struct ExecutorGcArgs {
    /// Name, uuid, or unique prefix of the uuid [default: all that are connected]
    #[arg(value_name = "EXECUTOR", value_parser = named)]
    pub(crate) executor: Option<String>,
    /// Say what would go and what would stay, and why; remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also finished workspaces that are kept for a retry
    #[arg(long)]
    pub(crate) all: bool,
}

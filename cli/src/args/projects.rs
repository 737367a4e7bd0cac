//! `sculpt project`, as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value::named;

#[derive(Subcommand)]
pub(crate) enum ProjectVerb {
    /// List projects
    Ls,
    /// Register a repository, or change the settings of a registered one
    Add(ProjectAddArgs),
    /// Take a project off the list; refused while tasks of it go on
    #[command(
        after_help = "Its tasks and their commits are kept; they can be read again once `sculpt project add` or `sculpt run` in a clone \
        brings the project back."
    )]
    Rm {
        /// Name or uuid
        #[arg(value_parser = named)]
        project: String,
        /// Also with commits of tasks that nobody has accepted, merged or rejected
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub(crate) struct ProjectAddArgs {
    /// The repository [default: the one you stand in]
    pub(crate) path: Option<PathBuf>,
    /// Name of the project, also of a registered one [default: that of its remote or folder]
    #[arg(long, value_parser = named)]
    pub(crate) name: Option<String>,
    /// Agent of prompts that name none
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub(crate) default_agent: Option<String>,
    /// Whether an agent's uncommitted changes are committed for it
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) commit_changes: Option<String>,
    /// Whether the journal keeps what people type into agents' terminals, and not only that they do
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) record_typing: Option<String>,
}

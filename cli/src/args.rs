//! The command line as it is typed.

pub(crate) mod value;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use sculpt_proto::v1::OnLost;

pub(crate) use self::value::state_named;
use self::value::{on_lost, pair, span, state, variable, whole};
use crate::commands::{
    AdminVerb, AuditArgs, ExecutorRmArgs, ExecutorTokenArgs, LockArgs, LockTargetArgs, LoginArgs, LogoutArgs, PoolVerb,
    TokenVerb,
};
use crate::output::Format;

/// Run coding agents on a fleet: start, follow, look at what they changed, fetch it.
#[derive(Parser)]
#[command(
    name = "sculpt",
    version,
    max_term_width = 100,
    after_help = "A task is named by its number (17), its uuid, or a unique prefix of the uuid.\n\n\
        First steps:\n  sculpt up                        controller and executor on this machine, in the foreground\n  \
        sculpt run -- make test          run a command on the commit you stand on\n  \
        sculpt run \"fix the flaky test\"  give the work to the default agent\n  \
        sculpt ls                        what became of it"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// Output: text (for people) or json (for programs)
    #[arg(short = 'o', long = "output", global = true, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub(crate) output: Option<Format>,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run controller, built-in Postgres and one executor on this machine, in the foreground
    Up(UpArgs),
    /// Start a task: a prompt for an agent, or a command after `--`
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// List tasks, newest first
    #[command(visible_alias = "ps")]
    Ls(LsArgs),
    /// Say everything about one task: why it waits, why it failed, where it ran
    Show(TaskArg),
    /// Wait until tasks are done or need a person
    #[command(after_help = EXIT_CODES)]
    Wait(WaitArgs),
    /// Print what a task's agent wrote
    #[command(
        after_help = "On a pipe or in a file the bytes are exact; on a terminal what could question or steer it is left out.\n\
        The log of an attempt that has ended is printed whole: its last bytes, which may come after the end that `sculpt wait` \
        tells, are waited for,\nand the exit code is 1 when they do not come, or never will because the attempt was given up while its \
        executor was away.\nCtrl-C while following lets go of the log; the task goes on."
    )]
    Logs(LogsArgs),
    /// Open the task's terminal; leave it with Ctrl-b d
    #[command(
        after_help = "It is a tmux session, on the machine where the task runs. What you type goes to the agent: Ctrl-C \
        interrupts it.\nCtrl-b d leaves it running. Several people may attach at once."
    )]
    Attach(TaskArg),
    /// Stop tasks that are not done
    #[command(
        after_help = "A queued task is cancelled. A running agent is interrupted, then terminated, then killed, with everything \
        that it started;\nwhat it committed is kept. `sculpt wait TASK` returns when it has ended."
    )]
    Stop(TasksArg),
    /// Start failed, lost and cancelled tasks again, in a new attempt
    #[command(
        after_help = "The new attempt begins at the same commit with the same prompt or command; `sculpt logs --attempt N` \
        shows earlier ones.\nWith --in-workspace it goes on where the last attempt stopped, on the same executor, with what was never \
        committed there."
    )]
    Retry(RetryArgs),
    /// Show what a task changed
    Diff(DiffArgs),
    /// Fetch the branches of this project's tasks into this repository
    #[command(
        after_help = "Each task's commits become the local branch sculpt/<number>-<title>. A branch with commits of your own, or one \
        that is\nchecked out, is left as it is. Plain `git fetch sculpt` only moves the remote-tracking branches."
    )]
    Fetch(FetchArgs),
    /// Projects: git repositories that the controller knows
    #[command(subcommand)]
    Project(ProjectVerb),
    /// Executors: the machines that run attempts
    #[command(subcommand)]
    Executor(ExecutorVerb),
    /// Pools: which tasks run where, and with what limits
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Print the journal
    Events(EventsArgs),
    /// Sign in to a controller with a token, and make it the one that is used
    #[command(
        after_help = "The token carries the pin of the controller's authority: nothing is sent before the controller has proved \
        itself.\n`sculpt token create` makes tokens.\n\nExamples:\n  sculpt login https://controller.example:7433             \
        asks for the token, which is not shown\n  sculpt login https://controller.example:7433 < token     reads it from a file"
    )]
    Login(LoginArgs),
    /// Forget a controller, and the token for it
    Logout(LogoutArgs),
    /// Say who we are to the controller, and what we may
    Whoami,
    /// Tokens, by which people and programs are known
    #[command(subcommand)]
    Token(TokenVerb),
    /// Cut a user, an executor or a token off, within 10 s
    #[command(after_help = "Examples:\n  sculpt lock user ben --reason \"left on Friday\"\n  \
        sculpt lock executor build-7 --ttl 2h\n\nWhat a locked executor runs goes on there, and is told when it is unlocked; `sculpt executor rm` is for good.")]
    Lock(LockArgs),
    /// Lift the locks of a user, an executor or a token
    Unlock(LockTargetArgs),
    /// List what is locked
    Locks,
    /// Print who did what, and verify that nobody has changed the record
    Audit(AuditArgs),
    /// Users and their roles
    #[command(subcommand)]
    Admin(AdminVerb),
    /// Check every part and say how to mend it
    Doctor,
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  sculpt completion bash > ~/.local/share/bash-completion/completions/sculpt")]
    Completion(CompletionArgs),
    /// Print words for the completion scripts
    #[command(hide = true)]
    Known {
        /// Of what kind
        what: Known,
    },
    /// Answer git's question for the token of a controller; `setup` lets git ask
    #[command(
        hide = true,
        after_help = "`sculpt run` and `sculpt fetch` set a repository up by themselves. For a clone of a project without them:\n  \
        sculpt git-credential setup\n  git clone https://controller.example:7433/git/UUID.git\n\n\
        The token stands in no configuration and no argument: git reads it from this program, for this controller's URL alone."
    )]
    GitCredential(GitCredentialArgs),
}

const RUN_EXAMPLES: &str = "Examples:\n  sculpt run \"add a test for the parser\"\n  \
    sculpt run -- cargo test --workspace\n  sculpt run --agent reviewer --base main < prompt.md\n  \
    id=$(sculpt run -q -d --no-repo -- sh -c 'seq 1 10'); sculpt wait \"$id\"\n\n\
    Exit codes:\n  0 done  1 failed  3 waiting for an answer  4 cancelled  5 rejected  75 limited\n  \
    130 let go of by Ctrl-C: the task goes on";

const EXIT_CODES: &str = "Exit codes, for several tasks the first that is not 0 in the order given:\n  \
    0 done  1 failed  3 waiting for an answer  4 cancelled  5 rejected  75 limited\n  \
    7 --for a state that will not come   124 --timeout ran out\n\n\
    A lost task goes on when its executor is back, starts anew or fails, as its --on-lost says, and is waited for;\n\
    `--for lost` returns as soon as it is lost. Each task is told when its wait ends.";

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
    /// Run each attempt under an account of its own (root only)
    #[arg(long)]
    pub(crate) separate: bool,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// What the agent is to do; `-`, or nothing with a pipe, reads standard input
    pub(crate) prompt: Option<String>,
    /// Agent that gets the prompt, as the executors' configuration names it
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Commit to start from: branch, tag or id [default: HEAD]
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    /// Start from HEAD with the changes that are not committed; index and files stay as they are
    #[arg(long, conflicts_with = "base")]
    pub(crate) include_changes: bool,
    /// A project that the controller knows, by name or uuid
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// Shown in lists
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// A label of the task, to find it again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// A label that the executor must have
    #[arg(long = "require", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) requirements: Vec<(String, String)>,
    /// Pool of executors
    #[arg(long)]
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

#[derive(Args)]
pub(crate) struct LsArgs {
    /// Only tasks in this state; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state())]
    pub(crate) states: Vec<String>,
    /// Only tasks of this project
    #[arg(long, value_name = "PROJECT")]
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

#[derive(Subcommand)]
pub(crate) enum ProjectVerb {
    /// List projects
    Ls,
    /// Register a repository, or change the settings of a registered one
    Add(ProjectAddArgs),
    /// Take a project off the list; refused while tasks of it go on
    #[command(
        after_help = "Its tasks and their commits are kept; they can be read again once `sculpt project add` or `sculpt run` in a clone \
        brings\nthe project back."
    )]
    Rm {
        /// Name or uuid
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
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Agent of prompts that name none
    #[arg(long, value_name = "NAME")]
    pub(crate) default_agent: Option<String>,
    /// Whether an agent's uncommitted changes are committed for it
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) commit_changes: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum ExecutorVerb {
    /// List executors
    Ls,
    /// Say everything about one executor
    Show {
        /// Name, uuid, or unique prefix of the uuid
        executor: String,
    },
    /// Take over attempts that an executor has and this controller does not know, as after its database was restored
    #[command(
        after_help = "Without ATTEMPT all that are not known are taken over: `sculpt executor show` names them. Their reports and \
        logs come\nagain from the beginning, and their agents notice nothing. An executor that belongs to another cluster does not \
        connect; where\nthis controller has taken that one's place, `sculpt-executor rebind` on its machine forgets the old one."
    )]
    Adopt {
        /// Name, uuid, or unique prefix of the uuid
        executor: String,
        /// Uuids of attempts [default: all that are not known]
        #[arg(value_name = "ATTEMPT")]
        attempts: Vec<String>,
    },
    /// Remove what nobody needs on an executor's disk; never commits that the controller does not have
    Gc(ExecutorGcArgs),
    /// Make a token with which machines become executors; it is shown this once
    #[command(after_help = "Examples, the second for machines that start and end by themselves:\n  \
        sculpt executor token -q | ssh build-7 sculpt-executor join https://controller.example:7434 --token-file -\n  \
        sculpt executor token --pool build --label arch=amd64 --ttl 24h --uses 50")]
    Token(ExecutorTokenArgs),
    /// Cut an executor off for good, within 10 s
    Rm(ExecutorRmArgs),
}

#[derive(Args)]
pub(crate) struct ExecutorGcArgs {
    /// Name, uuid, or unique prefix of the uuid [default: all that are connected]
    #[arg(value_name = "EXECUTOR")]
    pub(crate) executor: Option<String>,
    /// Say what would go and what would stay, and why; remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also finished workspaces that are kept for a retry
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct EventsArgs {
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Start after this place, as an earlier event gave it
    #[arg(long, value_name = "CURSOR")]
    pub(crate) from_cursor: Option<String>,
}

#[derive(Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    pub(crate) shell: String,
}

/// What the controller knows by name or number.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Known {
    Tasks,
    Projects,
    Executors,
    Agents,
}

#[derive(Args)]
pub(crate) struct GitCredentialArgs {
    /// What git wants: get, store or erase; or setup
    pub(crate) operation: String,
}

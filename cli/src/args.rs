//! The command line as it is typed.

mod executors;
mod milestone;
mod pairing;
mod projects;
mod run;
mod tasks;
pub(crate) mod value;

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    executors::{ExecutorGcArgs, ExecutorVerb},
    milestone::MilestoneArgs,
    pairing::{ConfigSshArgs, CpArgs, Forward, PairArgs, PortForwardArgs, SshArgs, TunnelArgs},
    projects::{ProjectAddArgs, ProjectVerb},
    run::{RunArgs, UpArgs},
    tasks::{DiffArgs, FetchArgs, LogsArgs, LsArgs, RetryArgs, TaskArg, TasksArg, WaitArgs},
    value::state_named,
};
use self::{run::RUN_EXAMPLES, tasks::EXIT_CODES};
use crate::{
    commands::{
        AdminVerb, AuditArgs, LockArgs, LockTargetArgs, LoginArgs, LogoutArgs, PoolVerb, ReplayArgs, TokenVerb,
    },
    output::Format,
};

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
        tells, are waited for, and the exit code is 1 when they do not come, or never will because the attempt was given up while its \
        executor was away.\nCtrl-C while following lets go of the log; the task goes on."
    )]
    Logs(LogsArgs),
    /// Play what a task's agent wrote, in its own time and on its own screen
    #[command(
        after_help = "On a terminal Space pauses and goes on, and q ends it. Of a running task it plays what there is so far. On a \
        pipe the bytes are exact, and come in their time. On a terminal, and in an asciicast, what could question or steer a \
        terminal is left out.\n\nExamples:\n  sculpt replay 17 --speed 4 --idle-limit 2s\n  \
        sculpt replay 17 --from 1h20m\n  sculpt replay 17 --idle-limit 1s --cast film.cast   then: asciinema play film.cast"
    )]
    Replay(ReplayArgs),
    /// Sit down beside a task's agent, at its terminal; leave it with Ctrl-b d
    #[command(visible_aliases = ["attach", "connect"], after_help = pairing::PAIR)]
    Pair(PairArgs),
    /// Open a shell in a task's workspace, or run a command there
    #[command(after_help = pairing::SSH)]
    Ssh(SshArgs),
    /// Copy files into a task's workspace, or out of it
    #[command(after_help = pairing::CP)]
    Cp(CpArgs),
    /// Reach what an agent's own programs listen on
    #[command(after_help = pairing::PORT_FORWARD)]
    PortForward(PortForwardArgs),
    /// Let plain ssh, scp, rsync, git and editors reach tasks as sculpt.17
    #[command(after_help = pairing::CONFIG_SSH)]
    ConfigSsh(ConfigSshArgs),
    /// Carry one connection of ssh through the controller, as ssh's ProxyCommand
    Tunnel(TunnelArgs),
    /// Stop tasks that are not done
    #[command(
        after_help = "A queued task is cancelled. A running agent is interrupted, then terminated, then killed, with everything \
        that it started; what it committed is kept. `sculpt wait TASK` returns when it has ended."
    )]
    Stop(TasksArg),
    /// Start failed, lost and cancelled tasks again, in a new attempt
    #[command(
        after_help = "The new attempt begins at the same commit with the same prompt or command; `sculpt logs --attempt N` \
        shows earlier ones.\nWith --in-workspace it goes on where the last attempt stopped, on the same executor, with what was never \
        committed there."
    )]
    Retry(RetryArgs),
    /// Say how far a task has come, or what it is for
    #[command(after_help = milestone::MILESTONE)]
    Milestone(MilestoneArgs),
    /// Show what a task changed
    Diff(DiffArgs),
    /// Fetch the branches of this project's tasks into this repository
    #[command(
        after_help = "Each task's commits become the local branch sculpt/<number>-<title>. A branch with commits of your own, or one \
        that is checked out, is left as it is. Plain `git fetch sculpt` only moves the remote-tracking branches."
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
    /// Become a program that ends with the process that has begun it
    #[command(hide = true)]
    Leash {
        /// That process
        holder: i32,
        /// The program, and its arguments
        #[arg(last = true)]
        words: Vec<OsString>,
    },
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

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::Cli;

    /// Texts are wrapped where they are shown: only a whole sentence ends a line, and what is wrapped is prose.
    #[test]
    fn no_help_breaks_a_line_within_a_sentence() {
        let (mut commands, mut wrong) = (vec![Cli::command()], Vec::new());
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().map(Command::clone));
            let texts = [command.get_after_help(), command.get_after_long_help(), command.get_long_about()];
            for text in texts.into_iter().flatten().map(ToString::to_string) {
                for line in text.lines().filter(|line| !line.is_empty()) {
                    let is_sound = match line.starts_with(' ') {
                        true => line.chars().count() <= 100,
                        false => line.ends_with(['.', ':']),
                    };
                    if !is_sound {
                        wrong.push(format!("{}: {line}", command.get_name()));
                    }
                }
            }
        }
        assert_eq!(wrong, [""; 0]);
    }
}

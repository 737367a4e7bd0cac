//! The program's subcommands. All but `run`, `join`, `status` and `rebind` are for its own use.

mod within;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::{
    app,
    config::{RunArgs, Settings},
    descriptors,
    identity::{self, JoinArgs, StatusArgs},
    init, shim,
    ssh::socket,
    stage,
};

pub use within::Within;

/// Exit code of what somebody may not do.
const NOT_ALLOWED: u8 = 77;

/// Runs coding agents on this machine for a sculpt controller
#[derive(Debug, Parser)]
#[command(name = "sculpt-executor", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a controller until SIGTERM or SIGINT; running agents are not touched by the end
    Run(Box<RunArgs>),
    /// Make this machine an executor of a controller, with a token that `sculpt executor token` gives; its pool and labels are
    /// those of the token
    Join(JoinArgs),
    /// Say who this executor is, until when it can prove it, and whether its controller lets it in
    Status(StatusArgs),
    /// Forget which cluster this executor belongs to, after its controller's database was lost for good
    ///
    /// The executor joins the next controller that it meets. Its attempts stay and go on; `sculpt executor adopt` takes them
    /// over there.
    Rebind {
        /// Where attempts, workspaces and spools stand
        #[arg(long, env = "SCULPT_EXECUTOR_DATA_DIR")]
        data_dir: PathBuf,
    },
    /// Own one agent
    #[command(hide = true, subcommand)]
    Shim(ShimCommand),
    /// Become a program
    #[command(hide = true)]
    Stage(StageArgs),
    /// Open a socket and hand it to whoever is at the other end of standard input
    #[command(hide = true, subcommand)]
    Socket(socket::Wanted),
}

#[derive(Debug, Subcommand)]
enum ShimCommand {
    /// Run the agent of an attempt
    Run {
        /// The attempt's directory
        attempt_dir: PathBuf,
    },
    /// Show an agent's terminal
    Attach {
        /// The shim's view socket
        view_socket: PathBuf,
    },
}

#[derive(Args, Debug)]
struct StageArgs {
    #[command(flatten)]
    source: StageSource,
    /// Descriptor of the file to which it is written why the program could not be run
    #[arg(long, requires = "inside")]
    words: Option<i32>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct StageSource {
    /// What to become, as JSON
    #[arg(long)]
    inline: Option<String>,
    /// Become the agent of the attempt in this directory
    #[arg(long)]
    launch: Option<PathBuf>,
    /// Become what stands on standard input, as JSON
    #[arg(long)]
    stdin: bool,
    /// Become what stands ahead on standard input, as JSON after its length; what follows is the program's
    #[arg(long)]
    ahead: bool,
    /// Become what this descriptor holds, as JSON: the last step in a sandbox
    #[arg(long)]
    inside: Option<i32>,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        if let Err(error) = descriptors::lower() {
            eprintln!("sculpt-executor: cannot limit how many files are open: {error}");
            return ExitCode::FAILURE;
        }
        let result = match self.command {
            Command::Run(_) if init::is_first() => return first(),
            Command::Run(arguments) => run(*arguments),
            Command::Join(arguments) => return join(arguments),
            Command::Status(arguments) => return status(arguments),
            Command::Rebind { data_dir } => rebind(&data_dir),
            Command::Socket(wanted) => socket::main(&wanted).map_err(Into::into),
            Command::Shim(ShimCommand::Run { attempt_dir }) => shim::main(&attempt_dir).map_err(Into::into),
            Command::Shim(ShimCommand::Attach { view_socket }) => shim::view::main(&view_socket).map_err(Into::into),
            Command::Stage(StageArgs { source: StageSource { launch: Some(directory), .. }, .. }) => {
                return failed(&stage::main_launch(&directory));
            }
            Command::Stage(StageArgs { source: StageSource { inside: Some(handed), .. }, words }) => {
                return failed(&stage::main_inside(handed, words));
            }
            Command::Stage(StageArgs { source: StageSource { stdin: true, .. }, .. }) => {
                return failed(&stage::main_stdin());
            }
            Command::Stage(StageArgs { source: StageSource { ahead: true, .. }, .. }) => {
                return failed(&stage::main_ahead());
            }
            Command::Stage(StageArgs { source: StageSource { inline, .. }, .. }) => {
                return failed(&stage::main_inline(inline.as_deref().unwrap_or_default()));
            }
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sculpt-executor: {error:#}");
                let refused = error.downcast_ref::<app::AppError>().is_some_and(app::AppError::is_refusal);
                if refused { NOT_ALLOWED.into() } else { ExitCode::FAILURE }
            }
        }
    }
}

fn join(arguments: JoinArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sculpt-executor: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(identity::join(arguments)) {
        Ok(joined) => {
            println!("{joined}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sculpt-executor: cannot join: {error}");
            error.exit_code().into()
        }
    }
}

/// The executor is a child of this process then.
fn first() -> ExitCode {
    let program = std::env::current_exe();
    match program.and_then(|program| init::look_after(&program, std::env::args_os().skip(1))) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("sculpt-executor: cannot be the first process of a container: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status(arguments: StatusArgs) -> ExitCode {
    match identity::status(arguments) {
        Ok(status) => {
            println!("{status}");
            if status.is_let_in() { ExitCode::SUCCESS } else { NOT_ALLOWED.into() }
        }
        Err(error) => {
            eprintln!("sculpt-executor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rebind(data_dir: &Path) -> anyhow::Result<()> {
    match app::rebind(data_dir)? {
        Some(cluster) => println!(
            "this executor no longer belongs to cluster {cluster}; start it, and `sculpt executor adopt` takes its \
             attempts over at its new controller"
        ),
        None => println!("this executor belongs to no cluster yet; there is nothing to forget"),
    }
    Ok(())
}

/// A stage returns only when it did not become its program.
fn failed(error: &stage::Error) -> ExitCode {
    eprintln!("sculpt-executor: {error}");
    stage::FAILED.into()
}

fn run(arguments: RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SCULPT_EXECUTOR_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(std::io::stderr()))
        // It would be said where nobody reads any more, and by that end the thread that has something to say.
        .log_internal_errors(false)
        .init();
    descriptors::raise();
    let settings = Settings::load(arguments)?;
    let program = std::env::current_exe().context("find this program's own file")?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let result = runtime.block_on(app::run(settings, &program));
    // What is blocked in a system call must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(result?)
}

//! `sculpt-controller`.

use std::process::ExitCode;

use clap::Parser as _;
use sculpt_controller::{
    app,
    commands::{CommandError, Told},
    config::{Cli, Command},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let serve = match Cli::parse().command {
        Command::Serve(serve) => serve,
        Command::Authority(arguments) => return command(arguments.run()),
        Command::Admin(arguments) => return command(arguments.run()),
    };
    let filter = EnvFilter::try_from_env("SCULPT_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(rustix::termios::isatty(std::io::stderr()))
        .with_writer(std::io::stderr)
        // Whoever read the log may have gone, and to complain of that would end the controller.
        .log_internal_errors(false)
        .init();
    let served = serve.resolve().map_err(Into::into).and_then(app::run);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Read by people and by `sculpt up`; the log above has the details.
            eprintln!("sculpt-controller: {}", app::explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked besides serving.
fn command(work: impl Future<Output = Result<Told, CommandError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| format!("start the runtime: {error}"));
    match done.and_then(|runtime| runtime.block_on(work).map_err(|error| error.to_string())) {
        Ok(Told { answer, note }) => {
            println!("{answer}");
            eprintln!("{note}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sculpt-controller: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `sculpt-controller`.

use std::process::ExitCode;

use clap::Parser as _;
use sculpt_controller::{
    app,
    commands::CommandError,
    config::{Cli, Command},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let serve = match Cli::parse().command {
        Command::Serve(serve) => serve,
        Command::Authority(arguments) => return told(arguments.run()),
    };
    let filter = EnvFilter::try_from_env("SCULPT_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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

fn told(done: Result<String, CommandError>) -> ExitCode {
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sculpt-controller: {error}");
            ExitCode::FAILURE
        }
    }
}

//! From the arguments to the exit code.

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::Cli,
    commands,
    exit::Exit,
    failure::Failure,
    output::{Format, clean},
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // clap prints help and usage errors itself and ends with 0 or 2.
    let cli = Cli::parse();
    let format = cli.output.unwrap_or(Format::Text);
    match run(cli, format) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            for line in failure.lines() {
                eprintln!("{}", clean(&line));
            }
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, format: Format) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "start", error.to_string()))?;
    let result = runtime.block_on(commands::run(cli.verb, format));
    // A blocked read of standard input must not keep the process.
    runtime.shutdown_background();
    result
}

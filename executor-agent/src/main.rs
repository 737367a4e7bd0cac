//! The executor's binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    sculpt_executor::commands::Cli::parse().run()
}

//! The executor's binary.

use std::process::ExitCode;

use clap::Parser as _;
use sculpt_executor::commands::{Cli, Within};

fn main() -> ExitCode {
    if Within::is_meant() { Within::parse().run() } else { Cli::parse().run() }
}

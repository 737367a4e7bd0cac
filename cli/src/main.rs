//! The command line of sculpt.

use std::process::ExitCode;

fn main() -> ExitCode {
    sculpt::main()
}

//! `sculpt completion`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, exit::Exit, failure::Failure, output::line};

pub(super) fn run(shell: &str) -> Result<Exit, Failure> {
    let shell: Shell =
        shell.parse().map_err(|error: String| Failure::new(Exit::Usage, "write the completion script", error))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sculpt", &mut script);
    line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

//! `sculpt completion`.

pub(super) mod known;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, exit::Exit, failure::Failure, output::line};

/// What bash asks the controller for.
const WORDS: &str = include_str!("completion/words.bash");

pub(super) fn run(shell: &str) -> Result<Exit, Failure> {
    let shell: Shell =
        shell.parse().map_err(|error: String| Failure::new(Exit::Usage, "write the completion script", error))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "sculpt", &mut script);
    if shell == Shell::Bash {
        script.extend_from_slice(WORDS.as_bytes());
    }
    line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

/// The command line without the verbs that are for programs; the generators offer hidden ones too.
fn visible() -> clap::Command {
    let whole = Cli::command();
    let verbs = whole.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    clap::Command::new("sculpt")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(verbs)
}

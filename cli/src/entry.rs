//! From the arguments to the exit code.

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};
use tokio::runtime::Builder;

use crate::{
    args::{Cli, Verb},
    commands,
    exit::Exit,
    failure::Failure,
    output::{Format, clean, shell_quoted},
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // clap prints help and usage errors itself and ends with 0 or 2.
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let advice =
            (error.kind() == ErrorKind::UnknownArgument).then(|| separator(std::env::args().skip(1))).flatten();
        // Without a place to print to there is nothing to add either.
        let _ = error.print();
        if let Some(advice) = advice {
            eprintln!("{}", clean(&advice));
        }
        std::process::exit(error.exit_code())
    });
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

/// What to say of `run make test` and of `ssh 17 make`: two words that are no flags are a command, or a task and one.
fn separator(words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<String> = words.collect();
    let (verb, rest) = words.split_first()?;
    let looks_like_one =
        rest.len() > 1 && rest.iter().take(2).all(|word| !word.starts_with('-') && !word.contains(' '));
    let before = match &**verb {
        "run" => 0,
        "ssh" => 1,
        _ => return None,
    };
    if !looks_like_one || rest.iter().any(|word| word == "--") {
        return None;
    }
    let mut words: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
    words.insert(1 + before, "--".to_owned());
    Some(format!("\nA command stands after `--`: sculpt {}", words.join(" ")))
}

fn run(cli: Cli, format: Format) -> Result<Exit, Failure> {
    let mut several = Builder::new_multi_thread();
    several.worker_threads(2);
    let mut runtime = match cli.verb {
        // Between two threads a key would lose more time than on its way.
        Verb::Tunnel(_) => Builder::new_current_thread(),
        _ => several,
    };
    let runtime =
        runtime.enable_all().build().map_err(|error| Failure::new(Exit::Failed, "start", error.to_string()))?;
    let result = runtime.block_on(commands::run(cli.verb, format));
    // A blocked read of standard input must not keep the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::separator;

    #[test]
    fn a_command_without_its_dashes_is_recognised() {
        for (line, command) in [
            ("run make test", Some("run -- make test")),
            ("ssh 17 ls", Some("ssh 17 -- ls")),
            ("ssh 17 ls -l", Some("ssh 17 -- ls -l")),
            ("ssh 17 -x", None),
            ("ssh -t 17 ls", None),
            ("run make -j 2", None),
            ("run cargo test --workspace", Some("run -- cargo test --workspace")),
            ("run --bad x", None),
            ("run make test -- x", None),
            ("ls make test", None),
        ] {
            let said = separator(line.split(' ').map(str::to_owned));
            let expected = command.map(|command| format!("\nA command stands after `--`: sculpt {command}"));
            assert_eq!(said, expected, "{line}");
        }
    }
}

//! From the arguments to the exit code.

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};

use crate::{
    args::Cli,
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

/// What to say of `run make test`: two words that are no flags are a command.
fn separator(words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<String> = words.collect();
    let (verb, command) = words.split_first()?;
    let looks_like_one =
        command.len() > 1 && command.iter().take(2).all(|word| !word.starts_with('-') && !word.contains(' '));
    if verb != "run" || !looks_like_one || command.iter().any(|word| word == "--") {
        return None;
    }
    let command: Vec<String> = command.iter().map(|word| shell_quoted(word)).collect();
    Some(format!("\nA command stands after `--`: sculpt run -- {}", command.join(" ")))
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

#[cfg(test)]
mod tests {
    use super::separator;

    #[test]
    fn a_command_without_its_dashes_is_recognised() {
        for (line, command) in [
            ("run make test", Some("make test")),
            ("run make -j 2", None),
            ("run cargo test --workspace", Some("cargo test --workspace")),
            ("run --bad x", None),
            ("run make test -- x", None),
            ("ls make test", None),
        ] {
            let said = separator(line.split(' ').map(str::to_owned));
            let expected = command.map(|command| format!("\nA command stands after `--`: sculpt run -- {command}"));
            assert_eq!(said, expected, "{line}");
        }
    }
}

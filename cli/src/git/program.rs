//! Running the `git` program.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Output, Stdio},
};

use tokio::process::Command;

use super::GitError;

/// A `git` command in this directory that asks nothing, takes no needless locks, and ends with us.
pub(crate) fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Standard output of a git command that must succeed.
pub(crate) async fn run(
    directory: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Vec<u8>, GitError> {
    let mut command = git(directory);
    command.args(args);
    finish(command).await
}

/// Standard output as text without the line end.
pub(crate) async fn text(directory: &Path, args: &[&str]) -> Result<String, GitError> {
    Ok(String::from_utf8_lossy(&run(directory, args).await?).trim_end_matches('\n').to_owned())
}

/// Runs a prepared command to its end.
pub(crate) async fn finish(mut command: Command) -> Result<Vec<u8>, GitError> {
    let output = command.output().await.map_err(GitError::NoProgram)?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed(&command, &output)) }
}

/// What a git command that failed said.
pub(crate) fn failed(command: &Command, output: &Output) -> GitError {
    let verb =
        command.as_std().get_args().map(OsStr::to_string_lossy).find(|arg| !arg.starts_with('-') && !arg.contains('='));
    let said = String::from_utf8_lossy(&output.stderr);
    let detail = said.trim().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    let outcome = match output.status.code() {
        Some(code) => format!("ended with code {code}"),
        None => format!("was ended ({})", output.status),
    };
    GitError::Program { doing: verb.unwrap_or_default().into_owned(), outcome, detail }
}

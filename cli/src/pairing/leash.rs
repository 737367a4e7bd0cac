//! A program that ends with this one, however this one ends: one that is killed can tell its children nothing.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::ssh::openssh;
use crate::{exit::Exit, failure::Failure};

/// This very program, also after another one has been put in its place.
const US: &str = "/proc/self/exe";

/// A program of OpenSSH as a child of ours that the kernel ends with us. A process can wish for that itself only: so it is another one
/// of this program that wishes, and becomes it.
pub(super) fn leashed(program: &str) -> io::Result<tokio::process::Command> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let program = found(program, &path).ok_or(io::ErrorKind::NotFound)?;
    let mut command = tokio::process::Command::new(US);
    command.args(["leash", &getpid().to_string()]).arg("--").arg(program);
    Ok(command)
}

fn found(program: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Becomes the program that `holder` has begun; returns only when that fails.
pub(crate) fn hold(holder: i32, words: &[OsString]) -> Failure {
    let Some((program, arguments)) = words.split_first() else { return Failure::quiet(Exit::Usage) };
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("run {}", program.to_string_lossy()), error.to_string());
    // Terminated, it gives the terminal back.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return failed(error.into());
    }
    // Whoever ended before the wish was heard ends nobody by it.
    if getppid() != Pid::from_raw(holder) {
        return Failure::quiet(Exit::Failed);
    }
    failed(openssh(program).args(arguments).exec())
}

//! Running the `git` program: with a clean environment, no configuration but the repository's own, and no questions.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

/// How much of git's own words is kept, in bytes.
const WORDS: usize = 2_000;

/// git did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be run at all.
    #[error("could not run git to {attempt}: {source}; is git installed?")]
    Run {
        /// What it was to do.
        attempt: &'static str,
        /// Why it did not run.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("git could not {attempt}: {words}")]
    Failed {
        /// What it was to do.
        attempt: &'static str,
        /// What it said.
        words: String,
    },
    /// It took too long.
    #[error("git did not {attempt} within {} s and was ended", .limit.as_secs())]
    Slow {
        /// What it was to do.
        attempt: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// What git left behind.
#[derive(Clone, Debug)]
pub struct Done {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Done {
    /// Standard output as one line.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// Settings that every git of ours runs with, as `-c` arguments.
pub const SAFE: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "credential.helper=",
    "safe.directory=*",
    // The graft file that the environment names would put this hint before the reason of every failure.
    "advice.graftFileDeprecated=false",
];

/// Environment that every git of ours runs with, and nothing else.
pub fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_GRAFT_FILE", "/dev/null"),
        ("GIT_EDITOR", "false"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("no_proxy", "*"),
    ]
    .into_iter()
    .map(|(key, value)| (key, value.into()))
    .chain([("PATH", path)])
    .collect()
}

/// A git command on the repository with this git directory, for repositories that no agent has touched.
pub fn trusted(git_dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear().envs(environment()).process_group(0);
    for setting in SAFE {
        command.arg("-c").arg(setting);
    }
    let mut directory = std::ffi::OsString::from("--git-dir=");
    directory.push(git_dir);
    command.arg(directory);
    command
}

/// Ends a whole process group when it goes out of scope: what a helper of git left behind, too.
#[derive(Debug)]
pub struct Group(Option<Pid>);

impl Group {
    /// The group that this child leads.
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a command that leads a process group to its end; any exit code is fine. Dropped half-way, the group is killed.
pub async fn output(
    attempt: &'static str,
    mut command: Command,
    input: Option<&[u8]>,
    limit: Duration,
) -> Result<Done, GitError> {
    let fail = |source| GitError::Run { attempt, source };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(fail)?;
    let _group = Group::of(&child);
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A git that does not read to the end says why on stderr.
            let _unread = stdin.write_all(input).await;
        }
    };
    let both = async { tokio::join!(child.wait_with_output(), feed) };
    let (output, ()) = tokio::time::timeout(limit, both).await.map_err(|_| GitError::Slow { attempt, limit })?;
    let output = output.map_err(fail)?;
    Ok(Done { code: output.status.code(), stdout: output.stdout, stderr: output.stderr })
}

/// Runs a command to its end; an exit code other than 0 is an error with git's own words.
pub async fn run(
    attempt: &'static str,
    command: Command,
    input: Option<&[u8]>,
    limit: Duration,
) -> Result<Done, GitError> {
    let done = output(attempt, command, input, limit).await?;
    match done.code {
        Some(0) => Ok(done),
        _ => Err(GitError::Failed { attempt, words: words(&done.stderr) }),
    }
}

/// What git said, fit to be shown: controls replaced, at most 2,000 bytes.
pub fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(WORDS)]);
    let text: String = text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

/// `key=` followed by a path, for arguments whose path need not be UTF-8.
pub fn path_argument(key: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(key);
    argument.push(path);
    argument
}

/// The git directory of a working copy.
pub fn git_dir(work_tree: &Path) -> PathBuf {
    work_tree.join(OsStr::new(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_carries_gits_own_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = trusted(&directory.path().join("absent"));
        command.args(["rev-parse", "HEAD"]);
        let error = run("read HEAD", command, None, Duration::from_secs(30)).await.unwrap_err();
        assert!(error.to_string().contains("could not read HEAD: fatal: not a git repository"), "{error}");
    }

    #[tokio::test]
    async fn a_git_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("600").process_group(0);
        let error = run("sleep", command, None, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, GitError::Slow { .. }), "{error}");
    }
}

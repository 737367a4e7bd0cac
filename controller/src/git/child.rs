//! Runs the `git` program: argument vectors only, an environment of our own, a time limit, and death with its caller.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

/// What is kept of what a child says, in bytes.
const STDERR_KEPT: usize = 8 << 10;

/// Most that a child may answer where the answer is held in memory, in bytes.
const STDOUT_KEPT: u64 = 64 << 20;

/// Settings of every child: nothing of the host's or the user's configuration reaches it.
const SETTINGS: [&str; 8] = [
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "pack.threads=2",
    "safe.directory=*",
];

/// Why a git child did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It cannot be started.
    #[error("start {}; is git installed?", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its pipes broke.
    #[error("talk to git {command}")]
    Pipe {
        /// The subcommand.
        command: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("git {command} did not end within {} s", limit.as_secs())]
    Timeout {
        /// The subcommand.
        command: &'static str,
        /// What it was given.
        limit: Duration,
    },
    /// It said more than is held in memory.
    #[error("git {command} answered more than {STDOUT_KEPT} bytes")]
    Verbose {
        /// The subcommand.
        command: &'static str,
    },
    /// It ended with an error.
    #[error("git {command} failed ({status}): {stderr}")]
    Failed {
        /// The subcommand.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

/// The `git` program.
#[derive(Clone, Debug)]
pub(super) struct Git {
    program: PathBuf,
    /// An empty directory.
    home: PathBuf,
}

/// One call that is being put together.
#[derive(Debug)]
pub(super) struct Call {
    program: PathBuf,
    name: &'static str,
    command: Command,
    limit: Duration,
}

impl Git {
    pub(super) fn new(program: PathBuf, home: PathBuf) -> Self {
        Self { program, home }
    }

    /// `git NAME` in the repository `directory`.
    pub(super) fn call(&self, name: &'static str, directory: &Path) -> Call {
        let mut call = self.plain(name, &[]);
        call.command.arg("--git-dir").arg(directory).arg(name);
        call
    }

    /// `git upload-pack` with further settings; its directory is still to be given, as its last argument.
    pub(super) fn upload_pack(&self, settings: &[&str]) -> Call {
        let mut call = self.plain("upload-pack", settings);
        call.command.args(["upload-pack", "--stateless-rpc", "--strict"]);
        call
    }

    fn plain(&self, name: &'static str, settings: &[&str]) -> Call {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .current_dir(&self.home)
            .args(SETTINGS.iter().chain(settings).flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: what it starts dies with it.
            .process_group(0)
            .kill_on_drop(true);
        Call { program: self.program.clone(), name, command, limit: Duration::from_secs(60) }
    }
}

impl Call {
    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(super) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// How long it may take; one minute unless told.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Reads its input from `file`.
    pub(super) fn input_file(mut self, file: std::fs::File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Starts it with pipes.
    pub(super) fn start(mut self) -> Result<Running, ChildError> {
        self.command.stdin(Stdio::piped());
        self.spawn()
    }

    fn spawn(mut self) -> Result<Running, ChildError> {
        let started = self.command.spawn();
        let child = started.map_err(|source| ChildError::Start { program: self.program, source })?;
        Ok(Running { name: self.name, child })
    }

    /// Runs it to its end without input, or with that of [`Call::input_file`]; returns what it answered.
    pub(super) async fn run(self) -> Result<Vec<u8>, ChildError> {
        let limit = self.limit;
        let running = self.spawn()?;
        running.finish(limit).await
    }

    /// Runs it to its end with `input`; returns what it answered.
    pub(super) async fn run_with(self, input: Vec<u8>) -> Result<Vec<u8>, ChildError> {
        let limit = self.limit;
        let mut running = self.start()?;
        let stdin = running.stdin();
        let feed = async move {
            use tokio::io::AsyncWriteExt as _;
            if let Some(mut stdin) = stdin {
                // A child that ends early says why on stderr; the broken pipe says nothing more.
                stdin.write_all(&input).await.ok();
            }
        };
        tokio::join!(running.finish(limit), feed).0
    }
}

/// A child that lives. Dropped, it is killed with all that it started.
#[derive(Debug)]
pub(super) struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(super) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, ChildError> {
        self.child.wait().await.map_err(|source| ChildError::Pipe { command: self.name, source })
    }

    async fn finish(mut self, limit: Duration) -> Result<Vec<u8>, ChildError> {
        let command = self.name;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let read = async {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(STDOUT_KEPT).read_to_end(&mut answer).await?;
            }
            Ok(answer)
        };
        let work = async { tokio::join!(read, tail(stderr), self.child.wait()) };
        let Ok((answer, stderr, status)) = tokio::time::timeout(limit, work).await else {
            return Err(ChildError::Timeout { command, limit });
        };
        let status = status.map_err(|source| ChildError::Pipe { command, source })?;
        if answer.as_ref().is_ok_and(|answer| answer.len() as u64 == STDOUT_KEPT) {
            return Err(ChildError::Verbose { command });
        }
        if status.success() {
            answer.map_err(|source| ChildError::Pipe { command, source })
        } else {
            Err(ChildError::Failed { command, status, stderr })
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An id that was not waited for cannot have been given to another process.
        if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// The last of what a child says, read to its end so that it never blocks.
pub(super) async fn tail(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut stderr) = stderr {
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = stderr.read(&mut piece).await {
            kept.extend_from_slice(&piece[..length]);
            if kept.len() > STDERR_KEPT {
                kept.drain(..kept.len() - STDERR_KEPT);
            }
        }
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

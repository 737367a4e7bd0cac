//! One part as a child process: started with a lifeline, its log in a file, ended in good time.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{exit::Exit, failure::Failure};

/// A log longer than this is put aside at the next start.
const LONG_LOG: u64 = 16 << 20;
/// Name of the part that runs no agents.
pub(super) const CONTROLLER: &str = "controller";
/// How much of a log's end is shown when something is wrong.
const SHOWN_LINES: usize = 12;

/// A part that runs.
pub(super) struct Part {
    pub(super) name: &'static str,
    child: Child,
    /// While it is open the part runs; it ends by itself when we die.
    lifeline: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    pub(super) log: PathBuf,
    /// Where the lines of this start begin in the log, in bytes.
    begin: u64,
}

enum Said {
    Line(String),
    Ended(io::Result<ExitStatus>),
}

impl Part {
    /// Starts `sculpt-<name>` beside this program, else from PATH, in a process group of its own.
    pub(super) fn start(name: &'static str, args: &[OsString], logs: &Path) -> Result<Self, Failure> {
        let program = sibling(name);
        let log = logs.join(format!("{name}.log"));
        let broken = |error: io::Error| {
            let failure =
                Failure::new(Exit::Failed, format!("start the {name}"), format!("{}: {error}", program.display()));
            match error.kind() {
                io::ErrorKind::NotFound => {
                    failure.next(format!("put sculpt-{name} beside `sculpt`, or into a directory of PATH"))
                }
                _ => failure,
            }
        };
        let stderr = open_log(&log).map_err(broken)?;
        let begin = stderr.metadata().map_err(broken)?.len();
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        // Ctrl-C reaches only us, and another program's database is none of ours.
        command.process_group(0).env_remove("DATABASE_URL");
        if name == CONTROLLER {
            // Its log is a file, and its server takes no settings of other servers. The executor's environment is its
            // agents', whose terminals have colours.
            command.env("NO_COLOR", "1").env_remove("PGOPTIONS");
        }
        let mut child = command.spawn().map_err(broken)?;
        let lifeline = child.stdin.take();
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name, child, lifeline, stdout, log, begin })
    }

    /// The line that the part prints when it is ready; an error when it ends before.
    pub(super) async fn ready<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let status = loop {
            match self.next().await {
                Said::Line(line) => {
                    if let Ok(ready) = serde_json::from_str(&line) {
                        return Ok(ready);
                    }
                }
                Said::Ended(status) => break status,
            }
        };
        Err(self.trouble(format!("start the {}", self.name), &status))
    }

    /// Waits for the part's end and reads away what it still says.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Said::Ended(status) = self.next().await {
                return status;
            }
        }
    }

    /// The next line of standard output, or the end of the process: what it started may keep the output open for
    /// long. Nothing is lost when this is dropped.
    async fn next(&mut self) -> Said {
        loop {
            let Some(stdout) = &mut self.stdout else { return Said::Ended(self.child.wait().await) };
            tokio::select! {
                biased;
                line = stdout.next_line() => match line {
                    Ok(Some(line)) => return Said::Line(line),
                    Ok(None) | Err(_) => self.stdout = None,
                },
                status = self.child.wait() => return Said::Ended(status),
            }
        }
    }

    /// Asks the part to end.
    pub(super) fn ask_to_end(&mut self) {
        self.lifeline = None;
        self.signal(Signal::TERM);
    }

    /// Ends the part without asking.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; it is not reaped before `ended` says so.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, with the end of its log.
    pub(super) fn trouble(&self, attempted: String, status: &io::Result<ExitStatus>) -> Failure {
        let why = match status {
            Ok(status) => format!("sculpt-{} ended ({status})", self.name),
            Err(error) => error.to_string(),
        };
        let mut failure = Failure::new(Exit::Failed, attempted, why);
        let tail = tail(&self.log, self.begin).unwrap_or_default();
        if !tail.is_empty() {
            failure = failure.next(format!("the end of {}:", self.log.display()));
            for line in tail {
                failure = failure.next(format!("  {line}"));
            }
        }
        failure.next("`sculpt doctor` checks what this machine lacks")
    }
}

/// `sculpt-<name>` beside this program, else as PATH finds it.
pub(crate) fn sibling(name: &str) -> PathBuf {
    let program = format!("sculpt-{name}");
    let beside = env::current_exe().ok().and_then(|ours| Some(ours.parent()?.join(&program)));
    match beside {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from(program),
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|data| data.len() > LONG_LOG) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The last lines of a log, of those after its first `begin` bytes.
fn tail(path: &Path, begin: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8 << 10).max(begin)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let plain = crate::output::screen::Screen::plain().feed(&bytes);
    let text = String::from_utf8_lossy(&plain);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| (*line).to_owned()).collect())
}

//! One long-running program under the harness's control.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{DEADLINE, within};

/// A program that says on stdout when it is ready. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command`, its stderr appended to `log`, and waits for the line on stdout that `ready` accepts.
    pub async fn start(
        name: &'static str,
        command: Command,
        log: PathBuf,
        ready: impl Fn(&str) -> bool,
    ) -> Result<(Self, String)> {
        let (service, mut lines) = Self::spawn(name, command, log)?;
        let line = within(DEADLINE, &format!("{name} to be ready"), async {
            while let Some(line) = lines.next_line().await? {
                if ready(&line) {
                    return Ok(line);
                }
            }
            bail!("{name} ended before it was ready")
        })
        .await
        .with_context(|| tail(&service.log))?;
        // Read on, so that the program never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((service, line))
    }

    /// Starts `command` and does not wait for it.
    pub fn begin(name: &'static str, command: Command, log: PathBuf) -> Result<Self> {
        let (service, mut lines) = Self::spawn(name, command, log)?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(service)
    }

    fn spawn(name: &'static str, mut command: Command, log: PathBuf) -> Result<(Self, Lines<BufReader<ChildStdout>>)> {
        let stderr = File::options().create(true).append(true).open(&log).context("open the log")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        Ok((Self { name, child, log }, BufReader::new(stdout).lines()))
    }

    /// Number of the process; an error once it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?.cast_signed()).context("a pid is not 0")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Sends `signal` and waits for the end.
    pub async fn end(mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let what = format!("the end of {} after signal {}", self.name, signal.as_raw());
        within(limit, &what, async { Ok(self.child.wait().await?) }).await.with_context(|| tail(&self.log))
    }

    /// Waits for an end that somebody else has brought about.
    pub async fn gone(mut self) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        within(DEADLINE, &what, async { Ok(self.child.wait().await?) }).await.with_context(|| tail(&self.log))
    }

    /// kill -9.
    pub async fn kill(self) -> Result<()> {
        self.end(Signal::KILL, DEADLINE).await.map(drop)
    }
}

/// The last lines of a log, for an error.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(40)..];
    format!("---- end of {}\n{}\n----", log.display(), last.join("\n"))
}

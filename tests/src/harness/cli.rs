//! The `sculpt` command as a person or a script runs it.

use std::{
    ffi::OsStr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use super::{
    DEADLINE,
    checker::{Shared, Watcher},
    within,
};

/// One run of a program, about to be started. Ends with its deadline at the latest.
#[derive(Debug)]
#[must_use = "nothing runs before `run` or `follow`"]
pub struct Cli {
    command: Command,
    what: String,
    stdin: Option<Vec<u8>>,
    deadline: Duration,
    ledger: Option<Shared>,
}

impl Cli {
    pub(super) fn new<A: AsRef<OsStr>>(mut command: Command, arguments: impl IntoIterator<Item = A>) -> Self {
        command.args(arguments);
        let program = Path::new(command.as_std().get_program()).file_name().unwrap_or_default().to_string_lossy();
        let what = command.as_std().get_args().fold(program.into_owned(), |line, argument| {
            let argument: String = argument.to_string_lossy().chars().take(60).collect();
            format!("{line} {argument}")
        });
        Self { command, what, stdin: None, deadline: DEADLINE, ledger: None }
    }

    /// What it is promised and shown is written down for the checker.
    pub(super) fn noted(mut self, ledger: Shared) -> Self {
        self.ledger = Some(ledger);
        self
    }

    fn arguments(&self) -> Vec<String> {
        self.command.as_std().get_args().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    fn watcher(&self) -> Option<Watcher> {
        self.ledger.as_ref().and_then(|ledger| Watcher::of(ledger, &self.arguments()))
    }

    /// Runs in `directory`.
    pub fn dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// With one more variable in the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With `bytes` on stdin; without this stdin is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Fails when it takes longer than this.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = limit;
        self
    }

    /// The same, of which the checker is not told.
    pub async fn run_unnoted(mut self) -> Result<Output> {
        self.ledger = None;
        self.run().await
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Result<Output> {
        let started = Instant::now();
        let stdin = self.stdin.take();
        let mut child = self.spawn(stdin.is_some())?;
        let feeder = child.stdin.take().zip(stdin).map(|(mut pipe, bytes)| {
            // The program may well refuse before it has read everything.
            tokio::spawn(async move { pipe.write_all(&bytes).await.is_ok() })
        });
        let output = within(self.deadline, &self.what, async { Ok(child.wait_with_output().await?) }).await?;
        if let Some(watcher) = self.watcher() {
            watcher.shown(&output.stdout);
        }
        if let (Some(ledger), true) = (&self.ledger, output.status.success()) {
            let stdout = String::from_utf8_lossy(&output.stdout);
            ledger.note(|ledger| ledger.answered(&self.arguments(), &stdout));
        }
        if let Some(feeder) = feeder {
            feeder.await.context("feed stdin")?;
        }
        Ok(Output {
            what: self.what,
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Starts it and reads its lines as they come.
    pub fn follow(mut self) -> Result<Follow> {
        let watcher = self.watcher();
        let mut child = self.spawn(false)?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        // Notes for people: nobody reads them here, and they must not fill a pipe.
        if let Some(mut stderr) = child.stderr.take() {
            tokio::spawn(async move {
                let mut sink = Vec::new();
                let _ = stderr.read_to_end(&mut sink).await;
            });
        }
        Ok(Follow { what: self.what, child, stdout: BufReader::new(stdout), watcher })
    }

    fn spawn(&mut self, feeds: bool) -> Result<Child> {
        self.command
            .stdin(if feeds { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.what))
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Output {
    what: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Exact bytes.
    pub stdout: Vec<u8>,
    /// For people.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Output {
    /// Fails unless it exited with `code`.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "{} exited {} instead of {code}\nstdout: {}\nstderr: {}",
            self.what,
            self.code,
            String::from_utf8_lossy(&self.stdout).chars().take(2000).collect::<String>(),
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless it exited with 0.
    pub fn done(self) -> Result<Self> {
        self.exits(0)
    }

    /// Fails unless stderr holds `text`, whatever the case of its letters.
    pub fn says(self, text: &str) -> Result<Self> {
        ensure!(
            self.stderr.to_lowercase().contains(&text.to_lowercase()),
            "{} should say {text:?}, but says: {}",
            self.what,
            self.stderr
        );
        Ok(self)
    }

    /// stdout without white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// stdout as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("read the JSON of {}: {}", self.what, self.text()))
    }
}

/// A run whose stdout is read as it comes.
#[derive(Debug)]
pub struct Follow {
    what: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    watcher: Option<Watcher>,
}

impl Follow {
    /// The next line that `wanted` accepts, without its end.
    pub async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let what = format!("a line of {}", self.what);
        within(DEADLINE, &what, async {
            loop {
                let mut line = Vec::new();
                let read = self.stdout.read_until(b'\n', &mut line).await?;
                ensure!(read > 0, "{} ended before the line came", self.what);
                if let Some(watcher) = &self.watcher {
                    watcher.shown(&line);
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if wanted(&line) {
                    return Ok(line);
                }
            }
        })
        .await
    }

    /// Everything that still comes, to the end, and the exit code.
    pub async fn rest(mut self) -> Result<(Vec<u8>, i32)> {
        let mut rest = Vec::new();
        let what = format!("the end of {}", self.what);
        within(DEADLINE, &what, async {
            self.stdout.read_to_end(&mut rest).await?;
            if let Some(watcher) = &self.watcher {
                watcher.shown(&rest);
            }
            let status = self.child.wait().await?;
            Ok((rest, status.code().unwrap_or(-1)))
        })
        .await
    }

    /// Reads what comes until it is dropped, or the program ends.
    pub async fn rest_until_killed(mut self) -> Result<()> {
        let mut line = Vec::new();
        while self.stdout.read_until(b'\n', &mut line).await? > 0 {
            if let Some(watcher) = &self.watcher {
                watcher.shown(&line);
            }
            line.clear();
        }
        Ok(())
    }

    /// Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.what))?;
        let pid = Pid::from_raw(pid.cast_signed()).context("a pid is not 0")?;
        kill_process(pid, Signal::INT).with_context(|| format!("interrupt {}", self.what))
    }
}

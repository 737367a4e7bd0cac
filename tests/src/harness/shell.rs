//! The shell of the person who uses a stack: an empty HOME, and nothing of this machine's settings.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{Cli, Counter, Repo, Stack};

/// A variable of the person's shell whose value is nobody's business.
pub(super) const PLANTED: &str = "MY_OTHER_TOKEN";

impl Stack {
    /// `sculpt ARGUMENTS`, as in the person's shell.
    pub fn sculpt<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cli {
        Cli::new(self.command("sculpt"), arguments).noted(self.promised.clone())
    }

    /// Any program, as in the person's shell.
    pub fn shell<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Cli {
        Cli::new(self.command(program), arguments)
    }

    /// A new repository with one commit, in a folder of its own.
    pub fn repo(&self) -> Result<Repo> {
        let repo = self.empty_repo("project")?;
        repo.commit("README.md", "A project.\n")?;
        Ok(repo)
    }

    /// A repository without a commit whose folder has this name.
    pub fn empty_repo(&self, name: &str) -> Result<Repo> {
        Repo::init(self.fresh("repos").join(name), &self.home())
    }

    /// An agent that prints numbered lines until it is told to stop.
    pub fn counter(&self) -> Result<Counter> {
        Counter::new(self.fresh("counters"), self.written())
    }

    /// The directory in which agents keep their own account of what they wrote, each in a file named by its
    /// `SCULPT_ATTEMPT`. They note a line after they have written it.
    pub fn written(&self) -> PathBuf {
        self.ground.root.path().join("written")
    }

    /// A path of this stack that nothing else uses.
    pub fn fresh(&self, kind: &str) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        self.ground.root.path().join(kind).join(number.to_string())
    }

    /// `sculpt run -q -d ARGUMENTS` in `directory`; gives the task's number.
    pub async fn detached<A: AsRef<OsStr>>(
        &self,
        directory: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let all = ["run", "-q", "-d"].map(Into::into).into_iter();
        let all = all.chain(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let output = self.sculpt(all).dir(directory).run().await?.done()?;
        let number = output.text();
        ensure!(number.parse::<u64>().is_ok(), "run -q prints the number alone, not {number:?}");
        Ok(number)
    }

    /// `sculpt show TASK -o json`.
    pub async fn show(&self, task: &str) -> Result<Value> {
        self.sculpt(["show", task, "-o", "json"]).run().await?.done()?.json()
    }

    /// `sculpt logs TASK` as it is piped.
    pub async fn logs(&self, task: &str) -> Result<Vec<u8>> {
        Ok(self.sculpt(["logs", task]).run().await?.done()?.stdout)
    }

    /// Waits with `sculpt wait` and fails unless that exits 0.
    pub async fn done(&self, task: &str) -> Result<Value> {
        self.sculpt(["wait", task]).run().await?.done()?;
        self.show(task).await
    }

    /// Where one of our programs is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.ground.bin.join(name)
    }

    /// One of our programs by its path, and any other by its name.
    pub fn installed(&self, program: &str) -> PathBuf {
        let own = self.program(program);
        if own.exists() { own } else { program.into() }
    }

    /// One of our programs, or another one, in the person's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.installed(program));
        self.isolate(&mut command);
        // Apart from `sculpt up` nobody writes the CLI's context.
        if let (Some(address), "sculpt") = (self.address(), program) {
            command.env("SCULPT_URL", format!("https://{address}"));
            if let Ok(token) = self.token() {
                command.env("SCULPT_TOKEN", token);
            }
        }
        command
    }

    fn isolate(&self, command: &mut Command) {
        // Whoever runs the tests has no say in what they show.
        let own = ["PATH", "TMPDIR", "RUST_BACKTRACE"].map(|name| Some((name, std::env::var_os(name)?)));
        command
            .env_clear()
            .envs(own.into_iter().flatten())
            .current_dir(self.ground.root.path())
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.ground.root.path().join("run"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LANG", "C.UTF-8")
            .env(PLANTED, &self.ground.planted)
            .envs(self.ground.environment.iter().map(|(name, value)| (name, value)));
        if let Some(account) = self.ground.account {
            command.uid(account).gid(account);
        }
    }
}

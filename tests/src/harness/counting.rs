//! A task under way whose agent counts, and what must be true of it whatever happens to the stack.

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::{GetTaskRequest, TaskState};

use super::{Counter, Stack, processes};

/// A counting agent that the controller knows as running.
#[derive(Debug)]
pub struct Counting {
    /// The agent's side.
    pub counter: Counter,
    /// Number of the task.
    pub task: String,
    /// The agent's process.
    pub pid: i32,
    born: u64,
}

impl Stack {
    /// Starts one without a repository; `arguments` are further ones of `sculpt run`.
    pub async fn counting(&self, arguments: &[&str]) -> Result<Counting> {
        let counter = self.counter()?;
        let command = counter.command();
        let all = ["--no-repo"].iter().chain(arguments).chain(&["--"]).copied();
        let task = self.detached(self.root(), all.chain(command.iter().map(String::as_str))).await?;
        let pid = counter.pid().await?;
        let born = processes::alive(pid).context("an agent that counts is alive")?;
        self.until(&task, "running", |task| task.state() == TaskState::Running).await?;
        counter.prints(10).await?;
        Ok(Counting { counter, task, pid, born })
    }

    /// Uuid of the newest attempt of `task`.
    pub async fn attempt_of(&self, task: &str) -> Result<String> {
        let request = GetTaskRequest { task: task.to_owned() };
        let found = self.api().await?.tasks.get_task(request).await?.into_inner().task.context("a task")?;
        Ok(found.attempts.last().context("the task has an attempt")?.uuid.clone())
    }
}

impl Counting {
    /// Fails unless the agent is the process it was.
    pub fn lives_on(&self) -> Result<()> {
        ensure!(processes::alive(self.pid) == Some(self.born), "the agent {} is not the process it was", self.pid);
        Ok(())
    }

    /// Whether the agent is gone.
    pub fn is_gone(&self) -> bool {
        processes::alive(self.pid) != Some(self.born)
    }

    /// Waits until what it prints now has reached the controller, and fails unless it is the process it was.
    pub async fn arrives(&self, stack: &Stack) -> Result<()> {
        let last = format!("line {}", self.counter.prints(10).await?);
        let arrived = |log: &[u8]| String::from_utf8_lossy(log).lines().any(|line| line == last);
        stack.log_until(&self.task, "what was printed since", arrived).await?;
        self.lives_on()
    }

    /// Ends it, and fails unless its only attempt completed and the log holds each line once.
    pub async fn ends_well(self, stack: &Stack) -> Result<()> {
        self.counter.stop()?;
        let shown = stack.done(&self.task).await?;
        ensure!(shown["state"] == "completed" && shown["attempt"] == 1, "{shown:#}");
        self.counter.check(&stack.logs(&self.task).await?)
    }
}

//! What is known about a stack, from every side.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{Ledger, Text, logs::Cut};

/// Everything that the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Rows of tasks, by number.
    pub tasks: Vec<TaskFacts>,
    /// Rows of attempts, by task and number, with what is known of their output.
    pub attempts: Vec<AttemptFacts>,
    /// The journal in its order.
    pub journal: Vec<JournalEntry>,
    /// The journal as the API shows it, one JSON object per event.
    pub events: Vec<Value>,
    /// Rows of refs.
    pub refs: Vec<RefFacts>,
    /// Living processes that belong to an attempt.
    pub processes: Vec<Spread>,
    /// Attempts that the executor has on its disk and the database does not know: not the controller's to end.
    pub unknown: BTreeSet<String>,
    /// Whether the executor runs, and so tidies up what has ended.
    pub executor_runs: bool,
    /// What this process was promised.
    pub ledger: Ledger,
    /// Everything that must hold no secret.
    pub texts: Vec<Text>,
}

/// A task's row.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TaskFacts {
    /// Its uuid.
    pub id: String,
    /// Its number.
    pub number: u64,
    /// Its revision.
    pub revision: u64,
    /// Its shown state.
    pub shown: String,
    /// Its title.
    pub title: String,
    /// Its branch without `refs/heads/`; empty without a repository.
    pub branch: String,
    /// Its project's uuid.
    pub project_id: Option<String>,
    /// The newest attempt.
    pub attempt_id: Option<String>,
}

/// An attempt's row, and its output as each side has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AttemptFacts {
    /// Its uuid.
    pub id: String,
    /// Its task's number.
    pub task: u64,
    /// Its task's uuid.
    pub task_id: String,
    /// Its number.
    pub number: u32,
    /// "running", "ended", …
    pub state: String,
    /// "completed", "failed", …
    pub outcome: Option<String>,
    /// Why it failed.
    pub cause: Option<String>,
    /// How its main process ended.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub exit_signal: Option<i32>,
    /// Whether the task was taken away from it.
    pub fenced: bool,
    /// What it has published.
    pub head: Option<String>,
    /// How many of its reports are applied.
    pub reports: u64,
    /// Length of the log that the controller holds.
    pub log_bytes: u64,
    /// Why it failed and the remarks on it, for people.
    pub told: String,
    /// Length of the log as the executor has told it.
    pub log_final: Option<u64>,
    /// The log as the API gives it.
    #[serde(skip)]
    pub log: Vec<u8>,
    /// From the first run of its bytes that was recorded to the last one, by the recorder's clock; none of an empty log.
    #[serde(skip)]
    pub recorded_for: Option<Duration>,
    /// The log as the spool on the executor's disk has it; none when there is no spool.
    #[serde(skip)]
    pub spool: Option<Vec<u8>>,
    /// What the agent says it wrote; none for an agent that keeps no account.
    #[serde(skip)]
    pub witness: Option<Vec<u8>>,
    /// From the first line that the agent noted to the last one.
    #[serde(skip)]
    pub noted_for: Option<Duration>,
    /// How much of what the agent wrote may be missing, when a scenario has said more than the outcome does.
    #[serde(skip)]
    pub cut: Option<Cut>,
}

impl AttemptFacts {
    /// For messages: `task 3 attempt 1 (uuid)`.
    pub fn name(&self) -> String {
        format!("task {} attempt {} ({})", self.task, self.number, self.id)
    }

    /// Whether it may still do something that counts.
    pub fn is_live(&self) -> bool {
        self.state != "ended"
    }
}

/// An entry of the journal that is about a task.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JournalEntry {
    /// Its kind, like `attempt.ended`.
    pub kind: String,
    /// The task's number.
    pub task: u64,
    /// The attempt's number.
    pub attempt: Option<u32>,
    /// The task's revision afterwards.
    pub revision: u64,
    /// The task's shown state afterwards.
    pub shown: Option<String>,
}

/// A ref's row.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RefFacts {
    /// The project's uuid.
    pub project_id: String,
    /// Its name.
    pub name: String,
    /// The commit.
    pub target: String,
}

/// A living process that carries an attempt's mark.
#[derive(Clone, Debug)]
pub struct Spread {
    /// The attempt's uuid.
    pub attempt: String,
    /// What it is, for people.
    pub process: String,
}

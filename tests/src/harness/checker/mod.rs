//! The one checker: what must hold at the end of every scenario, whatever was done to the stack meanwhile.
//!
//! [`Facts`] are gathered from every side that knows something: the database, the API, the executor's disk, `/proc`,
//! what the agents say they wrote, and what this process was promised. The rules are pure functions over them, one file
//! per invariant, so that a test can plant a violation into each.

mod ends;
mod facts;
mod gather;
mod ledger;
mod logs;
mod promises;
mod refs;
mod seats;
mod secrets;
mod spool;
mod strays;

use std::{fmt, time::Duration};

use anyhow::{Result, ensure};

pub use self::{
    facts::{AttemptFacts, Facts, JournalEntry, RefFacts, Spread, TaskFacts},
    gather::Seen,
    ledger::{Ledger, Mark, Promise, Shared, Shown, Watcher},
    logs::Cut,
    secrets::{Secret, Text},
};
use super::Stack;

/// How long what follows the end of a task (its log's end, the executor's tidying) may take.
const SETTLES: Duration = Duration::from_secs(20);

/// What must hold, by the names that the fault table uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: log bytes are the bytes that the agent wrote.
    Logs,
    /// I2: each task ends exactly once.
    Ends,
    /// I3: refs of a task come from one attempt, numbers only rise.
    Refs,
    /// I4: no process outside a live attempt.
    Strays,
    /// I5: acknowledged means durable.
    Promises,
    /// I6: no secret in database, spool or logs.
    Secrets,
    /// I7: who sat down beside an attempt got up.
    Seats,
}

/// One thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of which invariant.
    pub invariant: Invariant,
    /// What was found, with the task or file that it concerns.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{} ({:?}): {}", self.invariant as u8 + 1, self.invariant, self.text)
    }
}

/// Everything that does not hold in `facts`.
pub fn judge(facts: &Facts) -> Vec<Violation> {
    let rules: [(Invariant, Vec<String>); 7] = [
        (Invariant::Logs, logs::wrong(facts)),
        (Invariant::Ends, ends::wrong(facts)),
        (Invariant::Refs, refs::wrong(facts)),
        (Invariant::Strays, strays::wrong(facts)),
        (Invariant::Promises, promises::wrong(facts)),
        (Invariant::Secrets, secrets::wrong(facts)),
        (Invariant::Seats, seats::wrong(facts)),
    ];
    let all = rules.into_iter().flat_map(|(invariant, texts)| texts.into_iter().map(move |text| (invariant, text)));
    all.map(|(invariant, text)| Violation { invariant, text }).collect()
}

impl Stack {
    /// Gathers the facts and judges them, again for a while as long as something does not hold: a log's last bytes or
    /// the end of a shim may be on their way. What was violated once stays visible in the journal.
    pub async fn verdict(&self) -> Result<Vec<Violation>> {
        let begun = std::time::Instant::now();
        loop {
            let found = judge(&self.facts().await?);
            if found.is_empty() || begun.elapsed() > SETTLES {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails unless every invariant holds. All tasks must be over.
    pub async fn check(&self) -> Result<()> {
        let found = self.verdict().await?;
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        ensure!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
        Ok(())
    }
}

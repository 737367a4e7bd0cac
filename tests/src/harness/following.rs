//! Somebody who follows an agent's log and the journal while the stack is harmed.

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{Counting, Follow, Stack, eventually};

/// A follower of both, from their beginnings.
#[derive(Debug)]
pub struct Following {
    log: JoinHandle<Result<(Vec<u8>, i32)>>,
    events: JoinHandle<Result<()>>,
}

impl Stack {
    /// Follows the log of `counting` and the journal with the CLI, as a person does; both have begun when it returns, as
    /// one who cannot even begin is told so at once. Nobody else may follow the journal.
    pub async fn following(&self, counting: &Counting) -> Result<Following> {
        let mut log = self.sculpt(["logs", "-f", &counting.task]).follow()?;
        let mut events = self.sculpt(["events", "-f", "-o", "json"]).follow()?;
        let first = log.line(|_| true).await?;
        events.line(|_| true).await?;
        let log = async move {
            let (rest, code) = log.rest().await?;
            Ok(([first.as_bytes(), b"\n", &rest].concat(), code))
        };
        Ok(Following { log: tokio::spawn(log), events: tokio::spawn(Follow::rest_until_killed(events)) })
    }
}

impl Following {
    /// Ends the agent, and fails unless both followers were shown everything once, in order.
    pub async fn saw_all(self, stack: &Stack, counting: Counting) -> Result<()> {
        counting.counter.stop()?;
        stack.done(&counting.task).await?;
        let (log, code) = self.log.await??;
        ensure!(code == 0, "logs -f exited {code}");
        counting.counter.check(&log)?;
        counting.ends_well(stack).await?;
        let output = stack.sculpt(["events", "-o", "json"]).run_unnoted().await?.done()?.text();
        let all: Vec<Value> = output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let seen = || Ok((stack.ledger().events().len() >= all.len()).then_some(()));
        let waited = eventually("the follower of the journal to be shown its end", seen).await;
        self.events.abort();
        waited?;
        let shown = stack.ledger().events().to_vec();
        ensure!(shown == all, "{} events are in the journal, {} were shown, not the same", all.len(), shown.len());
        Ok(())
    }
}

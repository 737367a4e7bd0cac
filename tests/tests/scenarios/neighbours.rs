//! Many executors of one account on one machine, each a plain process that somebody started in the foreground.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Stack};

/// As many as one person has on one machine.
const EXECUTORS: usize = 10;

#[tokio::test]
async fn ten_executors_of_an_ordinary_user_work_side_by_side() -> Result<()> {
    let stack = Stack::options().ordinary().slots(1).parts().await?;
    let mut others = Vec::new();
    for number in 1..EXECUTORS {
        let name = format!("worker-{number}");
        others.push(stack.another_executor(&stack.data().join(&name), &name).await?);
    }
    // As many as there are slots, so that all run at the same time.
    let mut running = Vec::new();
    for _ in 0..EXECUTORS {
        running.push(stack.counting(&[]).await?);
    }
    let mut seen = BTreeSet::new();
    for counting in &running {
        counting.arrives(&stack).await?;
        seen.insert(stack.show(&counting.task).await?["executor"].to_string());
    }
    ensure!(seen.len() == EXECUTORS, "they run on {seen:?}");
    for counting in running {
        counting.ends_well(&stack).await?;
    }
    for other in others {
        ensure!(other.end(Signal::TERM, DEADLINE).await?.success());
    }
    stack.finish().await
}

//! Several executors of one account on one machine, each a plain process that somebody started in the foreground.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Stack};

/// Beside the first.
const OTHERS: [&str; 2] = ["worker-1", "worker-2"];

/// Ends once the gate is there.
const WAITS: &str = r#"until [ -e "$1" ]; do sleep 0.05; done; echo through"#;

#[tokio::test]
async fn three_executors_of_an_ordinary_user_work_side_by_side() -> Result<()> {
    let stack = Stack::options().ordinary().slots(1).parts().await?;
    let mut others = Vec::new();
    for name in OTHERS {
        others.push(stack.another_executor(&stack.data().join(name), name).await?);
    }
    let gate = stack.root().join("gate");
    let command = ["--no-repo", "--no-tty", "--", "sh", "-c", WAITS, "waits", &gate.to_string_lossy()];
    // As many as there are slots, so that all run at the same time.
    let (mut tasks, mut executors) = (Vec::new(), BTreeSet::new());
    for _ in 0..=OTHERS.len() {
        tasks.push(stack.detached(stack.root(), command).await?);
    }
    for task in &tasks {
        stack.sculpt(["wait", task, "--for", "running"]).run().await?.done()?;
        executors.insert(stack.show(task).await?["executor"].to_string());
    }
    ensure!(executors.len() == tasks.len(), "they run on {executors:?}");
    fs::write(gate, "")?;
    for task in &tasks {
        let shown = stack.done(task).await?;
        ensure!(shown["state"] == "completed" && shown["attempt"] == 1, "{shown:#}");
        ensure!(stack.logs(task).await? == b"through\n", "the log of task {task}");
    }
    for other in others {
        ensure!(other.end(Signal::TERM, DEADLINE).await?.success());
    }
    stack.finish().await
}

//! Full disks: the agent waits or goes on, nothing is lost, and all recovers by itself. Mounting needs root.

use anyhow::{Result, ensure};
use sculpt_tests::harness::{Disk, eventually};

#[tokio::test]
async fn an_executor_without_space_holds_the_agent_and_loses_nothing() -> Result<()> {
    let Some((disk, stack)) = Disk::under("executor", 24).await? else { return Ok(()) };
    let gate = stack.root().join("gate");
    let path = gate.to_string_lossy();
    let script = r#"echo ready; while [ ! -e "$1" ]; do sleep 0.02; done; seq 1 600000"#;
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sh", "-c", script, "x", &path]).await?;
    stack.log_until(&task, "a sign of life", |log| log == b"ready\n").await?;
    disk.fill(1 << 20)?;
    std::fs::write(&gate, "")?;
    eventually("the disk to be full", || Ok((disk.free()? < 16 << 10).then_some(()))).await?;
    disk.relieve()?;
    let shown = stack.done(&task).await?;
    ensure!(shown["state"] == "completed", "{shown:#}");
    let expected: String =
        std::iter::once("ready\n".to_owned()).chain((1..=600_000).map(|n| format!("{n}\n"))).collect();
    ensure!(stack.logs(&task).await? == expected.as_bytes(), "the log is not what was printed");
    stack.finish().await
}

#[tokio::test]
async fn a_controller_without_space_recovers_and_the_agent_goes_on() -> Result<()> {
    let Some((disk, stack)) = Disk::under("controller", 200).await? else { return Ok(()) };
    let counting = stack.counting(&[]).await?;
    disk.fill(0)?;
    counting.counter.prints(200).await?;
    disk.relieve()?;
    counting.arrives(&stack).await?;
    counting.ends_well(&stack).await?;
    stack.finish().await
}

//! Agents that take all they can get.

use anyhow::{Result, ensure};
use sculpt_tests::harness::Stack;

/// Doubles itself until it is refused, or until there are 4,096 of it.
const BOMB: &str = r#"exec perl -e '$| = 1; for (1..12) { defined fork or $refused++; select undef, undef, undef, 0.02 }
    print "refused\n" if $refused; sleep 4242'"#;

#[tokio::test]
async fn a_fork_bomb_leaves_its_host_to_others_and_is_stopped() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can limit what an attempt takes");
        return Ok(());
    }
    let stack = Stack::options().slots(3).settings("pids_limit = 150").separate().parts().await?;
    let bomb = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", BOMB]).await?;
    stack.log_until(&bomb, "it to be refused", |log| log.starts_with(b"refused")).await?;
    let neighbour = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", "seq 1 1000 | tail -n 1"]).await?;
    let shown = stack.done(&neighbour).await?;
    ensure!(shown["state"] == "completed", "{shown:#}");
    stack.sculpt(["stop", &bomb]).run().await?.done()?;
    stack.sculpt(["wait", &bomb]).run().await?.exits(4)?;
    let shown = stack.sculpt(["show", &bomb]).run().await?.done()?.text();
    ensure!(shown.contains("more than the 150 processes"), "people see what it wanted: {shown}");
    stack.finish().await
}

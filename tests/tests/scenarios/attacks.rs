//! What tidies up, and agents that break what holds them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use sculpt_tests::harness::{Stack, eventually};

/// The directories of the sockets of all attempts, wherever this machine has them.
fn runtime(stack: &Stack) -> Vec<PathBuf> {
    let places = [stack.data().join("executor/run"), stack.root().join("run/sculpt")];
    places.iter().flat_map(|place| entries(place)).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// A logout, or what tidies up temporary directories, removes sockets under living agents.
#[tokio::test]
async fn an_attempt_whose_sockets_were_removed_is_not_lost() -> Result<()> {
    let mut stack = Stack::parts().await?;
    for stopped in [false, true] {
        let counting = stack.counting(&[]).await?;
        let removed = runtime(&stack);
        ensure!(!removed.is_empty(), "no directory of sockets was found");
        // What was connected stays so; a new executor has to find its way.
        stack.executor()?.kill().await?;
        removed.iter().try_for_each(fs::remove_dir_all)?;
        stack.start_executor().await?;
        if stopped {
            stack.sculpt(["stop", &counting.task]).run().await?.done()?;
            stack.sculpt(["wait", &counting.task]).run().await?.exits(4)?;
            eventually("the agent to end", || Ok(counting.is_gone().then_some(()))).await?;
        } else {
            counting.arrives(&stack).await?;
            counting.ends_well(&stack).await?;
        }
    }
    stack.finish().await
}

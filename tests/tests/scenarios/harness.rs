//! The harness notices what is left over; otherwise a scenario that passes would prove nothing.

use std::{os::unix::net::UnixListener, process::Command};

use anyhow::Result;
use sculpt_tests::harness::Stack;

#[tokio::test]
async fn a_left_over_socket_is_noticed() -> Result<()> {
    let stack = Stack::options().empty().await?;
    let _listener = UnixListener::bind(stack.data().join("forgotten"))?;
    let error = stack.finish().await.expect_err("a socket is left over");
    assert!(error.to_string().contains("forgotten"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_workspace_without_an_attempt_is_noticed() -> Result<()> {
    let stack = Stack::options().empty().await?;
    std::fs::create_dir_all(stack.data().join("executor/workspaces/stray"))?;
    let error = stack.finish().await.expect_err("a workspace is left over");
    assert!(error.to_string().contains("stray"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_process_is_found_by_each_of_its_traces_and_ends_with_the_stack() -> Result<()> {
    let stack = Stack::options().empty().await?;
    let root = stack.root().to_owned();
    let attempt = uuid::Uuid::new_v4().to_string();
    std::fs::create_dir_all(stack.data().join("executor/attempts").join(&attempt))?;
    let sleeper = || {
        let mut command = Command::new("sleep");
        command.arg("4242").current_dir("/");
        command
    };
    let mut children = [
        sleeper().current_dir(&root).spawn()?,
        sleeper().env("SOMETHING", root.join("x")).spawn()?,
        sleeper().env("SCULPT_ATTEMPT", &attempt).spawn()?,
    ];
    let found = stack.processes("4242");
    assert_eq!(found.len(), 3, "{found:#?}");
    drop(stack);
    for child in &mut children {
        assert!(!child.wait()?.success(), "it was killed");
    }
    assert!(!root.exists());
    Ok(())
}

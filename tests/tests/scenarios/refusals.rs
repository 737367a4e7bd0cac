//! What cannot work is refused before anything is sent, with a word on how to mend it.

use anyhow::{Result, ensure};
use sculpt_tests::harness::Stack;

#[tokio::test]
async fn bad_input_is_refused_and_nothing_is_created() -> Result<()> {
    let stack = Stack::options().settings("[agents.robot]\ncommand = ['echo', '{prompt}']\n").up().await?;
    let repo = stack.repo()?;
    let run = async |arguments: &[&str]| {
        let all = ["run", "-d"].iter().chain(arguments);
        stack.sculpt(all).dir(repo.path()).run().await
    };
    run(&["--agent", "robot", ""]).await?.exits(64)?.says("prompt")?;
    run(&["--agent", "robot", " \n "]).await?.exits(64)?.says("prompt")?;
    run(&["--agent", "robot", "--base", "no-such-branch", "x"]).await?.exits(64)?.says("no-such-branch")?;
    let long = "x".repeat((1 << 20) + 1);
    let all = ["run", "-d", "--agent", "robot"];
    stack.sculpt(all).dir(repo.path()).stdin(long).run().await?.exits(64)?.says("MiB")?;
    // No agent is named and there is no default: the error names those there are.
    let output = run(&["do something"]).await?;
    ensure!(output.code != 0, "{output:?}");
    output.says("robot")?;

    let outside = stack.root().join("outside");
    std::fs::create_dir(&outside)?;
    let output = stack.sculpt(["run", "-d", "--", "true"]).dir(&outside).run().await?;
    output.exits(64)?.says("--no-repo")?;

    let empty = stack.empty_repo("empty")?;
    stack.sculpt(["run", "-d", "--", "true"]).dir(empty.path()).run().await?.exits(64)?.says("commit")?;

    let deep = stack.repo()?;
    for number in 0..3 {
        deep.commit("file", format!("{number}"))?;
    }
    let shallow = deep.clone_to(stack.fresh("repos"), &["--depth", "1"])?;
    let output = stack.sculpt(["run", "-d", "--", "true"]).dir(shallow.path()).run().await?;
    output.exits(64)?.says("unshallow")?;

    let tasks = stack.sculpt(["ls", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(tasks.as_array().is_some_and(Vec::is_empty), "something was created: {tasks:#}");
    stack.finish().await
}

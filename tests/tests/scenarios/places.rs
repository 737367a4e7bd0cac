//! Where sculpt finds itself: odd shells, long paths, closed doors.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::Stack;

#[tokio::test]
async fn a_database_url_of_another_program_is_left_alone() -> Result<()> {
    let stack = Stack::options().env("DATABASE_URL", "postgres://somebody@127.0.0.1:1/else").up().await?;
    let mut api = stack.api().await?;
    let info = api.system.get_info(sculpt_proto::v1::GetInfoRequest {}).await?.into_inner();
    ensure!(info.postgres.contains("built-in"), "{}", info.postgres);
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sh", "-c", "env | cut -d= -f1"]).await?;
    stack.done(&task).await?;
    let environment = String::from_utf8(stack.logs(&task).await?)?;
    ensure!(!environment.contains("DATABASE_URL"), "{environment}");
    stack.finish().await
}

#[tokio::test]
async fn a_data_directory_of_200_characters() -> Result<()> {
    let name = format!("{}/{}", "d".repeat(100), "e".repeat(86));
    let stack = Stack::options().data_dir(name).up().await?;
    ensure!(stack.data().as_os_str().len() >= 200, "{}", stack.data().display());
    let repo = stack.repo()?;
    let script = "echo hi > new.txt && git add . && git commit -qm new && tput cols";
    let task = stack.detached(repo.path(), ["--", "sh", "-c", script]).await?;
    assert_eq!(stack.done(&task).await?["state"], "needs_review");
    assert_eq!(stack.logs(&task).await?, b"200\r\n");
    stack.finish().await
}

/// Everything works without root, also when the tests themselves run as root.
#[tokio::test]
async fn an_ordinary_user_needs_nothing_more() -> Result<()> {
    let stack = Stack::options().ordinary().up().await?;
    let task =
        stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", "id -u; echo > file && echo written"]).await?;
    stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    ensure!(!log.starts_with("0\r\n") && log.ends_with("written\r\n"), "{log}");
    stack.finish().await?;
    // Nor to keep agents from what is not theirs.
    let stack = Stack::options().ordinary().separate().up().await?;
    let key = stack.executor_data().join("identity/key.pem").to_string_lossy().into_owned();
    ensure!(fs::exists(&key)?, "{key}");
    let script = r#"echo > file && ls file; cat "$1" || echo closed"#;
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sh", "-c", script, "x", &key]).await?;
    stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    ensure!(log.starts_with("file\n") && log.ends_with("closed\n"), "{log}");
    stack.finish().await
}

/// As root, an agent under an account of its own reads neither the executor's files nor another attempt's.
#[tokio::test]
async fn separated_attempts_do_not_see_each_other() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let stack = Stack::options().separate().up().await?;
    let repo = stack.repo()?;
    let gate = stack.root().join("gate");
    let path = gate.to_string_lossy();
    let script = r#"id -u; pwd; echo secret > secret; while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let first = stack.detached(repo.path(), ["--", "sh", "-c", script, "x", &path]).await?;
    let log =
        stack.log_until(&first, "its place", |log| log.iter().filter(|byte| **byte == b'\n').count() >= 2).await?;
    let log = String::from_utf8(log)?;
    let mut lines = log.lines();
    ensure!(lines.next().is_some_and(|uid| uid != "0"), "{log}");
    let place = lines.next().context("its place")?;
    let data = stack.data().to_string_lossy();
    let spy =
        r#"id -u; cat "$1/secret" "$2"/controller/tokens/user "$2"/executor/attempts/*/* && echo READ; echo over"#;
    let all = ["--no-repo", "--", "sh", "-c", spy, "x", place, &data];
    let second = stack.detached(stack.root(), all).await?;
    stack.done(&second).await?;
    let spied = String::from_utf8(stack.logs(&second).await?)?;
    ensure!(!spied.contains("READ") && spied.contains("over"), "{spied}");
    ensure!(spied.lines().next() != log.lines().next(), "both run as {:?}", spied.lines().next());
    std::fs::write(&gate, "")?;
    stack.done(&first).await?;
    // It works and publishes like any other.
    let script = "echo hi > new.txt && git add new.txt && git commit -qm new";
    let task = stack.detached(repo.path(), ["--", "sh", "-c", script]).await?;
    ensure!(stack.done(&task).await?["state"] == "needs_review");
    stack.finish().await
}

#[tokio::test]
async fn tokens_are_their_owners_alone_and_a_wrong_one_is_refused() -> Result<()> {
    let stack = Stack::up().await?;
    for file in ["controller/tokens/user", "controller/authority/tls.pem", "executor/identity/key.pem"] {
        let path = stack.data().join(file);
        let mode = fs::metadata(&path).with_context(|| path.display().to_string())?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{}: {mode:o}", path.display());
    }
    stack.sculpt(["ls"]).env("SCULPT_TOKEN", "wrong").run().await?.exits(77)?;
    stack.sculpt(["run", "--no-repo", "-d", "--", "true"]).env("SCULPT_TOKEN", "wrong").run().await?.exits(77)?;
    // What opens the executors' door does not open the users'.
    stack.sculpt(["ls"]).env("SCULPT_TOKEN", stack.join_token("default").await?).run().await?.exits(77)?;
    stack.finish().await
}

/// Whoever listens on the way learns no token from an address that was mistyped.
#[tokio::test]
async fn an_address_in_the_clear_is_refused_before_anything_is_sent() -> Result<()> {
    let stack = Stack::up().await?;
    let url = stack.url()?.replace("https://", "http://");
    stack.sculpt(["ls"]).env("SCULPT_URL", &url).run().await?.exits(64)?.says("https://")?;
    let data = stack.root().join("other").to_string_lossy().into_owned();
    let join = ["join", &url, "--token-file", "-", "--data-dir", &data];
    let output = stack.shell("sculpt-executor", join).stdin(stack.join_token("default").await?).run().await?;
    output.exits(64)?.says("https://")?;
    stack.finish().await
}

#[tokio::test]
async fn doctor_finds_every_part_well() -> Result<()> {
    let stack = Stack::up().await?;
    stack.sculpt(["doctor"]).run().await?.done()?;
    let shells = ["bash", "zsh", "fish"];
    for shell in shells {
        let script = stack.sculpt(["completion", shell]).run().await?.done()?.text();
        ensure!(script.contains("sculpt"), "{shell}: {script}");
    }
    let executors = stack.sculpt(["executor", "ls", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(executors[0]["liveness"] == "connected", "{executors:#}");
    let name = executors[0]["name"].as_str().context("a name")?;
    let shown = stack.sculpt(["-o", "json", "executor", "show", name]).run().await?.done()?.json()?;
    ensure!(shown["slots"] == 4, "{shown:#}");
    stack.finish().await
}

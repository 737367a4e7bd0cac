//! Where sculpt finds itself: odd shells, long paths, closed doors.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Cli, Stack};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_database_url_of_another_program_is_left_alone() -> Result<()> {
    let stack = Stack::options().env("DATABASE_URL", "postgres://somebody@127.0.0.1:1/else").up().await?;
    let mut api = stack.api().await?;
    let info = api.system.get_info(sculpt_proto::v1::GetInfoRequest {}).await?.into_inner();
    ensure!(info.postgres.contains("built-in"), "{}", info.postgres);
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "env"]).await?;
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

#[tokio::test]
async fn tokens_are_their_owners_alone_and_a_wrong_one_is_refused() -> Result<()> {
    let stack = Stack::up().await?;
    for whose in ["user", "executor"] {
        let path = stack.data().join("controller/tokens").join(whose);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{}: {mode:o}", path.display());
    }
    stack.sculpt(["ls"]).env("SCULPT_TOKEN", "wrong").run().await?.exits(77)?;
    stack.sculpt(["run", "--no-repo", "-d", "--", "true"]).env("SCULPT_TOKEN", "wrong").run().await?.exits(77)?;
    // What opens the executors' door does not open the users'.
    stack.sculpt(["ls"]).env("SCULPT_TOKEN", stack.token("executor")?).run().await?.exits(77)?;
    stack.finish().await
}

#[tokio::test]
async fn until_identity_stands_only_loopback_is_listened_on_and_dialled() -> Result<()> {
    let stack = Stack::options().empty().await?;
    let data = stack.data().join("other").to_string_lossy().into_owned();
    let program = |name: &str, arguments: &[&str]| -> Result<Cli> {
        let path = stack.command(name).as_std().get_program().to_str().context("a path in UTF-8")?.to_owned();
        Ok(stack.shell(&path, arguments).deadline(SOON))
    };
    let token = stack.root().join("token").to_string_lossy().into_owned();
    fs::write(&token, "t\n")?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let refused = [
        program("sculpt", &["up", "--data-dir", &data, "--listen", "0.0.0.0:0"])?,
        program("sculpt-controller", &["serve", "--data-dir", &data, "--listen", "0.0.0.0:0"])?,
        program("sculpt-controller", &["serve", "--data-dir", &data, "--executor-listen", "[::]:0"])?,
        program(
            "sculpt-executor",
            &["run", "--data-dir", &data, "--controller", "http://192.0.2.1:7433", "--token-file", &token],
        )?,
    ];
    for run in refused {
        let output = run.run().await?;
        ensure!(output.code != 0, "not refused: {output:?}");
        output.says("loopback")?;
    }
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

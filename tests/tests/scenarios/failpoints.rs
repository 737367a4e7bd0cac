//! kill -9 at every named moment: around each commit and acknowledgement of the controller, each durable step of the
//! executor and each word of the shim. Whoever dies is started again, and everything arrives.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sculpt_failpoints::{CONTROLLER, EXECUTOR, SHIM, VARIABLE};
use sculpt_proto::v1::ListTasksRequest;
use sculpt_tests::harness::{Cli, Repo, Stack, eventually};

/// Prints and notes ten lines and commits: it passes every point but those of a session's beginning.
const SCRIPT: &str = r#"
for n in 1 2 3 4 5 6 7 8 9 10; do
    echo "line $n"
    echo "line $n" >> "$1/$SCULPT_ATTEMPT"
done
echo "$SCULPT_ATTEMPT" > made.txt && git add made.txt && git commit -q -m Made
"#;

/// Where points are armed.
struct Points(tempfile::TempDir);

impl Points {
    fn arm(&self, point: &str) -> Result<()> {
        fs::write(self.0.path().join(point), "").with_context(|| format!("arm {point}"))
    }

    fn struck(&self, point: &str) -> bool {
        self.0.path().join(format!("{point}.hit")).exists()
    }

    async fn strikes(&self, point: &str) -> Result<()> {
        let what = format!("somebody to die at {point}");
        eventually(&what, || Ok(self.struck(point).then_some(()))).await
    }
}

/// A stack whose processes die at what is armed, and a repository.
async fn mortal() -> Result<(Stack, Points, Repo)> {
    let points = Points(tempfile::Builder::new().prefix("sct-points-").tempdir_in("/tmp")?);
    let path = points.0.path().to_str().context("a path of plain letters")?;
    let stack = Stack::options().env(VARIABLE, path).parts().await?;
    let repo = stack.repo()?;
    Ok((stack, points, repo))
}

/// Starts again who has died at a point of this list.
async fn revive(stack: &mut Stack, point: &str) -> Result<()> {
    if CONTROLLER.contains(&point) {
        stack.controller()?.gone().await?;
        stack.start_controller().await
    } else if EXECUTOR.contains(&point) {
        stack.executor()?.gone().await?;
        stack.start_executor().await
    } else {
        // Nobody starts a shim again.
        Ok(())
    }
}

/// The number of the task with this title, if it was made.
async fn number_of(stack: &Stack, title: &str) -> Result<Option<String>> {
    let request = ListTasksRequest { page_size: 1000, ..Default::default() };
    let tasks = stack.api().await?.tasks.list_tasks(request).await?.into_inner().tasks;
    Ok(tasks.iter().find(|task| task.title == title).map(|task| task.number.to_string()))
}

/// What a person types for a task whose title is `point`.
fn order(stack: &Stack, repo: &Repo, point: &str) -> Cli {
    let written = stack.written();
    let words = ["run", "-q", "-d", "--title", point, "--", "sh", "-c", SCRIPT, "x"].map(Path::new);
    stack.sculpt(words.into_iter().chain([written.as_path()])).dir(repo.path())
}

/// Creates a task on whose way somebody dies at `point`; its number.
async fn create(stack: &mut Stack, points: &Points, repo: &Repo, point: &str) -> Result<String> {
    let first = tokio::spawn(order(stack, repo, point).run());
    points.strikes(point).await?;
    revive(stack, point).await?;
    let first = first.await??;
    if first.code == 0 {
        return Ok(first.text());
    }
    // Nobody has answered: it may be there or not.
    match number_of(stack, point).await? {
        Some(task) => Ok(task),
        None => Ok(order(stack, repo, point).run().await?.done()?.text()),
    }
}

async fn dies_at(stack: &mut Stack, points: &Points, repo: &Repo, point: &str) -> Result<()> {
    points.arm(point)?;
    if point.starts_with("session.") {
        // It is passed when the executor connects again.
        stack.controller()?.kill().await?;
        stack.start_controller().await?;
    }
    let task = create(stack, points, repo, point).await?;
    let code = if point == "exit.before_write" { 1 } else { 0 };
    stack.sculpt(["wait", &task]).run().await?.exits(code)?;
    let shown = stack.show(&task).await?;
    if code == 0 {
        ensure!(shown["state"] == "needs_review" && shown["attempt"] == 1, "{shown:#}");
    } else {
        ensure!(shown["cause"] == "internal", "{shown:#}");
    }
    Ok(())
}

/// Every point of the lists in turn, on one stack; the checker looks at all of it in the end.
#[tokio::test]
async fn death_at_every_named_moment_loses_nothing() -> Result<()> {
    let (mut stack, points, repo) = mortal().await?;
    let all = CONTROLLER.into_iter().chain(EXECUTOR).chain(SHIM);
    for point in all.clone() {
        dies_at(&mut stack, &points, &repo, point).await.with_context(|| format!("death at {point}"))?;
    }
    let missed: Vec<_> = all.filter(|point| !points.struck(point)).collect();
    ensure!(missed.is_empty(), "nobody has died at {missed:?}");
    stack.finish().await
}

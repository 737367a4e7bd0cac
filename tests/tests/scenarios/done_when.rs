//! What a person does first, word for word.

use anyhow::Result;
use sculpt_tests::harness::{Repo, Stack};

#[tokio::test]
async fn the_main_job() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.repo()?;
    a_long_log_is_exact(&stack, &repo).await?;
    without_a_terminal_bytes_are_exact(&stack, &repo).await?;
    commits_come_back_as_a_branch(&stack, &repo).await?;
    ten_tasks_at_once_all_end(&stack, &repo).await?;
    stack.finish().await
}

fn lines(to: u32, end: &str) -> Vec<u8> {
    (1..=to).map(|number| format!("{number}{end}")).collect::<String>().into_bytes()
}

async fn a_long_log_is_exact(stack: &Stack, repo: &Repo) -> Result<()> {
    let task = stack.detached(repo.path(), ["--", "sh", "-c", "seq 1 100000"]).await?;
    stack.sculpt(["wait", &task]).run().await?.done()?;
    let log = stack.logs(&task).await?;
    assert!(log == lines(100_000, "\r\n"), "{} bytes, not what was printed", log.len());
    Ok(())
}

async fn without_a_terminal_bytes_are_exact(stack: &Stack, repo: &Repo) -> Result<()> {
    let task = stack.detached(repo.path(), ["--no-tty", "--", "sh", "-c", "seq 1 100000"]).await?;
    stack.sculpt(["wait", &task]).run().await?.done()?;
    let log = stack.logs(&task).await?;
    assert!(log == lines(100_000, "\n"), "{} bytes, not what was printed", log.len());
    Ok(())
}

async fn commits_come_back_as_a_branch(stack: &Stack, repo: &Repo) -> Result<()> {
    let script = "echo hi > new.txt && git add new.txt && git commit -qm new";
    stack.sculpt(["run", "--", "sh", "-c", script]).dir(repo.path()).run().await?.done()?;
    let newest = stack.sculpt(["ls", "--limit", "1", "-o", "json"]).run().await?.done()?.json()?;
    let task = newest[0]["number"].to_string();
    let shown = stack.show(&task).await?;
    assert_eq!(shown["state"], "needs_review", "{shown:#}");
    assert_eq!(shown["base"], repo.head()?.as_str(), "{shown:#}");

    let diff = stack.sculpt(["diff", &task]).dir(repo.path()).run().await?.done()?.text();
    assert!(diff.contains("new.txt") && diff.contains("+hi"), "{diff}");
    let stat = stack.sculpt(["diff", &task, "--stat"]).dir(repo.path()).run().await?.done()?.text();
    assert!(stat.contains("new.txt"), "{stat}");

    stack.sculpt(["fetch"]).dir(repo.path()).run().await?.done()?;
    let branch = repo.fetched(&task)?;
    assert!(branch.ends_with(shown["branch"].as_str().unwrap_or("?")), "{branch} is not that of {shown:#}");
    assert_eq!(repo.git(["rev-parse", &branch])?, shown["head"].as_str().unwrap_or_default());
    assert_eq!(repo.git(["show", &format!("{branch}:new.txt")])?, "hi");
    Ok(())
}

async fn ten_tasks_at_once_all_end(stack: &Stack, repo: &Repo) -> Result<()> {
    let mut tasks = Vec::new();
    for number in 0..10 {
        tasks.push(stack.detached(repo.path(), ["--", "sh", "-c", &format!("echo task {number}")]).await?);
    }
    let wait = ["wait".to_owned()].into_iter().chain(tasks.clone());
    stack.sculpt(wait).run().await?.done()?;
    for (number, task) in tasks.iter().enumerate() {
        assert_eq!(stack.logs(task).await?, format!("task {number}\r\n").into_bytes());
        assert_eq!(stack.show(task).await?["state"], "completed");
    }
    Ok(())
}

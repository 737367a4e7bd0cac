//! Repositories as they are: odd places, odd names, odd histories.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Repo, Stack};
use serde_json::Value;

/// Runs `script` on what is checked out in `repo`, to its end.
async fn run(stack: &Stack, repo: &Repo, arguments: &[&str], script: &str) -> Result<(String, Value)> {
    let command = ["--", "sh", "-c", script];
    let task = stack.detached(repo.path(), arguments.iter().chain(&command)).await?;
    stack.sculpt(["wait", &task]).run().await?;
    let shown = stack.show(&task).await?;
    Ok((task, shown))
}

const COMMIT: &str = "echo hi > new.txt && git add new.txt && git commit -qm new";

#[tokio::test]
async fn a_task_starts_where_and_as_the_person_stands() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.repo()?;
    let first = repo.head()?;
    repo.commit("src/deep/file", "x")?;

    // From a subfolder the agent starts there; the base is what is checked out.
    let subfolder = repo.path().join("src/deep");
    let task =
        stack.detached(&subfolder, ["--", "sh", "-c", "ls; git rev-parse HEAD; git branch --show-current"]).await?;
    let shown = stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    let branch = shown["branch"].as_str().context("a branch")?;
    ensure!(log == format!("file\r\n{}\r\n{branch}\r\n", repo.head()?), "{log:?}");

    // Detached HEAD.
    repo.git(["checkout", "-q", &first])?;
    let (_, shown) = run(&stack, &repo, &[], COMMIT).await?;
    ensure!(shown["state"] == "needs_review" && shown["base"] == first.as_str(), "{shown:#}");
    repo.git(["checkout", "-q", "main"])?;

    // A base that is named.
    let (_, shown) = run(&stack, &repo, &["--base", "main~1"], "true").await?;
    ensure!(shown["base"] == first.as_str() && shown["state"] == "completed", "{shown:#}");

    // What is not committed goes along only when asked, and stays as it is.
    std::fs::write(repo.path().join("README.md"), "changed\n")?;
    std::fs::write(repo.path().join("untracked"), "new\n")?;
    let before = repo.git(["status", "--porcelain"])?;
    let task = stack.detached(repo.path(), ["--include-changes", "--", "cat", "README.md", "untracked"]).await?;
    stack.done(&task).await?;
    ensure!(stack.logs(&task).await? == b"changed\r\nnew\r\n");
    ensure!(repo.git(["status", "--porcelain"])? == before);
    stack.finish().await
}

#[tokio::test]
async fn names_of_any_bytes_survive() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.empty_repo("a project with spaces; $(touch x) #{x}")?;
    let names: [&[u8]; 4] = [b"with space", b"new\nline", b"latin-\xe9\xff", b"-dash"];
    for name in names {
        repo.commit(OsStr::from_bytes(name), name)?;
    }
    let script = "for f in ./*; do cp \"$f\" \"$f.copy\"; done; git add --all; git commit -qm copies";
    let (task, shown) = run(&stack, &repo, &[], script).await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");
    stack.sculpt(["diff", &task]).run().await?.done()?;
    stack.sculpt(["diff", &task, "--stat"]).run().await?.done()?;
    stack.sculpt(["diff", &task, "-o", "json"]).run().await?.done()?.json()?;
    stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
    let fetched = repo.fetched(&task)?;
    let count = repo.git(["-c", "core.quotePath=true", "ls-tree", "--name-only", &fetched])?.lines().count();
    ensure!(count == 8, "{count} files");
    // An argument of any bytes reaches the command too.
    let argument = OsStr::from_bytes(b"caf\xe9");
    let all = ["--no-tty", "--", "printf", "%s"].map(OsStr::new).into_iter().chain([argument]);
    let task = stack.detached(repo.path(), all).await?;
    stack.done(&task).await?;
    ensure!(stack.logs(&task).await? == b"caf\xe9");
    stack.finish().await
}

#[tokio::test]
async fn projects_are_told_apart_by_history_not_by_folder() -> Result<()> {
    let stack = Stack::up().await?;
    let (one, two) = (stack.empty_repo("app")?, stack.empty_repo("app")?);
    one.commit("file", "one")?;
    two.commit("file", "two")?;
    let (_, first) = run(&stack, &one, &[], "true").await?;
    let (_, second) = run(&stack, &two, &[], "true").await?;
    ensure!(first["project"] != second["project"], "{first:#} {second:#}");

    // Two clones of one remote are one project.
    let clones =
        [one.clone_to(stack.fresh("repos").join("x"), &[])?, one.clone_to(stack.fresh("repos").join("y"), &[])?];
    let mut names = Vec::new();
    for clone in &clones {
        let (_, shown) = run(&stack, clone, &[], COMMIT).await?;
        ensure!(shown["state"] == "needs_review", "{shown:#}");
        names.push(shown["project"].clone());
    }
    ensure!(names[0] == names[1], "{names:?}");
    let projects = stack.sculpt(["project", "ls", "-o", "json"]).run().await?.done()?.json()?;
    ensure!(projects.as_array().is_some_and(|list| (2..=3).contains(&list.len())), "{projects:#}");
    stack.finish().await
}

#[tokio::test]
async fn what_an_agent_leaves_is_published_whatever_it_did() -> Result<()> {
    let settings = "default_agent = 'writer'\n[agents.writer]\n\
        command = ['sh', '-c', 'echo new > left.txt; echo secret > ignored.txt; echo \"$1\"', 'writer', '{prompt}']\n";
    let stack = Stack::options().settings(settings).up().await?;
    let repo = stack.repo()?;
    repo.commit(".gitignore", "ignored.txt\n")?;
    repo.git(["config", "user.name", "Grace"])?;
    repo.git(["config", "user.email", "grace@example.com"])?;

    // An agent's changes are committed for it; the prompt makes an empty slug.
    let task = stack.detached(repo.path(), ["\u{65e5}\u{672c}\u{8a9e}"]).await?;
    let shown = stack.done(&task).await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");
    ensure!(shown["branch"] == format!("sculpt/{task}-task").as_str(), "{shown:#}");
    stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
    let head = repo.fetched(&task)?;
    let files = repo.git(["diff", "--name-only", "main", &head])?;
    ensure!(files == "left.txt", "{files}");
    let author = repo.git(["log", "-1", "--format=%an <%ae>", &head])?;
    ensure!(author == "Grace <grace@example.com>", "{author}");

    // A plain command's only when asked.
    let (_, shown) = run(&stack, &repo, &[], "echo x > left.txt").await?;
    ensure!(shown["state"] == "completed", "{shown:#}");
    let (_, shown) = run(&stack, &repo, &["--commit"], "echo x > left.txt").await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");

    // On another branch; detached; and with a failure at the end.
    let (task, shown) = run(&stack, &repo, &[], &format!("git checkout -qb elsewhere && {COMMIT}")).await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");
    stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
    ensure!(repo.git(["show", &format!("{}:new.txt", repo.fetched(&task)?)])? == "hi");
    let (_, shown) = run(&stack, &repo, &[], &format!("git checkout -q --detach && {COMMIT}")).await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");
    let (task, shown) = run(&stack, &repo, &[], &format!("{COMMIT}; exit 9")).await?;
    ensure!(shown["state"] == "failed" && shown["exit_code"] == 9, "{shown:#}");
    ensure!(shown["head"].as_str().is_some_and(|head| head.len() == 40), "{shown:#}");
    stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
    repo.fetched(&task)?;
    stack.finish().await
}

#[tokio::test]
async fn a_hostile_repository_runs_nothing_of_its_own() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.repo()?;
    let witness = stack.root().join("witness");
    let touch = format!("touch {}", witness.display());
    // What the agent leaves in .git is obeyed by nobody after it.
    let script = format!(
        "{COMMIT}; mkdir -p .git/hooks; printf '#!/bin/sh\\n{touch}\\n' > .git/hooks/post-commit; chmod +x .git/hooks/*; \
         cp .git/hooks/post-commit .git/hooks/pre-push; cp .git/hooks/post-commit .git/hooks/pre-commit; \
         git config core.fsmonitor '{touch}; false'; git config core.sshCommand '{touch}'; \
         git config uploadpack.packObjectsHook '{touch}'; echo x > more.txt"
    );
    let (_, shown) = run(&stack, &repo, &["--commit"], &script).await?;
    ensure!(shown["state"] == "needs_review", "{shown:#}");
    ensure!(!witness.exists(), "something of the repository was run");
    stack.finish().await
}

#[tokio::test]
async fn submodules_and_lfs_pointers_are_left_and_said_so() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.repo()?;
    let inner = stack.repo()?;
    let url = inner.path().to_string_lossy().into_owned();
    repo.git(["-c", "protocol.file.allow=always", "submodule", "add", "-q", &url, "inner"])?;
    std::fs::write(repo.path().join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n")?;
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "ab".repeat(32));
    repo.commit("large.bin", pointer)?;
    let (task, shown) = run(&stack, &repo, &[], "ls inner | wc -l").await?;
    ensure!(shown["state"] == "completed", "{shown:#}");
    ensure!(stack.logs(&task).await? == b"0\r\n");
    let text = stack.sculpt(["show", &task]).run().await?.done()?.text().to_lowercase();
    ensure!(text.contains("submodule"), "{text}");
    ensure!(text.contains("lfs"), "{text}");
    stack.finish().await
}

#[tokio::test]
async fn plain_git_fetches_with_the_token_and_not_without() -> Result<()> {
    let stack = Stack::up().await?;
    let repo = stack.repo()?;
    let (task, shown) = run(&stack, &repo, &[], COMMIT).await?;
    let projects = stack.sculpt(["project", "ls", "-o", "json"]).run().await?.done()?.json()?;
    let uuid = projects[0]["uuid"].as_str().context("the project's uuid")?;
    let url = format!("{}/git/{uuid}.git", stack.url()?);
    let header = format!("http.extraHeader=Authorization: Bearer {}", stack.token()?);
    let refs = repo.git(["-c", &header, "ls-remote", &url])?;
    let branch = format!("refs/heads/{}", shown["branch"].as_str().context("a branch")?);
    ensure!(refs.lines().any(|line| line.ends_with(&branch)), "{refs}");
    ensure!(!refs.contains("refs/sculpt/"), "hidden refs are advertised: {refs}");
    repo.git(["-c", &header, "fetch", "-q", &url, &branch])?;
    ensure!(repo.git(["rev-parse", "FETCH_HEAD"])? == shown["head"].as_str().unwrap_or_default());
    // Another repository has no credential helper of ours.
    let stranger = stack.repo()?;
    ensure!(stranger.git(["-c", "core.askPass=true", "ls-remote", &url]).is_err(), "git needs no token");
    ensure!(repo.git(["-c", &header, "push", "-q", &url, "HEAD:refs/heads/main"]).is_err(), "git can push");
    // Here it serves plain git too, and the token stands nowhere.
    repo.git(["fetch", "-q", "sculpt"])?;
    repo.fetched(&task)?;
    let config = repo.git(["config", "--list"])?;
    ensure!(!config.contains(&stack.token()?), "the token stands in the repository's configuration");
    stack.finish().await
}

//! The dirty tree as a commit, with the user's index and files left as they are.

use std::time::Duration;

use git2::Oid;
use sculpt_proto::v1::Requester;
use tokio::process::Command;

use super::{GitError, program, repository::Repo};

/// A commit on top of HEAD that holds what is tracked and what is new and not ignored; HEAD itself when nothing differs.
pub(crate) async fn take(repo: &Repo, requester: &Requester) -> Result<Oid, GitError> {
    let head = repo.head()?;
    let file = |source| GitError::File { doing: "make a temporary index", source };
    let folder = tempfile::tempdir().map_err(file)?;
    let index = folder.path().join("index");
    // A copy keeps what git knows about unchanged files, so that only changed ones are read.
    match std::fs::copy(repo.index_file(), &index) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let git = |args: &[&str]| -> Command {
        let mut command = program::git(repo.top());
        command.args([
            "-c",
            "core.splitIndex=false",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "advice.addEmbeddedRepo=false",
        ]);
        command.args(args).env("GIT_INDEX_FILE", &index);
        command
    };
    program::finish(git(&["add", "--all", "."])).await?;
    let tree = id(program::finish(git(&["write-tree"])).await?)?;
    if repo.inner().find_commit(head)?.tree_id() == tree {
        return Ok(head);
    }
    let mut commit = git(&["commit-tree", &tree.to_string(), "-p", &head.to_string(), "-m", "Uncommitted changes"]);
    for role in ["AUTHOR", "COMMITTER"] {
        commit.env(format!("GIT_{role}_NAME"), &requester.name).env(format!("GIT_{role}_EMAIL"), &requester.email);
    }
    id(program::finish(commit).await?)
}

/// How long counting may take: it is only for a word to the user.
const COUNTING: Duration = Duration::from_millis(500);

/// How many paths differ from HEAD or are new and not ignored; none when it is not known soon.
pub(crate) async fn differing(repo: &Repo) -> Option<usize> {
    if repo.is_bare() {
        return None;
    }
    let mut status = program::git(repo.top());
    status.args(["-c", "core.fsmonitor=false", "status", "--porcelain", "-z", "--no-renames"]);
    let list = tokio::time::timeout(COUNTING, program::finish(status)).await.ok()?.ok()?;
    Some(list.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).count())
}

fn id(output: Vec<u8>) -> Result<Oid, GitError> {
    Ok(Oid::from_str(String::from_utf8_lossy(&output).trim())?)
}

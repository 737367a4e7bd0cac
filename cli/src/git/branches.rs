//! Local branches of tasks: made and moved forward, never moved over a user's work.

use std::collections::HashSet;

use git2::{BranchType, Oid};

use super::{GitError, program, remote, repository::Repo};

/// What became of one local branch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Forwarded,
    Unchanged,
    /// It has commits that the task's branch lacks.
    Diverged,
    /// A working tree stands on it.
    CheckedOut,
}

/// Brings `sculpt/<number>-<slug>` of the remote to local branches of the same name; `only` limits it to one.
pub(crate) async fn update(repo: &Repo, only: Option<&str>) -> Result<Vec<(String, Outcome)>, GitError> {
    let occupied = checked_out(repo).await?;
    let prefix = format!("refs/remotes/{}/", remote::NAME);
    let mut outcomes = Vec::new();
    for reference in repo.inner().references_glob(&format!("{prefix}sculpt/*"))? {
        let reference = reference?;
        let Ok(full) = reference.name() else { continue };
        let Some(name) = full.strip_prefix(&prefix) else { continue };
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let head = reference.peel_to_commit()?.id();
        let outcome = bring(repo, name, head, occupied.contains(&format!("refs/heads/{name}")))?;
        outcomes.push((name.to_owned(), outcome));
    }
    Ok(outcomes)
}

fn bring(repo: &Repo, name: &str, head: Oid, occupied: bool) -> Result<Outcome, GitError> {
    let inner = repo.inner();
    let commit = inner.find_commit(head)?;
    let Ok(branch) = inner.find_branch(name, BranchType::Local) else {
        inner.branch(name, &commit, false)?;
        return Ok(Outcome::Created);
    };
    let here = branch.get().peel_to_commit()?.id();
    if here == head {
        Ok(Outcome::Unchanged)
    } else if !inner.graph_descendant_of(head, here)? {
        Ok(Outcome::Diverged)
    } else if occupied {
        Ok(Outcome::CheckedOut)
    } else {
        // Moved only if it still stands where it was seen.
        inner.reference_matching(&format!("refs/heads/{name}"), head, true, here, "sculpt fetch: fast-forward")?;
        Ok(Outcome::Forwarded)
    }
}

/// Branches that some working tree of this repository stands on.
async fn checked_out(repo: &Repo) -> Result<HashSet<String>, GitError> {
    let list = program::text(&repo.directory, &["worktree", "list", "--porcelain"]).await?;
    Ok(list.lines().filter_map(|line| line.strip_prefix("branch ").map(str::to_owned)).collect())
}

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
    outcomes.sort_by_key(|(name, _)| (number(name), name.clone()));
    Ok(outcomes)
}

/// The task's number in `sculpt/<number>-<slug>`.
fn number(branch: &str) -> Option<u64> {
    branch.strip_prefix("sculpt/")?.split('-').next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    fn git(directory: &Path, args: &[&str]) -> String {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        let output = Command::new("git").current_dir(directory).args(identity).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn branches_are_ordered_by_number() {
        assert!(number("sculpt/9-a") < number("sculpt/10-a"));
        assert_eq!(number("sculpt/own"), None);
    }

    #[tokio::test]
    async fn work_of_the_user_is_never_moved_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        git(path, &["init", "-q", "-b", "main"]);
        git(path, &["commit", "-q", "--allow-empty", "-m", "base"]);
        let base = git(path, &["rev-parse", "HEAD"]);
        git(path, &["commit", "-q", "--allow-empty", "-m", "of the task"]);
        let head = git(path, &["rev-parse", "HEAD"]);
        for (number, here) in [
            ("1-new", None),
            ("2-behind", Some(&base)),
            ("3-same", Some(&head)),
            ("4-open", Some(&base)),
            ("5-own", Some(&base)),
        ] {
            git(path, &["update-ref", &format!("refs/remotes/sculpt/sculpt/{number}"), &head]);
            if let Some(here) = here {
                git(path, &["branch", &format!("sculpt/{number}"), here]);
            }
        }
        git(path, &["checkout", "-q", "sculpt/5-own"]);
        git(path, &["commit", "-q", "--allow-empty", "-m", "of the user"]);
        let own = git(path, &["rev-parse", "HEAD"]);
        git(path, &["checkout", "-q", "sculpt/4-open"]);

        let repo = Repo::open(path).unwrap();
        let outcomes = update(&repo, None).await.unwrap();
        let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        use Outcome::{CheckedOut, Created, Diverged, Forwarded, Unchanged};
        assert_eq!(outcomes, [Created, Forwarded, Unchanged, CheckedOut, Diverged]);
        let at = |name: &str| git(path, &["rev-parse", &format!("sculpt/{name}")]);
        let stand = ["1-new", "2-behind", "3-same", "4-open", "5-own"].map(at);
        assert_eq!(stand, [head.clone(), head.clone(), head, base, own]);
        assert_eq!(update(&repo, Some("sculpt/3-same")).await.unwrap().len(), 1);
    }
}

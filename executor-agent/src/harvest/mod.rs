//! Gathers what an agent made, after every kind of end, whatever branch HEAD is on.
//!
//! The agent's `.git` is hostile by now: git runs on it as the attempt's account, inside its cgroup, with hooks,
//! monitors, filters and foreign directories off. What it puts out is data, and its pack is verified before it is
//! believed.

mod contained;
mod resume;
mod sound;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use contained::Container;
pub use resume::resume;
use rustix::fs::{AtFlags, CWD, unlinkat};
use sculpt_proto::commit_id;
use sculpt_walk::open_directory;

use crate::{spec::Requester, workspace::git::GitError};

const QUICK: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(3_600);

/// What was made cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file of our own could not be written or read.
    #[error("could not {attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The pack is not whole or not valid.
    #[error("what the workspace gave out is not valid: {0}")]
    Invalid(GitError),
    /// git answered with something else than it was asked for.
    #[error("the workspace's git gave {0:?} where a commit was asked for")]
    Nonsense(String),
    /// There is nothing that git could work with.
    #[error("its .git directory is gone")]
    NoRepository,
    /// It began on a branch, and has none any more: what was committed there cannot be found.
    #[error("all of its branches are gone")]
    NoBranch,
    /// Something that git would wait for without end.
    #[error("{0} in its .git directory is not a file that can be read")]
    Endless(String),
    /// What it began at is not there any more.
    #[error("it no longer has the commit {0} that the task begins at")]
    NoBase(String),
}

/// How uncommitted changes are committed.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Author.
    pub requester: Requester,
    /// What the commit says.
    pub message: String,
}

/// What to gather, and from where.
#[derive(Debug)]
pub struct Plan {
    /// The working copy.
    pub workspace: PathBuf,
    /// The commit that it started from.
    pub base: String,
    /// Verified history that holds the base.
    pub store: PathBuf,
    /// A directory of our own for the pack.
    pub quarantine: PathBuf,
    /// None: uncommitted changes are left.
    pub commit: Option<Commit>,
    /// How git is run on the working copy.
    pub container: Container,
}

/// Something new to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// HEAD.
    pub head: String,
    /// The branch that HEAD was on; none when detached.
    pub branch: Option<String>,
    /// The verified pack.
    pub pack: PathBuf,
    /// Its length in bytes.
    pub pack_length: u64,
}

/// What was gathered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Harvest {
    /// None: nothing beyond the base.
    pub found: Option<Found>,
    /// Remarks for people.
    pub notes: Vec<String>,
    /// Why the workspace must be kept; none when it holds nothing that is not published with `found`.
    pub keep: Option<String>,
}

/// Gathers. May be repeated at any time once the agent's processes are gone.
pub async fn harvest(plan: &Plan) -> Result<Harvest, HarvestError> {
    let mut harvest = Harvest::default();
    unlock(&plan.workspace.join(".git"));
    let git = contained::Repository::open(&plan.container, &plan.workspace).await?;
    // Before anything is committed, which would make a branch.
    let head = git.ask("read HEAD", &["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?;
    let branches = git.ask("list the branches", &["for-each-ref", "--count=1", "refs/heads"]).await?;
    if head.code != Some(0) && branches.stdout.is_empty() {
        return Err(HarvestError::NoBranch);
    }
    if let Some(commit) = &plan.commit {
        commit_changes(&git, commit, &mut harvest).await?;
    }
    let branch = git.ask("read HEAD", &["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
    let branch = (branch.code == Some(0)).then(|| branch.line());
    let head = git.ask("read HEAD", &["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?;
    if head.code != Some(0) {
        harvest.notes.push("HEAD is on a branch without commits, so there is nothing to publish".to_owned());
        others(&git, None, &plan.base, &mut harvest).await?;
        return Ok(harvest);
    }
    let head = head.line();
    let head = commit_id(&head, "HEAD").map_err(|_| HarvestError::Nonsense(head))?;
    others(&git, Some(&head), &plan.base, &mut harvest).await?;
    let not_base = format!("^{}", plan.base);
    if count(&git, &["rev-list", "--count", &head, &not_base]).await? == 0 {
        if head != plan.base {
            harvest.notes.push("HEAD was moved back behind the base; there is nothing new to publish".to_owned());
        }
        return Ok(harvest);
    }
    let descends = git.ask("compare HEAD with the base", &["merge-base", "--is-ancestor", &plan.base, &head]).await?;
    if descends.code != Some(0) {
        harvest.notes.push("HEAD does not descend from the base; it is published as it is".to_owned());
    }
    let (pack, pack_length) = verify::receive(plan, &git, &head).await?;
    harvest.found = Some(Found { head, branch, pack, pack_length });
    Ok(harvest)
}

/// Removes locks of a killed git, which nobody is left to hold; and a file that would lead to another repository, which no
/// clone of ours has. Only in this very directory: a link in its place leads nowhere.
fn unlock(directory: &Path) {
    let Ok(held) = open_directory(CWD, directory) else { return };
    for name in ["index.lock", "HEAD.lock", "commondir"] {
        let _absent = unlinkat(&held, name, AtFlags::empty());
    }
}

/// Commits what .gitignore allows, on whatever HEAD is.
async fn commit_changes(
    git: &contained::Repository<'_>,
    commit: &Commit,
    harvest: &mut Harvest,
) -> Result<(), HarvestError> {
    let mut arguments = vec!["add", "--all", "--ignore-errors", "--", "."];
    let add = git.ask_long("add the uncommitted changes", &arguments, None).await?;
    // What it cannot look into, since it is closed or too deep, git passes over with a warning.
    if add.code != Some(0) || String::from_utf8_lossy(&add.stderr).contains("could not open directory") {
        let words = crate::workspace::git::words(&add.stderr);
        harvest.notes.push(format!("some uncommitted changes could not be committed: {words}"));
        harvest.keep = Some("some changes could not be committed".to_owned());
    }
    if add.code != Some(0) {
        arguments.extend(git.held_back());
        git.ask_long("add the rest of the uncommitted changes", &arguments, None).await?;
    }
    let born = git.ask("read HEAD", &["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?.code == Some(0);
    let changed = if born {
        git.ask_long("compare the changes", &["diff-index", "--cached", "--quiet", "HEAD"], None).await?.code == Some(1)
    } else {
        !git.ask_long("list the changes", &["ls-files", "--cached", "-z"], None).await?.stdout.is_empty()
    };
    if !changed {
        return Ok(());
    }
    let identity = [
        ("GIT_AUTHOR_NAME", commit.requester.name.as_str()),
        ("GIT_AUTHOR_EMAIL", commit.requester.email.as_str()),
        ("GIT_COMMITTER_NAME", commit.requester.name.as_str()),
        ("GIT_COMMITTER_EMAIL", commit.requester.email.as_str()),
    ];
    let arguments = ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=verbatim", "--file=-"];
    git.change("commit the uncommitted changes", &arguments, &identity, commit.message.as_bytes()).await?;
    harvest.notes.push("uncommitted changes were committed at the end".to_owned());
    Ok(())
}

/// Commits that HEAD does not reach are not published, so they must not be thrown away.
async fn others(
    git: &contained::Repository<'_>,
    head: Option<&str>,
    base: &str,
    harvest: &mut Harvest,
) -> Result<(), HarvestError> {
    let not_base = format!("^{base}");
    let not_head = head.map(|head| format!("^{head}"));
    let mut arguments = vec!["rev-list", "--count", "--exclude=refs/remotes/*", "--all", &not_base];
    arguments.extend(not_head.as_deref());
    let left = count(git, &arguments).await?;
    if left > 0 {
        let what = format!("{left} commits on other branches are not published");
        harvest.notes.push(format!("{what}; the workspace is kept on the executor"));
        harvest.keep = Some(what);
    }
    Ok(())
}

async fn count(git: &contained::Repository<'_>, arguments: &[&str]) -> Result<u64, HarvestError> {
    let counted = git.require("count the new commits", arguments).await?.line();
    counted.parse().map_err(|_| HarvestError::Nonsense(counted))
}

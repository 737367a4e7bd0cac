//! Makes a working copy that outlived its attempt ready for the next one. It is as hostile as any that an agent has had, so
//! git runs on it as in harvesting; no file of the working tree is touched.

use std::path::Path;

use sculpt_proto::commit_id;

use super::{Container, HarvestError, contained::Repository, unlock};
use crate::workspace::git::git_dir;

/// Puts `work_tree`, which must still have the commit `base`, on `branch`, where nothing is lost by it. Returns remarks for
/// people.
pub async fn resume(
    container: &Container,
    work_tree: &Path,
    base: &str,
    branch: &str,
) -> Result<Vec<String>, HarvestError> {
    let directory = git_dir(work_tree);
    unlock(&directory);
    let git = Repository::open(container, work_tree).await?;
    let whole = format!("{base}^{{commit}}");
    if git.ask("look for the base commit", &["cat-file", "-e", &whole]).await?.code != Some(0) {
        return Err(HarvestError::NoBase(base.to_owned()));
    }
    let left = |why: &str| Ok(vec![format!("the workspace was not put on the branch {branch}: {why}")]);
    let on = git.ask("read HEAD", &["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
    if on.code == Some(0) && on.line() == branch {
        return Ok(Vec::new());
    }
    if ["rebase-merge", "rebase-apply"].iter().any(|name| directory.join(name).exists()) {
        return left("it is in the middle of a rebase");
    }
    let head = git.ask("read HEAD", &["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?;
    if head.code != Some(0) {
        return left("HEAD is on a branch without commits");
    }
    let head = commit_id(&head.line(), "HEAD").map_err(|_| HarvestError::Nonsense(head.line()))?;
    let reference = format!("refs/heads/{branch}");
    let tip = git.ask("look for the branch", &["rev-parse", "--quiet", "--verify", &reference]).await?;
    if tip.code == Some(0) {
        let tip = commit_id(&tip.line(), "branch").map_err(|_| HarvestError::Nonsense(tip.line()))?;
        let behind = git.ask("compare HEAD with the branch", &["merge-base", "--is-ancestor", &tip, &head]).await?;
        if behind.code != Some(0) {
            return left("that has commits which HEAD does not reach");
        }
    }
    git.require("move the branch to HEAD", &["update-ref", &reference, &head]).await?;
    git.require("put HEAD on the branch", &["symbolic-ref", "HEAD", &reference]).await?;
    Ok(Vec::new())
}

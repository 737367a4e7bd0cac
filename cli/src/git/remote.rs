//! The git remote `sculpt`: the controller's repository of this project, with a credential helper of our own.

use std::{path::Path, time::Duration};

use tokio::process::Command;
use uuid::Uuid;

use super::{GitError, credential, program, repository::Repo};
use crate::{authority, config::Context};

/// Name of the remote.
pub(crate) const NAME: &str = "sculpt";

/// The variable with which an environment says whom git is to believe, over what its configuration says.
pub(crate) const CA_VARIABLE: &str = "GIT_SSL_CAINFO";

/// What was done to have the remote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was there.
    None,
    /// It was added.
    Added,
    /// It pointed to where the controller was before.
    Moved { from: String },
    /// The name is used for something else, which is left alone.
    Foreign { url: String },
}

/// The project's uuid as an existing remote says it, when that remote belongs to this controller: ours before others,
/// since a clone of the controller's own repository has it as `origin`.
pub(crate) fn known_project(repo: &Repo, context: &Context) -> Option<String> {
    let remotes = repo.inner().remotes().ok()?;
    let names = remotes.iter().filter_map(|name| name.ok().flatten()).filter(|name| *name != NAME);
    [NAME].into_iter().chain(names).find_map(|name| {
        let url = url_of(repo, name)?;
        let uuid = our_project(&url)?;
        (url == context.join(&path(&uuid))).then_some(uuid)
    })
}

/// Makes sure of the remote and of its credential helper. Several commands may do so at once.
pub(crate) async fn ensure(repo: &Repo, context: &Context, project: &str) -> Result<Change, GitError> {
    retried(async || establish(repo, context, project).await).await
}

/// Lets git ask us for the token of this controller and of no other, and believe whom we believe; the token stands in no
/// configuration. Several commands may do so at once.
pub(crate) async fn introduce(directory: &Path, scope: &str, context: &Context) -> Result<(), GitError> {
    retried(async || acquaint(directory, scope, context).await).await
}

/// Does what several may do at once: it looks first what there is to do, and again after another process held the lock of
/// the configuration, or was quicker.
async fn retried<T>(act: impl AsyncFn() -> Result<T, GitError>) -> Result<T, GitError> {
    let mut tries = 0;
    loop {
        match act().await {
            Err(GitError::Program { .. }) if tries < 20 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(25 * tries)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn establish(repo: &Repo, context: &Context, project: &str) -> Result<Change, GitError> {
    let wanted = context.join(&path(project));
    let directory = &repo.directory;
    let change = match current(repo) {
        None => {
            add(directory, &wanted).await?;
            Change::Added
        }
        Some(url) if url == wanted => Change::None,
        Some(url) if our_project(&url).is_some() => {
            program::run(directory, ["remote", "set-url", NAME, &wanted]).await?;
            Change::Moved { from: url }
        }
        Some(url) => return Ok(Change::Foreign { url }),
    };
    acquaint(directory, "--local", context).await?;
    let key = format!("remote.{NAME}.proxy");
    // A proxy of the environment cannot reach this machine's loopback.
    if context.is_here() && program::text(directory, &["config", "--local", "--get", &key]).await.is_err() {
        program::run(directory, ["config", "--local", &key, ""]).await?;
    }
    Ok(change)
}

/// Does what `git remote add` does, which two at once do twice, and one that loses the lock halfway leaves half done: whoever
/// sees the URL sees the rest.
async fn add(directory: &Path, url: &str) -> Result<(), GitError> {
    let branches = format!("+refs/heads/*:refs/remotes/{NAME}/*");
    let same = format!(r"^\+refs/heads/\*:refs/remotes/{NAME}/\*$");
    for (key, value, replaced) in [("fetch", branches.as_str(), same.as_str()), ("url", url, ".*")] {
        let key = format!("remote.{NAME}.{key}");
        program::run(directory, ["config", "--local", "--replace-all", &key, value, replaced]).await?;
    }
    Ok(())
}

async fn acquaint(directory: &Path, scope: &str, context: &Context) -> Result<(), GitError> {
    credential::ask_us(directory, scope, context).await?;
    trust(directory, scope, context).await
}

/// Lets git believe whom we believe.
async fn trust(directory: &Path, scope: &str, context: &Context) -> Result<(), GitError> {
    let key = format!("http.{}.sslCAInfo", context.address());
    let present = program::text(directory, &["config", scope, "--get", &key]).await.unwrap_or_default();
    let wanted = authority::for_git(context);
    match wanted {
        Some(file) if Path::new(&present) != file => {
            program::run(directory, ["config".as_ref(), scope.as_ref(), key.as_ref(), file.as_os_str()]).await?;
        }
        None if !present.is_empty() => {
            program::run(directory, ["config", scope, "--unset", &key]).await?;
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// `git fetch` of the remote, which believes whom we believe, whatever the environment says of it.
pub(crate) fn fetch(repo: &Repo, context: &Context) -> Command {
    let mut git = program::git(&repo.directory);
    // What came is said by `report`; git's own list of the same refs would only double it.
    git.args(["-c", "http.sslVerify=true", "fetch", "--quiet", NAME]).env_remove("GIT_SSL_NO_VERIFY");
    if let Some(file) = authority::for_git(context) {
        git.env(CA_VARIABLE, file).env_remove("GIT_SSL_CAPATH");
    }
    git
}

fn current(repo: &Repo) -> Option<String> {
    url_of(repo, NAME)
}

/// The URL as it is written, before any `insteadOf`.
fn url_of(repo: &Repo, remote: &str) -> Option<String> {
    let config = repo.inner().config().and_then(|mut config| config.snapshot()).ok()?;
    config.get_string(&format!("remote.{remote}.url")).ok()
}

fn path(project: &str) -> String {
    format!("/git/{project}.git")
}

/// The uuid in a URL like `http://127.0.0.1:7433/git/<uuid>.git`.
fn our_project(url: &str) -> Option<String> {
    let uuid = url.rsplit_once("/git/")?.1.strip_suffix(".git")?;
    Uuid::parse_str(uuid).ok().map(|_| uuid.to_owned())
}

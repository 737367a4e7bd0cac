//! The git remote `sculpt`: the controller's repository of this project, with a credential helper of our own.

use std::{env, path::Path, time::Duration};

use tokio::process::Command;
use uuid::Uuid;

use super::{GitError, program, repository::Repo};
use crate::{authority, config::Context, output::shell_quoted};

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
    let mut tries = 0;
    loop {
        match establish(repo, context, project).await {
            // Another process held the lock of the configuration, or was quicker.
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
            program::run(directory, ["remote", "add", NAME, &wanted]).await?;
            Change::Added
        }
        Some(url) if url == wanted => Change::None,
        Some(url) if our_project(&url).is_some() => {
            program::run(directory, ["remote", "set-url", NAME, &wanted]).await?;
            Change::Moved { from: url }
        }
        Some(url) => return Ok(Change::Foreign { url }),
    };
    introduce(directory, "--local", context).await?;
    let key = format!("remote.{NAME}.proxy");
    // A proxy of the environment cannot reach this machine's loopback.
    if context.is_here() && program::text(directory, &["config", "--local", "--get", &key]).await.is_err() {
        program::run(directory, ["config", "--local", &key, ""]).await?;
    }
    Ok(change)
}

/// Lets git ask us for the token of this controller and of no other, and believe whom we believe; the token stands in no
/// configuration.
pub(crate) async fn introduce(directory: &Path, scope: &str, context: &Context) -> Result<(), GitError> {
    let key = format!("credential.{}.helper", context.address());
    let helper = helper();
    let present = program::text(directory, &["config", scope, "--get-all", &key]).await.unwrap_or_default();
    if present != format!("\n{helper}") {
        // The empty value keeps the token out of the helpers that the user has for all hosts.
        program::run(directory, ["config", scope, "--replace-all", &key, ""]).await?;
        program::run(directory, ["config", scope, "--add", &key, &helper]).await?;
    }
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

/// Value of the helper's setting: this very program.
fn helper() -> String {
    let program =
        env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_else(|_| "sculpt".to_owned());
    let quoted = shell_quoted(&program);
    let quoted = if quoted.starts_with('\'') { quoted } else { format!("'{quoted}'") };
    format!("!{quoted} git-credential")
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

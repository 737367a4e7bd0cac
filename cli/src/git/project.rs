//! Which project of the controller this repository is.

use std::path::{Path, PathBuf};

use sculpt_proto::v1::{EnsureProjectRequest, ListProjectsRequest, Project};
use url::Url;
use uuid::Uuid;

use super::{GitError, repository::Repo};
use crate::{client::Client, exit::Exit, failure::Failure, output::note};

/// What tells a repository apart from all others: not the folder's name.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) root: String,
    pub(crate) remote: String,
    pub(crate) name: String,
}

/// Root commit, remote and wished name of a repository.
pub(crate) async fn identify(repo: &Repo) -> Result<Identity, GitError> {
    let origin = repo.origin();
    let remote = remote(repo);
    let root = repo.root_commit(origin.as_ref().map(|(name, _)| name.as_str())).await?;
    let name = project_name(&remote, repo.top());
    // The border of a shallow clone looks like a root and is none.
    if repo.shallow_commits().contains(&root) {
        return Err(GitError::Shallow(root));
    }
    Ok(Identity { root, remote, name })
}

/// How many clones of clones are gone back through.
const GENERATIONS: usize = 16;

/// The remote that tells this repository apart; empty when it has none. A clone of another clone on this disk is what that
/// one is.
fn remote(repo: &Repo) -> String {
    let Some((_, url)) = repo.origin() else { return String::new() };
    let mut remote = without_credentials(&url, repo.top());
    for _ in 0..GENERATIONS {
        let path = remote.strip_prefix("file://").unwrap_or(&remote);
        let Some(parent) = Path::new(path).is_absolute().then(|| Repo::at(Path::new(path))).flatten() else { break };
        // A bare one is no place of work: it is where others push to.
        if parent.is_bare() {
            break;
        }
        let Some((_, url)) = parent.origin() else { return String::new() };
        remote = without_credentials(&url, parent.top());
    }
    remote
}

/// The project of this repository, registered if the controller has not seen it.
pub(crate) async fn ensure(client: &Client, repo: &Repo) -> Result<Project, Failure> {
    const ATTEMPTED: &str = "register this repository as a project";
    let identity = match identify(repo).await {
        Ok(identity) => identity,
        Err(error @ GitError::Shallow(_)) => {
            return by_remote(client, repo)
                .await?
                .ok_or_else(|| error.failure("tell which project this repository is"));
        }
        Err(error) => return Err(error.failure(ATTEMPTED)),
    };
    let request = EnsureProjectRequest {
        request_id: Uuid::new_v4().to_string(),
        name: identity.name,
        root_commit: identity.root,
        remote: identity.remote,
        ..EnsureProjectRequest::default()
    };
    let answer = client.change(ATTEMPTED, async || client.projects().ensure_project(request.clone()).await).await?;
    let project = answer
        .project
        .ok_or_else(|| Failure::new(Exit::Failed, ATTEMPTED, "the controller's answer holds no project"))?;
    if answer.created {
        note(format!("registered this repository as project {}", project.name));
    } else if answer.restored {
        note(format!("project {} was removed before, and is back with its tasks", project.name));
    }
    Ok(project)
}

/// The project of this repository, if the controller has seen it.
pub(crate) async fn find(client: &Client, repo: &Repo) -> Result<Option<Project>, Failure> {
    match identify(repo).await {
        Ok(identity) => {
            let mut projects = list(client).await?;
            projects.retain(|project| project.root_commit == identity.root);
            Ok(recognised(projects, &identity.remote))
        }
        Err(GitError::Shallow(_)) => by_remote(client, repo).await,
        Err(error) => Err(error.failure("tell which project this repository is")),
    }
}

/// Which of the projects with this history a repository with this remote is, as the controller would say: the one with
/// its remote, else the only one where either has none.
fn recognised(same_root: Vec<Project>, remote: &str) -> Option<Project> {
    if let Some(same) = same_root.iter().find(|project| project.remote == remote) {
        return Some(same.clone());
    }
    let [only] = <[Project; 1]>::try_from(same_root).ok()?;
    (only.remote.is_empty() || remote.is_empty()).then_some(only)
}

/// The project of this name or uuid.
pub(crate) async fn named(client: &Client, name: &str) -> Result<Project, Failure> {
    let found = list(client).await?.into_iter().find(|project| project.name == name || project.uuid == name);
    found.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("find the project {name:?}"), "the controller knows none of this name")
            .next("`sculpt project ls` shows those it knows; `sculpt project add` registers one")
    })
}

/// All projects, by name as the controller lists them.
pub(crate) async fn list(client: &Client) -> Result<Vec<Project>, Failure> {
    let mut projects = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListProjectsRequest { page_size: 1000, page_token };
        let page = client.read("list projects", client.projects().list_projects(request)).await?;
        projects.extend(page.projects);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(projects);
        }
    }
}

/// A shallow clone does not know its root: only its remote can say which project it is.
async fn by_remote(client: &Client, repo: &Repo) -> Result<Option<Project>, Failure> {
    let remote = remote(repo);
    if remote.is_empty() {
        return Ok(None);
    }
    let mut same = list(client).await?.into_iter().filter(|project| project.remote == remote);
    Ok(same.next().filter(|_| same.next().is_none()))
}

/// A remote's URL as the controller may see it; a relative path is made absolute.
fn without_credentials(text: &str, top: &Path) -> String {
    if let Ok(mut url) = Url::parse(text) {
        if url.has_host() {
            // An ssh user is part of the address; elsewhere a user is half of a credential.
            let web = url.scheme().starts_with("http");
            if url.set_password(None).is_ok() && web {
                let _ = url.set_username("");
            }
            url.set_query(None);
            url.set_fragment(None);
            return url.to_string();
        }
        return text.to_owned();
    }
    let address = text.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
    if address || Path::new(text).is_absolute() {
        text.to_owned()
    } else {
        let path = top.join(text);
        std::fs::canonicalize(&path).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// The last part of the remote, else the folder's name, in characters that every part takes.
fn project_name(remote: &str, top: &Path) -> String {
    let last = remote.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".git");
    let folder = || {
        let path: PathBuf = if top.ends_with(".git") { top.parent().unwrap_or(top).to_owned() } else { top.to_owned() };
        path.file_name().map(|name| name.to_string_lossy().trim_end_matches(".git").to_owned()).unwrap_or_default()
    };
    let wished = if last.is_empty() { folder() } else { last.to_owned() };
    let name: String =
        wished.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).take(60).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "project".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_leave_the_machine() {
        let top = Path::new("/nowhere");
        let cases = [
            ("https://me:secret@forge.example/a/b.git", "https://forge.example/a/b.git"),
            ("https://token@forge.example/a/b", "https://forge.example/a/b"),
            ("https://forge.example/a/b?private_token=x", "https://forge.example/a/b"),
            ("ssh://git:secret@forge.example/a/b", "ssh://git@forge.example/a/b"),
            ("git@forge.example:a/b.git", "git@forge.example:a/b.git"),
            ("/srv/git/b.git", "/srv/git/b.git"),
            ("../b", "/nowhere/../b"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_credentials(url, top), shown);
        }
    }

    #[test]
    fn a_lone_project_with_the_same_history_is_meant_unless_remotes_contradict() {
        let project = |remote: &&str| Project { remote: (*remote).to_owned(), ..Project::default() };
        for (known, remote, found) in [
            (&["", "https://x/a"][..], "https://x/a", Some("https://x/a")),
            (&[""], "https://x/a", Some("")),
            (&["https://x/a"], "", Some("https://x/a")),
            (&["https://x/a"], "https://x/fork", None),
            (&["https://x/a", "https://x/fork"], "", None),
        ] {
            let recognised = recognised(known.iter().map(project).collect(), remote);
            assert_eq!(recognised.map(|project| project.remote).as_deref(), found, "{known:?} {remote:?}");
        }
    }

    #[test]
    fn names_come_from_the_remote_else_from_the_folder() {
        let top = Path::new("/home/me/my work");
        assert_eq!(project_name("https://forge.example/a/tool.git", top), "tool");
        assert_eq!(project_name("git@forge.example:tool.git", top), "tool");
        assert_eq!(project_name("", top), "my-work");
        assert_eq!(project_name("", Path::new("/")), "project");
    }
}

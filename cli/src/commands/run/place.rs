//! Where the work is done: on which commit of which project.

use sculpt_proto::v1::{FindCommitsRequest, Project, Requester};
use uuid::Uuid;

use super::ATTEMPTED;
use crate::{
    args::RunArgs,
    authority,
    client::Client,
    exit::Exit,
    failure::Failure,
    git::{
        CommitId, GitError,
        pack::{self, Sent},
        program, project,
        remote::{self, Change},
        repository::{Repo, requester_anywhere},
        snapshot,
    },
    output::{counted, note},
};

/// What the command line asks for, checked against the repository.
pub(super) enum Wish {
    /// An empty scratch directory.
    Scratch,
    /// The repository that we stand in, at this commit.
    Here(Box<Repo>, CommitId),
    /// A project of the controller, perhaps that of the repository that we stand in.
    Named(String),
}

/// What the task's spec says.
pub(super) struct Place {
    pub(super) project: String,
    pub(super) base: String,
    pub(super) subdirectory: Vec<u8>,
    pub(super) requester: Requester,
}

/// Looks at the repository; asks the controller nothing.
pub(super) fn wish(args: &RunArgs) -> Result<Wish, Failure> {
    if args.no_repo {
        return Ok(Wish::Scratch);
    }
    if let Some(project) = &args.project {
        return Ok(Wish::Named(project.clone()));
    }
    let here = || {
        let repo = Repo::here()?;
        let base = repo.resolve(args.base.as_deref())?;
        Ok((repo, base))
    };
    let (repo, base) = here().map_err(|error: GitError| {
        let failure = error.failure(ATTEMPTED);
        match error {
            GitError::NoRepository(_) | GitError::Empty(_) => {
                failure.next("or name a known project with --project, or use --no-repo for an empty directory")
            }
            _ => failure,
        }
    })?;
    refuse_bare(args, &repo)?;
    Ok(Wish::Here(Box::new(repo), base))
}

fn refuse_bare(args: &RunArgs, repo: &Repo) -> Result<(), Failure> {
    if args.include_changes && repo.is_bare() {
        return Err(Failure::new(Exit::BadInput, ATTEMPTED, "a bare repository has no changes to include")
            .next("leave --include-changes away"));
    }
    Ok(())
}

impl Wish {
    /// Makes sure that the controller has the project and the commit.
    pub(super) async fn settle(self, client: &Client, args: &RunArgs) -> Result<Place, Failure> {
        match self {
            Self::Scratch => Ok(Place {
                project: String::new(),
                base: String::new(),
                subdirectory: Vec::new(),
                requester: Repo::here().map_or_else(|_| requester_anywhere(), |repo| repo.requester()),
            }),
            Self::Here(repo, base) => Box::pin(here(client, args, &repo, base, None)).await,
            Self::Named(name) => Box::pin(named(client, args, &name)).await,
        }
    }
}

async fn here(
    client: &Client,
    args: &RunArgs,
    repo: &Repo,
    base: CommitId,
    project: Option<String>,
) -> Result<Place, Failure> {
    let requester = repo.requester();
    let base = match args.include_changes {
        true => snapshot::take(repo, &requester)
            .await
            .map_err(|error| error.failure("snapshot the changes that are not committed"))?,
        false => base,
    };
    let (project, ()) = tokio::join!(bring(client, repo, base, project), say_what_stays(args, repo));
    let project = project?;
    set_up_remote(client, repo, &project).await;
    let subdirectory = subdirectory(repo, base);
    Ok(Place { project, base: base.to_string(), subdirectory, requester })
}

/// Who expects the changes of the working tree in the task is told otherwise.
async fn say_what_stays(args: &RunArgs, repo: &Repo) {
    if args.include_changes || args.base.is_some() || args.quiet {
        return;
    }
    if let Some(count) = snapshot::differing(repo).await.filter(|count| *count > 0) {
        let (files, stay) = (counted(count, "uncommitted file"), if count == 1 { "stays" } else { "stay" });
        note(format!("{files} {stay} here; --include-changes takes them along"));
    }
}

/// The uuid of a project that holds the commit now: the one named, the one that the remote remembers, or the one that
/// this repository is.
async fn bring(client: &Client, repo: &Repo, base: CommitId, named: Option<String>) -> Result<String, Failure> {
    let request_id = Uuid::new_v4().to_string();
    let known = named.or_else(|| remote::known_project(repo, &client.context));
    if let Some(project) = known {
        match pack::ensure(client, repo, &project, base, &request_id).await? {
            Sent::Before | Sent::Now => return Ok(project),
            Sent::UnknownProject => {}
        }
    }
    let project = project::ensure(client, repo).await?.uuid;
    match pack::ensure(client, repo, &project, base, &request_id).await? {
        Sent::Before | Sent::Now => Ok(project),
        Sent::UnknownProject => {
            Err(Failure::new(Exit::NotFound, ATTEMPTED, "the project was removed just now").next("try again"))
        }
    }
}

/// The remote is a convenience: without it the task starts all the same.
async fn set_up_remote(client: &Client, repo: &Repo, project: &str) {
    match remote::ensure(repo, &client.context, project).await {
        Ok(Change::Added) => {
            note("added the git remote `sculpt`: `sculpt fetch` or `git fetch sculpt` brings the branches of tasks")
        }
        Ok(Change::Moved { from }) => {
            note(format!("the git remote `sculpt` pointed to {from}; it points to this controller now"))
        }
        Ok(Change::None | Change::Foreign { .. }) => {}
        Err(error) => note(format!("the git remote `sculpt` was not set up: {error}")),
    }
}

/// Where we stand below the top, if the base has that folder.
fn subdirectory(repo: &Repo, base: CommitId) -> Vec<u8> {
    let path = repo.subdirectory();
    if path.is_empty() || repo.has_folder(base, &path) {
        return path;
    }
    note(format!(
        "the folder {} is not in the base commit: the agent starts at the top",
        String::from_utf8_lossy(&path)
    ));
    Vec::new()
}

/// A project by name: its own clone when we stand in one, else only what the controller has already.
async fn named(client: &Client, args: &RunArgs, name: &str) -> Result<Place, Failure> {
    let project = project::named(client, name).await?;
    if let Some(repo) = clone_of(client, &project).await {
        let base = repo.resolve(args.base.as_deref()).map_err(|error| error.failure(ATTEMPTED))?;
        refuse_bare(args, &repo)?;
        return Box::pin(here(client, args, &repo, base, Some(project.uuid))).await;
    }
    let refusal = |why: String| {
        Failure::new(Exit::BadInput, ATTEMPTED, why).next(format!(
            "run it from a clone of {}, or give --base a full commit id that was sent before",
            project.name
        ))
    };
    if args.include_changes {
        return Err(refusal(format!(
            "this directory is not a clone of {}, so there are no changes to include",
            project.name
        )));
    }
    let Some(base) = &args.base else {
        return Err(refusal(format!(
            "this directory is not a clone of {}, so --base must say where to start",
            project.name
        )));
    };
    let base = match sculpt_proto::commit_id(base, "base") {
        Ok(id) => id,
        Err(_) => advertised(client, &project, base).await.ok_or_else(|| {
            refusal(format!("{base:?} is neither a full commit id nor a branch that the controller has"))
        })?,
    };
    let request = FindCommitsRequest { project: project.uuid.clone(), commits: vec![base.clone()] };
    let found = client.read(ATTEMPTED, client.git().find_commits(request)).await?;
    if found.present.is_empty() {
        return Err(refusal(format!("the controller does not have the commit {base}")));
    }
    Ok(Place { project: project.uuid, base, subdirectory: Vec::new(), requester: requester_anywhere() })
}

/// The repository around us when it is a clone of this project.
async fn clone_of(client: &Client, project: &Project) -> Option<Repo> {
    let repo = Repo::here().ok()?;
    if remote::known_project(&repo, &client.context).is_some_and(|known| known == project.uuid) {
        return Some(repo);
    }
    let identity = project::identify(&repo).await.ok()?;
    (identity.root == project.root_commit).then_some(repo)
}

/// The commit of a branch that the controller shows to git.
async fn advertised(client: &Client, project: &Project, name: &str) -> Option<String> {
    if name.starts_with('-') {
        return None;
    }
    let url = client.context.join(&project.git_path);
    let mut git = program::git(&std::env::temp_dir());
    // In the environment, not in an argument: arguments can be read by every user of the machine.
    if let Some(pin) = &client.context.pin {
        git.env("GIT_SSL_CAINFO", authority::file(pin).ok()?);
    }
    git.env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", client.context.join("")))
        .env("GIT_CONFIG_VALUE_0", format!("Authorization: Bearer {}", client.context.token));
    git.args(["ls-remote", "--heads", &url, &format!("refs/heads/{name}")]);
    let list = program::finish(git).await.ok()?;
    let list = String::from_utf8_lossy(&list).into_owned();
    list.split_whitespace().next().map(str::to_owned)
}

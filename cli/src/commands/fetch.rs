//! `sculpt fetch`.

use std::{process::Stdio, time::Duration};

use super::{refuse_removed_project, task_named};
use crate::{
    args::FetchArgs,
    client::Client,
    config::Context,
    exit::Exit,
    failure::Failure,
    git::{
        GitError,
        branches::{self, Outcome},
        project,
        remote::{self, Change},
        repository::Repo,
    },
    output::{line, note, progress::Progress},
};

const ATTEMPTED: &str = "fetch the branches of tasks";
/// How often the progress moves.
const TICK: Duration = Duration::from_millis(100);

pub(super) async fn run(args: FetchArgs) -> Result<Exit, Failure> {
    let broken = |error: GitError| error.failure(ATTEMPTED);
    let repo = Repo::here().map_err(broken)?;
    let client = Client::connect().await?;
    let task = match &args.task {
        Some(task) => Some(task_named(&client, task, &format!("fetch task {task}")).await?),
        None => None,
    };
    if let Some(task) = &task {
        refuse_removed_project(task, &format!("fetch task {}", task.number))?;
    }
    let project = project(&client, &repo).await?;
    if let Some(task) = &task {
        let refuse = |exit, why: String, next: &str| {
            Err(Failure::new(exit, format!("fetch task {}", task.number), why).next(next))
        };
        if task.project_id.is_empty() {
            return refuse(
                Exit::Conflict,
                "it ran without a repository".to_owned(),
                "`sculpt logs` shows what it printed",
            );
        }
        if task.project_id != project {
            return refuse(
                Exit::Conflict,
                format!("it belongs to the project {}, not to this repository", task.project),
                "go to a clone of that project",
            );
        }
        if task.head.is_empty() {
            return refuse(Exit::Conflict, "it has published no commit".to_owned(), "`sculpt show` says how it stands");
        }
    }
    match remote::ensure(&repo, &client.context, &project).await.map_err(broken)? {
        Change::None => {}
        Change::Added => note("added the git remote `sculpt`"),
        Change::Moved { from } => {
            note(format!("the git remote `sculpt` pointed to {from}; it points to this controller now"))
        }
        Change::Foreign { url } => {
            return Err(Failure::new(Exit::Conflict, ATTEMPTED, format!("the git remote `sculpt` is used for {url}"))
                .next("rename that remote: `git remote rename sculpt OTHER`"));
        }
    }
    git_fetch(&repo, &client.context).await?;
    let outcomes = branches::update(&repo, task.as_ref().map(|task| task.branch.as_str())).await.map_err(broken)?;
    report(&outcomes, task.as_ref().map(|task| task.branch.as_str()))
}

/// The project that this repository is: the one its remote remembers, as for `sculpt run`, else by its history.
async fn project(client: &Client, repo: &Repo) -> Result<String, Failure> {
    if let Some(known) = remote::known_project(repo, &client.context)
        && project::list(client).await?.iter().any(|project| project.uuid == known)
    {
        return Ok(known);
    }
    if let Some(project) = project::find(client, repo).await? {
        return Ok(project.uuid);
    }
    Err(Failure::new(
        Exit::NotFound,
        ATTEMPTED,
        "the controller does not know this repository: no task was started in it yet",
    )
    .next("start one with `sculpt run`, or register the repository with `sculpt project add`"))
}

async fn git_fetch(repo: &Repo, context: &Context) -> Result<(), Failure> {
    let mut git = remote::fetch(repo, context);
    git.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut progress = Progress::new("fetching");
    let mut ended = std::pin::pin!(git.status());
    let status = loop {
        match tokio::time::timeout(TICK, &mut ended).await {
            Ok(status) => break status.map_err(|error| GitError::NoProgram(error).failure(ATTEMPTED))?,
            Err(_) => progress.tick("the branches of tasks"),
        }
    };
    drop(progress);
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, ATTEMPTED, format!("`git fetch sculpt` ended with {status}"))
        .next("its own words stand above; `sculpt doctor` checks the connection"))
}

fn report(outcomes: &[(String, Outcome)], only: Option<&str>) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Created => line(format!("new branch {name}"))?,
            Outcome::Forwarded => line(format!("moved {name} forward"))?,
            Outcome::Unchanged if only.is_some() => line(format!("{name} is up to date"))?,
            Outcome::Unchanged => {}
            Outcome::Diverged => {
                note(format!("{name} has commits of its own and was left as it is; the task's is sculpt/{name}"));
                exit = if only.is_some() { Exit::Conflict } else { exit };
            }
            Outcome::CheckedOut => {
                note(format!(
                    "{name} is checked out and was left as it is: `git merge --ff-only sculpt/{name}` moves it"
                ));
                exit = if only.is_some() { Exit::Conflict } else { exit };
            }
        }
    }
    let news = outcomes.iter().any(|(_, outcome)| *outcome != Outcome::Unchanged);
    match only {
        Some(branch) if outcomes.is_empty() => {
            Err(Failure::new(Exit::NotFound, format!("fetch {branch}"), "the controller does not show this branch"))
        }
        None if !news => {
            note("nothing new");
            Ok(exit)
        }
        _ => Ok(exit),
    }
}

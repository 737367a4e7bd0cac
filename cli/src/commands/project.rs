//! `sculpt project`.

use std::collections::BTreeSet;

use sculpt_proto::v1::{EnsureProjectRequest, Executor, ListExecutorsRequest, RemoveProjectRequest};
use uuid::Uuid;

use crate::{
    args::{ProjectAddArgs, ProjectVerb},
    client::Client,
    exit::Exit,
    failure::Failure,
    git::{project, repository::Repo},
    output::{Format, counted, executors::ProjectJson, json, line, note, table::Grid, time::age},
};

pub(super) async fn run(verb: ProjectVerb, format: Format) -> Result<Exit, Failure> {
    match verb {
        ProjectVerb::Ls => ls(format).await,
        ProjectVerb::Add(args) => add(args, format).await,
        ProjectVerb::Rm { project, force } => rm(&project, force, format).await,
    }
}

async fn ls(format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let projects = project::list(&client).await?;
    match format {
        Format::Json => json(&projects.iter().map(ProjectJson::from).collect::<Vec<_>>())?,
        Format::Text if projects.is_empty() => note("no projects; the first `sculpt run` in a repository registers it"),
        Format::Text => {
            let mut grid = Grid::new(&["NAME", "TASKS", "AGENT", "REMOTE*", "ROOT-", "AGE"]);
            for project in &projects {
                let root = project.root_commit.get(..12).unwrap_or(&project.root_commit);
                grid.row([
                    project.name.clone(),
                    project.task_count.to_string(),
                    project.default_agent.clone(),
                    project.remote.clone(),
                    root.to_owned(),
                    age(project.created_at.as_ref()),
                ]);
            }
            line(grid.render())?;
        }
    }
    Ok(Exit::Done)
}

async fn add(args: ProjectAddArgs, format: Format) -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "register the project";
    let repo = match &args.path {
        Some(path) => Repo::open(path),
        None => Repo::here(),
    };
    let repo = repo.map_err(|error| error.failure(ATTEMPTED))?;
    let identity = project::identify(&repo).await.map_err(|error| error.failure(ATTEMPTED))?;
    let client = Client::connect().await?;
    let request = EnsureProjectRequest {
        request_id: Uuid::new_v4().to_string(),
        exact_name: args.name.is_some(),
        name: args.name.unwrap_or(identity.name),
        root_commit: identity.root,
        remote: identity.remote,
        default_agent: args.default_agent,
        commit_changes: args.commit_changes.map(|answer| answer == "yes"),
        record_typing: args.record_typing.map(|answer| answer == "yes"),
    };
    let answer = client.change(ATTEMPTED, async || client.projects().ensure_project(request.clone()).await).await?;
    let project = answer
        .project
        .ok_or_else(|| Failure::new(Exit::Failed, ATTEMPTED, "the controller's answer holds no project"))?;
    // The project is registered, whether this can be told or not.
    if request.default_agent.is_some()
        && let Ok(answer) = client.executors().list_executors(ListExecutorsRequest {}).await
        && let Some(text) = unknown_agent(&project.default_agent, &answer.into_inner().executors)
    {
        note(text);
    }
    match format {
        Format::Json => json(&ProjectJson::from(&project))?,
        Format::Text if answer.restored => {
            line(format!("project {} is back, with its {}", project.name, tasks(project.task_count)))?;
        }
        Format::Text if answer.created => line(format!("registered project {}", project.name))?,
        Format::Text => line(format!("project {} is registered", project.name))?,
    }
    Ok(Exit::Done)
}

fn tasks(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "task")
}

/// What to say of an agent that prompts are to get: an executor that has it may come later, and until then each is refused.
fn unknown_agent(agent: &str, executors: &[Executor]) -> Option<String> {
    let there: BTreeSet<&str> =
        executors.iter().flat_map(|executor| executor.agents.iter().map(|agent| agent.name.as_str())).collect();
    if agent.is_empty() || executors.is_empty() || there.contains(agent) {
        return None;
    }
    let there = if there.is_empty() { "none".to_owned() } else { Vec::from_iter(there).join(", ") };
    Some(format!(
        "no executor has an agent {agent:?}: prompts of the project are refused until one has; agents there are: {there}"
    ))
}

async fn rm(project: &str, force: bool, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("remove project {project}");
    let request = RemoveProjectRequest { request_id: Uuid::new_v4().to_string(), project: project.to_owned(), force };
    let answer = client.change(&attempted, async || client.projects().remove_project(request.clone()).await).await?;
    match (format, &answer.project) {
        (Format::Json, Some(removed)) => json(&ProjectJson::from(removed))?,
        (Format::Text | Format::Json, _) => line(format!("removed project {project}"))?,
    }
    if format == Format::Text {
        note("its tasks are kept; `sculpt project add` in a clone brings it back with them");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::ExecutorAgent;

    use super::*;

    #[test]
    fn an_agent_that_nobody_has_is_told() {
        let agents = |names: &[&str]| Executor {
            agents: names
                .iter()
                .map(|name| ExecutorAgent { name: (*name).into(), ..ExecutorAgent::default() })
                .collect(),
            ..Executor::default()
        };
        let there = [agents(&["codex"]), agents(&["aider", "codex"])];
        assert_eq!(unknown_agent("codex", &there), None);
        assert_eq!(unknown_agent("", &there), None);
        assert_eq!(unknown_agent("cladue", &[]), None, "nobody is there yet");
        let said = unknown_agent("cladue", &there).expect("it is told");
        assert!(said.contains("\"cladue\"") && said.ends_with("agents there are: aider, codex"), "{said}");
        assert!(unknown_agent("codex", &[agents(&[])]).is_some_and(|said| said.ends_with("none")));
    }
}

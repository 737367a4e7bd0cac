//! `sculpt known`: words that only the controller knows, one a line, for the completion scripts.

use std::collections::BTreeSet;

use sculpt_proto::v1::{Executor, ListExecutorsRequest, ListTasksRequest};

use crate::{args::Known, client::Client, exit::Exit, failure::Failure, git::project, output::line};

/// How many of the newest tasks are offered.
const TASKS: u32 = 200;

pub(in crate::commands) async fn run(what: Known) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let words: Vec<String> = match what {
        Known::Tasks => {
            let request = ListTasksRequest { page_size: TASKS, ..ListTasksRequest::default() };
            let list = client.read("list tasks", client.tasks().list_tasks(request)).await?;
            list.tasks.iter().map(|task| task.number.to_string()).collect()
        }
        Known::Projects => project::list(&client).await?.into_iter().map(|project| project.name).collect(),
        Known::Executors => executors(&client).await?.into_iter().map(|executor| executor.name).collect(),
        Known::Agents => agents(&executors(&client).await?),
    };
    words.iter().filter(|word| is_plain(word)).try_for_each(line)?;
    Ok(Exit::Done)
}

async fn executors(client: &Client) -> Result<Vec<Executor>, Failure> {
    let answer = client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await?;
    Ok(answer.executors)
}

fn agents(executors: &[Executor]) -> Vec<String> {
    let names: BTreeSet<&str> =
        executors.iter().flat_map(|executor| executor.agents.iter().map(|agent| agent.name.as_str())).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Whether a shell takes it for one word and nothing else.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-@+".contains(c))
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::ExecutorAgent;

    use super::*;

    #[test]
    fn agents_are_offered_once() {
        let executor = |names: &[&str]| Executor {
            agents: names
                .iter()
                .map(|name| ExecutorAgent { name: (*name).into(), ..ExecutorAgent::default() })
                .collect(),
            ..Executor::default()
        };
        assert_eq!(agents(&[executor(&["robot", "claude"]), executor(&[]), executor(&["robot"])]), ["claude", "robot"]);
    }

    #[test]
    fn no_word_is_more_than_a_word() {
        assert!(is_plain("robot-2") && !is_plain("$(reboot)") && !is_plain("two words") && !is_plain(""));
    }
}

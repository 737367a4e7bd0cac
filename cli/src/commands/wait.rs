//! `sculpt wait`.

use std::time::Duration;

use sculpt_proto::v1::{Task, TaskState};
use tokio::task::JoinSet;

use super::task_named;
use crate::{
    args::{WaitArgs, state_named},
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::{Absence, Watch, outcome},
    output::{Format, json_line, note, tasks::TaskJson},
};

pub(super) async fn run(args: WaitArgs, format: Format) -> Result<Exit, Failure> {
    match args.timeout {
        None => wait(args, format).await,
        Some(limit) => tokio::time::timeout(limit, wait(args, format)).await.unwrap_or_else(|_| Err(too_long(limit))),
    }
}

fn too_long(limit: Duration) -> Failure {
    let limit = humantime::format_duration(limit);
    Failure::new(Exit::TimedOut, "wait any longer", format!("the limit of {limit} ran out; the tasks go on"))
}

async fn wait(args: WaitArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let until = args.until.as_deref().map(state_named);
    // All are looked up first, so that a mistyped number is told at once.
    let mut tasks = Vec::new();
    for task in &args.tasks {
        tasks.push(task_named(&client, task, &format!("wait for task {task}")).await?);
    }
    let mut waiting = JoinSet::new();
    for (index, task) in tasks.iter().enumerate() {
        let mut watch = Watch::new(&client, task.number, &task.uuid, index > 0);
        waiting.spawn(async move {
            let mut absence = Absence::default();
            loop {
                let task = watch.next().await?;
                if let Some(exit) = verdict(&task, until) {
                    return Ok::<_, Failure>((index, exit, task));
                }
                if let Some(news) = absence.news(&task) {
                    note(news);
                }
            }
        });
    }
    let mut exits = vec![Exit::Done; args.tasks.len()];
    while let Some(ended) = waiting.join_next().await {
        let ended = ended.map_err(|error| Failure::new(Exit::Failed, "wait", error.to_string()))?;
        let (index, exit, task) = ended?;
        exits[index] = exit;
        match format {
            Format::Json => json_line(&TaskJson::from(&task))?,
            Format::Text => note(outcome(&task)),
        }
        if let (Exit::Conflict, Some(until)) = (exit, until) {
            note(format!("task {} will not be {} any more", task.number, state_name(until)));
        }
    }
    Ok(exits.into_iter().find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done))
}

/// How the wait for a task ends, when it does: the turn is over, or the wished state is reached, passed, or out of reach.
fn verdict(task: &Task, until: Option<TaskState>) -> Option<Exit> {
    let state = task.state();
    let over = Exit::of_state(state);
    let Some(until) = until else { return over };
    if state == until {
        return Some(Exit::Done);
    }
    match until {
        // A short task may pass these between two looks: whatever ended its turn is the answer.
        TaskState::Queued | TaskState::Starting | TaskState::Running => over,
        TaskState::Unspecified
        | TaskState::Waiting
        | TaskState::Idle
        | TaskState::Paused
        | TaskState::Limited
        | TaskState::NeedsReview
        | TaskState::Accepted
        | TaskState::Merged
        | TaskState::Rejected
        | TaskState::Completed
        | TaskState::Failed
        | TaskState::Lost
        | TaskState::Cancelled => {
            let exit = over.filter(|_| is_final(state))?;
            Some(if exit == Exit::Done { Exit::Conflict } else { exit })
        }
    }
}

/// Whether only a person's new command moves a task out of this state.
const fn is_final(state: TaskState) -> bool {
    match state {
        TaskState::Merged | TaskState::Rejected | TaskState::Completed | TaskState::Failed | TaskState::Cancelled => {
            true
        }
        TaskState::Unspecified
        | TaskState::Queued
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Waiting
        | TaskState::Idle
        | TaskState::Paused
        | TaskState::Limited
        | TaskState::NeedsReview
        | TaskState::Accepted
        | TaskState::Lost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: TaskState) -> Task {
        Task { state: state.into(), ..Task::default() }
    }

    #[test]
    fn waiting_for_a_state() {
        let cases = [
            (TaskState::Running, None, None),
            (TaskState::Lost, None, None),
            (TaskState::Lost, Some(TaskState::Lost), Some(Exit::Done)),
            (TaskState::Lost, Some(TaskState::Accepted), None),
            (TaskState::Completed, None, Some(Exit::Done)),
            (TaskState::Cancelled, None, Some(Exit::Cancelled)),
            (TaskState::Queued, Some(TaskState::Running), None),
            (TaskState::Running, Some(TaskState::Running), Some(Exit::Done)),
            (TaskState::NeedsReview, Some(TaskState::Running), Some(Exit::Done)),
            (TaskState::Failed, Some(TaskState::Running), Some(Exit::Failed)),
            (TaskState::NeedsReview, Some(TaskState::Accepted), None),
            (TaskState::Completed, Some(TaskState::Accepted), Some(Exit::Conflict)),
            (TaskState::Failed, Some(TaskState::Failed), Some(Exit::Done)),
        ];
        for (state, until, verdict_) in cases {
            assert_eq!(verdict(&task(state), until), verdict_, "{state:?} for {until:?}");
        }
    }
}

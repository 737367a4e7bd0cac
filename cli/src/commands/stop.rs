//! `sculpt stop`.

use sculpt_proto::v1::{StopTaskRequest, TaskState};
use uuid::Uuid;

use super::{each, no_task};
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    output::{Format, json_line, line, note, tasks::TaskJson},
};

pub(super) async fn run(tasks: &[String], format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    each(tasks, |task| stop(&client, task, format)).await
}

async fn stop(client: &Client, task: String, format: Format) -> Result<(), Failure> {
    let attempted = format!("stop task {task}");
    let request =
        StopTaskRequest { request_id: Uuid::new_v4().to_string(), task, expected_revision: 0, reason: String::new() };
    let answer = client.change(&attempted, async || client.tasks().stop_task(request.clone()).await).await?;
    let task = answer.task.ok_or_else(|| no_task(&attempted))?;
    match format {
        Format::Json => json_line(&TaskJson::from(&task)),
        Format::Text if task.state() == TaskState::Cancelled => line(format!("task {} is cancelled", task.number)),
        Format::Text => {
            let state = state_name(task.state()).replace('_', " ");
            if let Some(waiting) = task.waiting.as_ref().filter(|_| task.unreachable) {
                note(format!("task {}: {}", task.number, waiting.text));
            }
            line(format!(
                "task {} is being stopped (now {state}); `sculpt wait {}` returns when it is",
                task.number, task.number
            ))
        }
    }
}

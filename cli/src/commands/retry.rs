//! `sculpt retry`.

use sculpt_proto::v1::RetryTaskRequest;
use uuid::Uuid;

use super::{each, no_task};
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    output::{Format, json_line, line, tasks::TaskJson},
};

pub(super) async fn run(tasks: &[String], format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    each(tasks, |task| retry(&client, task, format)).await
}

async fn retry(client: &Client, task: String, format: Format) -> Result<(), Failure> {
    let attempted = format!("retry task {task}");
    let request =
        RetryTaskRequest { request_id: Uuid::new_v4().to_string(), task, expected_revision: 0, in_workspace: false };
    let answer = client.change(&attempted, async || client.tasks().retry_task(request.clone()).await).await?;
    let task = answer.task.ok_or_else(|| no_task(&attempted))?;
    match format {
        Format::Json => json_line(&TaskJson::from(&task)),
        Format::Text => line(format!("task {} is {} again", task.number, state_name(task.state()))),
    }
}

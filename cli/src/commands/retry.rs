//! `sculpt retry`.

use sculpt_proto::v1::RetryTaskRequest;
use uuid::Uuid;

use super::{each, no_task};
use crate::{
    args::RetryArgs,
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    output::{Format, json_line, line, tasks::TaskJson},
};

pub(super) async fn run(args: &RetryArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    each(&args.tasks, |task| retry(&client, task, args.in_workspace, format)).await
}

async fn retry(client: &Client, task: String, in_workspace: bool, format: Format) -> Result<(), Failure> {
    let attempted = format!("retry task {task}{}", if in_workspace { " in its workspace" } else { "" });
    let request = RetryTaskRequest { request_id: Uuid::new_v4().to_string(), task, expected_revision: 0, in_workspace };
    let answer = client.change(&attempted, async || client.tasks().retry_task(request.clone()).await).await?;
    let task = answer.task.ok_or_else(|| no_task(&attempted))?;
    match format {
        Format::Json => json_line(&TaskJson::from(&task)),
        Format::Text => line(format!("task {} is {} again", task.number, state_name(task.state()))),
    }
}

//! `sculpt run`.

mod place;
mod work;

use std::path::Path;

use sculpt_proto::v1::{CommitPolicy, CreateTaskRequest, Task, TaskSpec};
use uuid::Uuid;

use super::no_task;
use crate::{
    args::RunArgs,
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::{Quiet, Sink, attached, outcome},
    output::{Format, json, json_line, line, note, shell_quoted, tasks::TaskJson},
    up::data_of,
};

/// What all refusals of this verb say was attempted.
const ATTEMPTED: &str = "start the task";

pub(super) async fn run(args: RunArgs, format: Format) -> Result<Exit, Failure> {
    // Everything that can be wrong here is found before anything is sent.
    let title = work::title(&args)?;
    let intent = work::intent(&args)?;
    let work = work::work(&args)?;
    let wish = place::wish(&args)?;
    let client = Client::connect().await?;
    let place = Box::pin(wish.settle(&client, &args)).await?;
    let task = create(&client, spec(&args, work, (title, intent), place)).await?;
    let quiet = if args.quiet { Quiet::Yes } else { Quiet::No };
    if quiet == Quiet::No && work::leaves_input(&args) {
        note("standard input stays here: the command gets none of it");
    }
    announce(&args, format, &task)?;
    if args.detach {
        if let (Quiet::No, Some(waiting)) = (quiet, &task.waiting) {
            note(format!("task {} waits: {}", task.number, waiting.text));
        }
        return Ok(Exit::Done);
    }
    let sink = match format {
        Format::Text if quiet == Quiet::No => Sink::apart(),
        Format::Text | Format::Json => Sink::Nothing,
    };
    let (exit, task) = Box::pin(attached(&client, task, sink, quiet)).await?;
    if exit != Exit::Detached && quiet == Quiet::No {
        match format {
            Format::Json => json_line(&TaskJson::from(&task))?,
            Format::Text => note(outcome(&task)),
        }
    }
    Ok(exit)
}

fn spec(args: &RunArgs, work: work::Work, (title, intent): (String, String), place: place::Place) -> TaskSpec {
    TaskSpec {
        work: Some(work.into()),
        agent: args.agent.clone().unwrap_or_default(),
        project: place.project,
        base: place.base,
        subdirectory: place.subdirectory,
        requester: Some(place.requester),
        commit: if args.commit { CommitPolicy::Always } else { CommitPolicy::Unspecified }.into(),
        tty: !args.no_tty,
        env: args.env.iter().cloned().collect(),
        timeout: args.timeout.map(sculpt_proto::to_duration),
        requirements: args.requirements.iter().cloned().collect(),
        pool: args.pool.clone().unwrap_or_default(),
        priority: args.priority.unwrap_or_default(),
        on_lost: args.on_lost.unwrap_or_default().into(),
        lost_after: args.lost_after.map(sculpt_proto::to_duration),
        labels: args.labels.iter().cloned().collect(),
        title,
        intent,
    }
}

async fn create(client: &Client, spec: TaskSpec) -> Result<Task, Failure> {
    // One id for this one wish: a broken connection never makes two tasks of it.
    let request = CreateTaskRequest { request_id: Uuid::new_v4().to_string(), spec: Some(spec) };
    let answer = client.change(ATTEMPTED, async || client.tasks().create_task(request.clone()).await).await;
    let answer = answer.map_err(|failure| match failure.mentions("--agent") {
        true => failure.next(format!(
            "agents are defined in {}, which is read when the executor or `sculpt up` starts",
            settings(client)
        )),
        false => failure,
    })?;
    answer.task.ok_or_else(|| no_task(ATTEMPTED))
}

/// The file that defines agents, as far as it is known from here.
fn settings(client: &Client) -> String {
    data_of(Path::new(&client.context.token_source)).map_or_else(
        || "the executor's TOML".to_owned(),
        |data| shell_quoted(&data.join("executor.toml").to_string_lossy()),
    )
}

fn announce(args: &RunArgs, format: Format, task: &Task) -> Result<(), Failure> {
    let number = task.number;
    let sentence = || format!("task {number} {}: {}", state_name(task.state()), crate::output::clean(&task.title));
    match (args.quiet, args.detach, format) {
        (true, _, _) => line(number.to_string()),
        (false, true, Format::Json) => json(&TaskJson::from(task)),
        (false, true, Format::Text) => line(sentence()),
        (false, false, _) => {
            note(sentence());
            Ok(())
        }
    }
}

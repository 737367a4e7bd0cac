//! `sculpt executor gc`.

use sculpt_proto::v1::{CollectGarbageRequest, GarbageItem, ListExecutorsRequest};
use sculpt_space::ByteSize;
use serde::Serialize;

use crate::{
    args::ExecutorGcArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, counted, json, line, note, table::Grid},
};

/// What an executor removes or keeps, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct GarbageJson {
    executor: String,
    kind: String,
    path: String,
    attempt_uuid: Option<String>,
    task: Option<u64>,
    attempt: Option<u32>,
    bytes: u64,
    /// `remove` or `keep`.
    action: &'static str,
    why: String,
    error: Option<String>,
}

impl GarbageJson {
    fn new(executor: &str, item: GarbageItem) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            executor: executor.to_owned(),
            kind: item.kind,
            path: item.path,
            attempt_uuid: some(item.attempt_id),
            task: Some(item.task_number).filter(|number| *number > 0),
            attempt: Some(item.attempt).filter(|number| *number > 0),
            bytes: item.bytes,
            action: if item.removed { "remove" } else { "keep" },
            why: item.why,
            error: some(item.error),
        }
    }
}

pub(super) async fn run(arguments: ExecutorGcArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let executors = match &arguments.executor {
        Some(executor) => vec![executor.clone()],
        None => connected(&client).await?,
    };
    let mut found = Vec::new();
    for executor in executors {
        found.extend(collect(&client, &executor, &arguments).await?);
    }
    match format {
        Format::Json => json(&found)?,
        Format::Text => show(&found, &arguments)?,
    }
    Ok(if found.iter().any(|item| item.error.is_some()) { Exit::Failed } else { Exit::Done })
}

async fn connected(client: &Client) -> Result<Vec<String>, Failure> {
    let all = client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await?;
    let connected = all.executors.into_iter().filter(super::is_in);
    let names: Vec<String> = connected.map(|executor| executor.name).collect();
    if names.is_empty() {
        note("no executor is connected; `sculpt executor ls` shows those there are");
    }
    Ok(names)
}

async fn collect(client: &Client, executor: &str, arguments: &ExecutorGcArgs) -> Result<Vec<GarbageJson>, Failure> {
    let what = if arguments.dry_run { "see what can be removed on" } else { "remove what nobody needs on" };
    let attempted = format!("{what} executor {executor}");
    let request =
        CollectGarbageRequest { executor: executor.to_owned(), dry_run: arguments.dry_run, all: arguments.all };
    let refused = |status| client.refused(&attempted, &status);
    let mut answers = client.executors().collect_garbage(request).await.map_err(refused)?.into_inner();
    let mut found = Vec::new();
    while let Some(piece) = answers.message().await.map_err(refused)? {
        found.extend(piece.items.into_iter().map(|item| GarbageJson::new(executor, item)));
    }
    Ok(found)
}

fn show(found: &[GarbageJson], arguments: &ExecutorGcArgs) -> Result<(), Failure> {
    if found.is_empty() {
        note("nothing is left of any attempt");
        return Ok(());
    }
    let dry_run = arguments.dry_run;
    // Who asks for all wants to know why it is not all.
    if !dry_run && !arguments.all && found.iter().all(|item| item.action == "keep" && item.error.is_none()) {
        note(format!("nothing was removed: all of {} is kept; --dry-run says why", counted(found.len(), "item")));
        return Ok(());
    }
    let mut grid = Grid::new(&["EXECUTOR-", "WHAT", "TASK", "SIZE", "ACTION", "WHY*"]);
    for item in found {
        let task = item.task.map(|task| format!("{task}.{}", item.attempt.unwrap_or_default()));
        grid.row([
            item.executor.clone(),
            item.kind.clone(),
            task.unwrap_or_else(|| item.path.clone()),
            ByteSize(item.bytes).to_string(),
            action(item, dry_run).to_owned(),
            item.error.clone().unwrap_or_else(|| item.why.clone()),
        ]);
    }
    line(grid.render())?;
    let bytes = found.iter().filter(|item| item.action == "remove" && item.error.is_none()).map(|item| item.bytes);
    let freed = ByteSize(bytes.sum());
    note(&if dry_run { format!("{freed} would be freed; nothing was removed") } else { format!("{freed} freed") });
    Ok(())
}

fn action(item: &GarbageJson, dry_run: bool) -> &'static str {
    match (item.error.is_some(), item.action, dry_run) {
        (true, _, _) => "FAILED",
        (false, "remove", true) => "remove",
        (false, "remove", false) => "removed",
        (false, _, _) => "keep",
    }
}

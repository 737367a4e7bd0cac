//! `sculpt ls`.

use std::{collections::HashMap, time::Duration};

use sculpt_proto::v1::{
    GetInfoRequest, ListTasksRequest, Task, TaskState, WatchEventsRequest, WatchEventsResponse,
    watch_events_response::Part,
};
use tonic::Streaming;

use crate::{
    args::{LsArgs, state_named},
    client::{Backoff, Client, Outage},
    exit::{Exit, state_name},
    failure::{Failure, is_transient},
    output::{
        Format, json, json_line, line, note, paint,
        table::{Grid, window},
        tasks::{TaskJson, colour, current},
        time::{age, between},
    },
};

/// Changes that come within this time are shown together.
const TOGETHER: Duration = Duration::from_millis(200);
/// On a terminal ages are kept current, and the table follows the window's size.
const REDRAW: Duration = Duration::from_secs(1);

pub(super) async fn run(args: LsArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let filter = filter(&client, &args).await?;
    if args.watch {
        return watch(&client, filter, args.limit, format).await;
    }
    let (tasks, _) = list(&client, filter, args.limit).await?;
    match format {
        Format::Json => json(&tasks.iter().map(TaskJson::from).collect::<Vec<_>>())?,
        Format::Text if tasks.is_empty() => note("no tasks; start one with `sculpt run`"),
        Format::Text => line(table(&tasks))?,
    }
    Ok(Exit::Done)
}

async fn filter(client: &Client, args: &LsArgs) -> Result<ListTasksRequest, Failure> {
    let created_by = match args.mine {
        true => client.read("ask who you are", client.system().get_info(GetInfoRequest {})).await?.user,
        false => String::new(),
    };
    let states = args.states.iter().map(|name| i32::from(state_named(name))).collect();
    Ok(ListTasksRequest {
        states,
        project: args.project.clone().unwrap_or_default(),
        created_by,
        ..ListTasksRequest::default()
    })
}

/// At most `limit` tasks, newest first, and the place in the journal that they are true for.
async fn list(client: &Client, filter: ListTasksRequest, limit: u32) -> Result<(Vec<Task>, String), Failure> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut request = filter;
    let mut cursor = None;
    loop {
        let left = (limit as usize).saturating_sub(tasks.len());
        request.page_size = u32::try_from(left.min(1000)).unwrap_or(1000);
        let page = client.read("list tasks", client.tasks().list_tasks(request.clone())).await?;
        tasks.extend(page.tasks);
        // What changes while the pages are read is seen again after the first page's cursor.
        let cursor = cursor.get_or_insert(page.cursor);
        if page.next_page_token.is_empty() || tasks.len() >= limit as usize {
            tasks.truncate(limit as usize);
            return Ok((tasks, std::mem::take(cursor)));
        }
        request.page_token = page.next_page_token;
    }
}

fn table(tasks: &[Task]) -> String {
    let mut grid = Grid::new(&["TASK", "STATE", "TITLE*", "PROJECT-", "EXECUTOR-", "AGE", "RAN-"]);
    for task in tasks {
        let attempt = current(task);
        let executor = attempt.map(|attempt| attempt.executor.clone()).unwrap_or_default();
        let flag = if task.unreachable { " ?" } else { "" };
        let ran = attempt.and_then(|attempt| {
            let until = attempt.ended_at.or_else(now);
            between(attempt.started_at.as_ref(), until.as_ref())
        });
        grid.row([
            task.number.to_string(),
            format!("{}{flag}", state_name(task.state())),
            task.title.clone(),
            task.project.clone(),
            executor,
            age(task.created_at.as_ref()),
            ran.unwrap_or_default(),
        ]);
    }
    coloured(&grid.render(), tasks)
}

/// Colours the state of each row; done after the layout, which counts columns.
fn coloured(text: &str, tasks: &[Task]) -> String {
    let mut lines = text.lines();
    let mut out: Vec<String> = lines.next().map(|header| paint(header, "1")).into_iter().collect();
    for (row, task) in lines.zip(tasks) {
        let state = state_name(task.state());
        out.push(row.replacen(state, &paint(state, colour(task.state())), 1));
    }
    out.join("\n")
}

fn now() -> Option<prost_types::Timestamp> {
    Some(sculpt_proto::timestamp(chrono::Utc::now()))
}

/// Shows the list and what changes in it until Ctrl-C, over restarts of the controller.
async fn watch(client: &Client, filter: ListTasksRequest, limit: u32, format: Format) -> Result<Exit, Failure> {
    let mut backoff = Backoff::new();
    let mut outage = Outage::default();
    let mut shown = HashMap::new();
    loop {
        let round = tokio::select! {
            round = follow(client, &filter, limit, format, &mut shown, &mut outage) => round,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Detached),
        };
        match round {
            Ok(()) => backoff.reset(),
            Err(failure) if failure.exit == Exit::OutOfReach => outage.began(false),
            Err(failure) => return Err(failure),
        }
        backoff.pause().await;
    }
}

async fn follow(
    client: &Client,
    filter: &ListTasksRequest,
    limit: u32,
    format: Format,
    shown: &mut HashMap<String, (u64, TaskState)>,
    outage: &mut Outage,
) -> Result<(), Failure> {
    let (tasks, cursor) = list(client, filter.clone(), limit).await?;
    outage.ended(false);
    present(&tasks, format, shown)?;
    let request = WatchEventsRequest { cursor, follow: true, task: String::new() };
    let mut events = client.read("watch tasks", client.events().watch_events(request)).await?;
    let mut tasks = tasks;
    loop {
        match tokio::time::timeout(REDRAW, changed(&mut events)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                present(&tasks, format, shown)?;
                continue;
            }
        }
        // More of the same moment is taken along before the list is read again.
        if let Ok(Err(failure)) = tokio::time::timeout(TOGETHER, all_changes(&mut events)).await {
            return Err(failure);
        }
        (tasks, _) = list(client, filter.clone(), limit).await?;
        present(&tasks, format, shown)?;
    }
}

/// Waits for an event about a task; false when the stream ended and must be begun again.
async fn changed(events: &mut Streaming<WatchEventsResponse>) -> Result<bool, Failure> {
    loop {
        match events.message().await {
            Ok(Some(WatchEventsResponse { part: Some(Part::Event(event)) })) if event.task != 0 => return Ok(true),
            Ok(Some(_)) => {}
            Ok(None) => return Err(Failure::new(Exit::OutOfReach, "watch tasks", "the stream ended")),
            Err(status) if is_transient(&status) => return Err(Failure::status("watch tasks", &status)),
            // An old cursor: the list is read again.
            Err(status) if status.code() == tonic::Code::OutOfRange => return Ok(false),
            Err(status) => return Err(Failure::status("watch tasks", &status)),
        }
    }
}

/// Takes events until the stream ends.
async fn all_changes(events: &mut Streaming<WatchEventsResponse>) -> Result<(), Failure> {
    while changed(events).await? {}
    Ok(())
}

/// The newest tasks that fit a window of so many lines, drawn over what stood there.
fn screen(tasks: &[Task], lines: usize) -> String {
    // The header, an empty line, the last line, and the line that the cursor stands in.
    let fit = lines.saturating_sub(4).max(1).min(tasks.len());
    let table = match tasks {
        [] => "no tasks".to_owned(),
        _ => table(&tasks[..fit]),
    };
    let more = match tasks.len() - fit {
        0 => String::new(),
        older => format!("{older} older; "),
    };
    let screen = format!("{table}\n\n{more}Ctrl-C ends the watch").replace('\n', "\x1b[K\n");
    format!("\x1b[H{screen}\x1b[K\x1b[J")
}

/// Redraws the table on a terminal; elsewhere and in JSON gives a line for each task that is new or changed.
fn present(tasks: &[Task], format: Format, shown: &mut HashMap<String, (u64, TaskState)>) -> Result<(), Failure> {
    if format == Format::Text
        && let Some((_, lines)) = window()
    {
        return line(screen(tasks, usize::from(lines)));
    }
    for task in tasks.iter().rev() {
        let seen = (task.revision, task.state());
        if shown.insert(task.uuid.clone(), seen) == Some(seen) {
            continue;
        }
        match format {
            Format::Json => json_line(&TaskJson::from(task))?,
            Format::Text => {
                line(format!("{}\t{}\t{}", task.number, state_name(task.state()), crate::output::clean(&task.title)))?
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_shows_the_newest_that_fit() {
        let task = |number| Task { number, title: format!("title {number}"), ..Task::default() };
        let tasks: Vec<Task> = (1..=30).rev().map(task).collect();
        let screen = screen(&tasks, 12);
        assert_eq!(screen.lines().count(), 11, "{screen:?}");
        assert!(screen.starts_with("\x1b[HTASK"), "{screen:?}");
        assert!(
            screen.contains("title 30") && screen.contains("title 23") && !screen.contains("title 22"),
            "{screen:?}"
        );
        assert!(screen.contains("22 older; Ctrl-C"), "{screen:?}");
        assert!(super::screen(&[], 24).contains("no tasks"));
        assert!(super::screen(&tasks, 1).contains("title 30"));
    }
}

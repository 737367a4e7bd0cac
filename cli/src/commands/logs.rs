//! `sculpt logs`.

use std::sync::Arc;

use sculpt_proto::v1::Task;

use super::task_named;
use crate::{
    args::LogsArgs,
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::{LogReader, Sink, Watch},
    output::{Format, note, tasks::current},
};

pub(super) async fn run(args: LogsArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("read the log of task {}", args.task);
    let task = task_named(&client, &args.task, &attempted).await?;
    let number = task.number;
    let sink = Sink::stdout(format, args.plain);
    let screen = sink.screen();
    let reading = read(&client, &args, task, sink);
    let outcome = tokio::select! {
        outcome = reading => outcome,
        _ = tokio::signal::ctrl_c() => {
            if args.follow {
                note(format!("\ndetached: task {number} is left as it is; `sculpt logs -f {number}` follows it again"));
            }
            Ok(Exit::Detached)
        }
    };
    if let Some(screen) = screen {
        screen.restore()?;
    }
    outcome
}

async fn read(client: &Client, args: &LogsArgs, task: Task, sink: Sink) -> Result<Exit, Failure> {
    let attempted = format!("read the log of task {}", args.task);
    let Some(attempt) = attempt(client, args, task).await? else { return Ok(Exit::Done) };
    let (task, attempt) = attempt;
    let reader = LogReader {
        client: client.clone(),
        task: task.uuid.clone(),
        attempt,
        offset: args.from_offset,
        follow: args.follow,
        quiet: false,
        sink,
        reached: Arc::default(),
    };
    let (_, end) = reader.pump().await?;
    if args.from_offset > end.length {
        let why = format!("the log has {} bytes{}", end.length, if end.complete { "" } else { " so far" });
        return Err(Failure::new(Exit::BadInput, format!("{attempted} from byte {}", args.from_offset), why));
    }
    Ok(Exit::Done)
}

/// The attempt whose log is wanted; waits for one when it is to be followed.
async fn attempt(client: &Client, args: &LogsArgs, mut task: Task) -> Result<Option<(Task, u32)>, Failure> {
    if let Some(wanted) = args.attempt {
        if task.attempts.iter().any(|attempt| attempt.number == wanted) {
            return Ok(Some((task, wanted)));
        }
        let why = format!("the task has had {} so far", crate::output::counted(task.attempts.len(), "attempt"));
        return Err(Failure::new(
            Exit::NotFound,
            format!("read the log of attempt {wanted} of task {}", task.number),
            why,
        ));
    }
    let mut watch = None;
    loop {
        if let Some(attempt) = current(&task).map(|attempt| attempt.number) {
            return Ok(Some((task, attempt)));
        }
        let state = state_name(task.state());
        let why = task.waiting.as_ref().map(|waiting| format!(": {}", waiting.text)).unwrap_or_default();
        if !args.follow || Exit::of_state(task.state()).is_some() {
            note(format!("task {} is {state} and has no log yet{why}", task.number));
            return Ok(None);
        }
        let watch = watch.get_or_insert_with(|| {
            note(format!("task {} is {state}{why}", task.number));
            Watch::new(client, &task.uuid, false)
        });
        task = watch.next().await?;
    }
}

//! `sculpt logs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sculpt_proto::v1::{Attempt, Task};

use super::{attempt_numbered, task_named};
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
    let sink = Sink::whole(format, args.plain);
    let screens = sink.screens();
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
    if let Some(screens) = screens {
        screens.restore()?;
    }
    outcome
}

async fn read(client: &Client, args: &LogsArgs, task: Task, sink: Sink) -> Result<Exit, Failure> {
    let attempted = format!("read the log of task {}", args.task);
    let Some((task, attempt)) = attempt(client, args, task).await? else { return Ok(Exit::Done) };
    // The end of an attempt may be known before the last bytes of its log. What was asked for is the whole log: with less a
    // script must not go on as if it had it.
    let ended = |known: &Attempt| known.number == attempt && known.state == "ended" && !known.log_complete;
    let rest = !args.follow && task.attempts.iter().any(ended);
    let reached = Arc::new(AtomicU64::new(args.from_offset));
    let reader = LogReader {
        client: client.clone(),
        task: task.uuid.clone(),
        number: task.number,
        attempt,
        offset: args.from_offset,
        follow: args.follow || rest,
        quiet: false,
        sink,
        reached: Arc::clone(&reached),
    };
    let pump = reader.pump();
    let end = if rest {
        tokio::select! {
            read = pump => read?.1,
            () = stalled(&reached, args.patience) => {
                let why = "its last bytes have not arrived from the executor, and nothing has for a while";
                let next = format!("`sculpt logs -f {}` waits for them", task.number);
                return Err(Failure::new(Exit::Failed, attempted, why).next(next));
            }
        }
    } else {
        pump.await.map_err(|failure| resumable(failure, task.number, attempt, &reached))?.1
    };
    if args.from_offset > end.length {
        let why = format!("the log has {} bytes{}", end.length, if end.complete { "" } else { " so far" });
        return Err(Failure::new(Exit::BadInput, format!("{attempted} from byte {}", args.from_offset), why));
    }
    if end.complete {
        // The end of the stream is known before the length that its executor told: so the task is asked once more.
        let task = task_named(client, &task.uuid, &attempted).await?;
        if let Some(known) = task.attempts.iter().find(|known| known.number == attempt && is_cut(known)) {
            let why = format!("attempt {} was given up before all of its log had arrived", known.number);
            let next =
                format!("what was printed is all that there will be; `sculpt show {}` says what happened", task.number);
            return Err(Failure::new(Exit::Failed, attempted, why).next(next));
        }
    }
    Ok(Exit::Done)
}

/// Says how to go on where the controller went away.
fn resumable(failure: Failure, task: u64, attempt: u32, reached: &AtomicU64) -> Failure {
    if failure.exit != Exit::OutOfReach {
        return failure;
    }
    let at = reached.load(Ordering::Relaxed);
    failure.next(format!("go on later with `sculpt logs {task} --attempt {attempt} --from-offset {at}`"))
}

/// Whether a log that nothing is added to any more lacks its end: the executor never told how long it is.
fn is_cut(attempt: &Attempt) -> bool {
    attempt.state == "ended" && !attempt.log_complete && (attempt.started_at.is_some() || attempt.log_bytes > 0)
}

/// Returns when a log has not moved for so long.
async fn stalled(reached: &AtomicU64, patience: Duration) {
    let mut seen = reached.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(patience).await;
        let now = reached.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// The attempt whose log is wanted; waits for one when it is to be followed.
async fn attempt(client: &Client, args: &LogsArgs, mut task: Task) -> Result<Option<(Task, u32)>, Failure> {
    if let Some(wanted) = args.attempt {
        let wanted = attempt_numbered(&task, wanted, "read the log of")?.number;
        return Ok(Some((task, wanted)));
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
            Watch::new(client, task.number, &task.uuid, false)
        });
        task = watch.next().await?;
    }
}

//! `sculpt replay`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use sculpt_proto::v1::{Attempt, Task};
use serde::Serialize;

use super::{attempt_numbered, task_named};
use crate::{
    args::value,
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::LogReader,
    output::{
        Format, clean, json, note,
        tasks::current,
        time::{brief, instant},
    },
    replay::{About, Cast, Made, NewFile, Pace, Recording, Seen, Timeline, play, print, write},
};

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    task: String,
    /// An attempt other than the current one
    #[arg(long, value_name = "N", value_parser = value::whole::<u32>(1, u32::MAX.into()))]
    attempt: Option<u32>,
    /// So many times as fast as it was
    #[arg(long, value_name = "X", default_value = "1", value_parser = value::speed)]
    speed: f64,
    /// Show what was before this time at once
    #[arg(long, value_name = "DURATION", value_parser = value::span)]
    from: Option<Duration>,
    /// Let no silence last longer than this
    #[arg(long, value_name = "DURATION", value_parser = value::span)]
    idle_limit: Option<Duration>,
    /// Write an asciicast for players such as asciinema instead, in this time; - is standard output
    #[arg(long, value_name = "FILE")]
    cast: Option<PathBuf>,
}

/// Where a recording goes.
enum To {
    /// Somebody watches.
    Viewer,
    /// As an asciicast, to standard output.
    Output,
    /// The same, to a file.
    File(NewFile),
}

impl To {
    fn of(cast: Option<&Path>, format: Format) -> Result<Self, Failure> {
        match (cast, format) {
            // For programs a recording is an asciicast, which is lines of JSON.
            (None, Format::Json) => Ok(Self::Output),
            (None, Format::Text) => Ok(Self::Viewer),
            (Some(path), _) if path == Path::new("-") => Ok(Self::Output),
            (Some(path), _) => NewFile::begin(path).map(Self::File),
        }
    }
}

#[derive(Serialize)]
struct MadeJson {
    task: u64,
    attempt: u32,
    file: String,
    /// Nothing will be added to what was recorded.
    complete: bool,
    #[serde(flatten)]
    made: Made,
}

pub(super) async fn run(args: ReplayArgs, format: Format) -> Result<Exit, Failure> {
    let to = To::of(args.cast.as_deref(), format)?;
    let client = Client::connect().await?;
    let attempted = format!("replay task {}", args.task);
    let task = task_named(&client, &args.task, &attempted).await?;
    let attempt = match args.attempt {
        Some(number) => attempt_numbered(&task, number, "replay")?,
        None => current(&task).ok_or_else(|| no_log(&task, &attempted))?,
    };
    let mut recording = Recording::open(|sink| LogReader {
        client: client.clone(),
        task: task.uuid.clone(),
        number: task.number,
        attempt: attempt.number,
        offset: 0,
        follow: false,
        // On a terminal it would stand in the middle of the picture.
        quiet: matches!(to, To::Viewer),
        sink,
        reached: Arc::default(),
    });
    let from = args.from.unwrap_or_default();
    let timeline = Timeline::new(Pace { speed: args.speed, from, idle_limit: args.idle_limit });
    let cast = Cast::new(about(&task, attempt), timeline);
    let made = async {
        match to {
            To::Viewer => play(&mut recording, timeline).await,
            To::Output => print(&mut recording, cast).await.map(|made| Seen::Whole(made.recorded)),
            To::File(file) => {
                let path = file.path().display().to_string();
                let made = write(&mut recording, cast, file).await?;
                let complete = recording.end().is_some_and(|end| end.complete);
                let written = MadeJson { task: task.number, attempt: attempt.number, file: path, complete, made };
                tell(format, &written).map(|()| Seen::Whole(made.recorded))
            }
        }
    };
    let seen = tokio::select! {
        seen = made => seen?,
        // A file that is not whole is gone.
        _ = tokio::signal::ctrl_c(), if args.cast.is_some() || format == Format::Json => Seen::Interrupted,
    };
    match seen {
        Seen::Left => Ok(Exit::Done),
        Seen::Interrupted => Ok(Exit::Detached),
        Seen::Whole(length) => {
            if from > length {
                note(format!("the recording is only {} long, so that all of it came at once", brief(length)));
            }
            let end = recording.end();
            if let Some(remark) = remark(task.number, attempt, end.is_some_and(|end| end.complete)) {
                note(remark);
            }
            Ok(Exit::Done)
        }
    }
}

fn no_log(task: &Task, attempted: &str) -> Failure {
    let why = task.waiting.as_ref().map(|waiting| format!(": {}", waiting.text)).unwrap_or_default();
    let why = format!("it is {} and has no log yet{why}", state_name(task.state()).replace('_', " "));
    Failure::new(Exit::Conflict, attempted, why)
        .next(format!("`sculpt logs -f {}` waits for what it writes", task.number))
}

fn about(task: &Task, attempt: &Attempt) -> About {
    let again = if attempt.number > 1 { format!(" (attempt {})", attempt.number) } else { String::new() };
    let began = instant(attempt.started_at.as_ref()).or_else(|| instant(attempt.created_at.as_ref()));
    About {
        title: clean(&format!("task {}{again}: {}", task.number, task.title)),
        began: began.map(|at| at.timestamp()),
    }
}

/// What a person should know who has seen everything there is.
fn remark(task: u64, attempt: &Attempt, complete: bool) -> Option<String> {
    let number = attempt.number;
    match (attempt.state == "ended", complete, attempt.log_complete) {
        (false, false, _) => Some(format!(
            "attempt {number} of task {task} goes on: this is what it has written so far; `sculpt logs -f {task}` follows it"
        )),
        (true, false, _) => Some(format!(
            "the last bytes of attempt {number} of task {task} have not arrived from its executor yet; \
             `sculpt logs -f {task}` waits for them"
        )),
        (true, true, false) => Some(format!(
            "attempt {number} of task {task} was given up before all of its log had arrived; `sculpt show {task}` says what \
             happened"
        )),
        (true, true, true) | (false, true, _) => None,
    }
}

/// Says what was written to a file.
fn tell(format: Format, written: &MadeJson) -> Result<(), Failure> {
    match format {
        Format::Json => json(written),
        Format::Text => {
            let Made { columns, rows, seconds, .. } = written.made;
            let plays = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            note(format!("wrote {}: {columns}x{rows}, plays for {}", written.file, brief(plays)));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_all_is_called_so() {
        for (state, log_complete, complete, words) in [
            ("running", false, false, Some("so far")),
            ("finalizing", false, false, Some("so far")),
            ("running", false, true, None),
            ("ended", false, false, Some("have not arrived")),
            ("ended", false, true, Some("given up")),
            ("ended", true, true, None),
        ] {
            let attempt = Attempt { number: 2, state: state.to_owned(), log_complete, ..Attempt::default() };
            let said = remark(17, &attempt, complete);
            assert_eq!(said.is_some(), words.is_some(), "{state}: {said:?}");
            assert!(said.unwrap_or_default().contains(words.unwrap_or_default()), "{state}");
        }
    }

    #[test]
    fn a_recording_is_called_after_its_task() {
        let task = Task { number: 17, title: "fix\x1b[2J it".to_owned(), ..Task::default() };
        let stamp = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        for (number, started_at, title, began) in
            [(1, stamp(200), "task 17: fix [2J it", 200), (3, None, "task 17 (attempt 3): fix [2J it", 100)]
        {
            let attempt = Attempt { number, started_at, created_at: stamp(100), ..Attempt::default() };
            let expected = About { title: title.to_owned(), began: Some(began) };
            assert_eq!(about(&task, &attempt), expected);
        }
    }
}

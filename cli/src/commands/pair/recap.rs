//! What somebody who comes after a break should know before they sit down: what it is for, how far it has come, and what it
//! wrote last.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use chrono::Utc;
use sculpt_proto::v1::{Attempt, Task};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    client::Client,
    follow::LogReader,
    output::{
        clean, note,
        screen::Screen,
        tasks::{attached, current, milestone_line},
        time::instant,
    },
    replay::Recording,
};

/// Who comes earlier has seen it begin.
const BREAK: Duration = Duration::from_secs(60);

/// How long nobody minds that it takes.
const SOON: Duration = Duration::from_millis(300);

/// How much is told.
const MILESTONES: usize = 3;
const LINES: usize = 10;

/// Characters of a line that are told: programs that draw a whole screen write few line ends.
const WIDTH: usize = 200;

/// How much of a log's end is read for that.
const TAIL: usize = 16 << 10;

/// It, while the log's end is on its way: that comes beside whatever else is needed to sit down.
pub(super) struct Recap {
    task: Task,
    until: Instant,
    /// Dropped, it reads no more.
    reading: JoinSet<Vec<u8>>,
}

impl Recap {
    /// Begins, unless somebody sits there already.
    pub(super) fn begin(client: &Client, task: &Task) -> Option<Self> {
        let attempt = current(task).filter(|attempt| is_a_break(task, attempt))?.clone();
        let mut reading = JoinSet::new();
        let (client, of) = (client.clone(), task.clone());
        reading.spawn(async move { read(&client, &of, &attempt).await });
        Some(Self { task: task.clone(), until: Instant::now() + SOON, reading })
    }

    /// Tells it, without the log's end where that comes late.
    pub(super) async fn tell(mut self) {
        let written = match timeout_at(self.until, self.reading.join_next()).await {
            Ok(Some(Ok(written))) => written,
            Ok(Some(Err(_)) | None) | Err(_) => Vec::new(),
        };
        page(&self.task, &written).iter().for_each(note);
    }
}

/// Whether the agent was alone for a while, as far as that is known.
fn is_a_break(task: &Task, attempt: &Attempt) -> bool {
    let runs = instant(attempt.started_at.as_ref()).and_then(|since| (Utc::now() - since).to_std().ok());
    attached(task).next().is_none() && runs.is_some_and(|runs| runs >= BREAK)
}

/// Reads the end of the log.
async fn read(client: &Client, task: &Task, attempt: &Attempt) -> Vec<u8> {
    let mut written = Vec::new();
    let offset = attempt.log_bytes.saturating_sub(TAIL as u64);
    let mut recording = Recording::open(|sink| LogReader {
        client: client.clone(),
        task: task.uuid.clone(),
        number: task.number,
        attempt: attempt.number,
        offset,
        follow: false,
        quiet: true,
        sink,
        reached: Arc::new(AtomicU64::new(offset)),
    });
    while let Ok(Some(chunk)) = recording.next().await {
        written.extend_from_slice(&chunk.data);
        written.drain(..written.len().saturating_sub(TAIL));
    }
    written
}

/// PURE: what is told of a task that wrote this last.
fn page(task: &Task, written: &[u8]) -> Vec<String> {
    let intent = (!task.intent_line.is_empty()).then(|| format!("task {}  {}", task.number, clean(&task.intent_line)));
    let milestones = task.milestones.iter().rev().take(MILESTONES).rev();
    let milestones = milestones.map(|milestone| format!("  {}", milestone_line(milestone)));
    let begun_before = written.len() >= TAIL;
    let first = written.iter().position(|byte| *byte == b'\n').filter(|_| begun_before);
    let text = Screen::plain().feed(&written[first.unwrap_or_default()..]);
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let last: Vec<String> = lines.map(|line| line.chars().take(WIDTH).collect()).collect();
    let last = last[last.len().saturating_sub(LINES)..].iter().map(|line| format!("  | {line}"));
    intent.into_iter().chain(milestones).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use sculpt_proto::v1::{Milestone, PairingSession};

    use super::*;

    fn task(ago: i64) -> Task {
        let started = Timestamp { seconds: Utc::now().timestamp() - ago, nanos: 0 };
        let attempt = Attempt { number: 1, started_at: Some(started), ..Attempt::default() };
        Task { number: 17, intent_line: "dates\u{1b}".into(), attempts: vec![attempt], ..Task::default() }
    }

    #[test]
    fn who_sits_there_or_has_just_begun_it_needs_none() {
        let is_told = |task: &Task| is_a_break(task, current(task).unwrap());
        assert!(is_told(&task(61)));
        assert!(!is_told(&task(30)));
        let mut occupied = task(3_600);
        occupied.attempts[0].attached.push(PairingSession::default());
        assert!(!is_told(&occupied));
        let mut unborn = task(3_600);
        unborn.attempts[0].started_at = None;
        assert!(!is_told(&unborn));
    }

    #[test]
    fn what_is_told_is_short_and_steers_nothing() {
        let mut task = task(3_600);
        let said = |text: &str| Milestone { text: text.into(), ..Milestone::default() };
        task.milestones = ["a", "b", "c", "d"].map(said).into();
        let log: String = (0..20).map(|n| format!("\x1b[31mline {n}\x1b[0m\r\n\r\n")).collect();
        let page_of = |log: &str| page(&task, log.as_bytes());
        let told = page_of(&log);
        assert_eq!(told.len(), 1 + MILESTONES + LINES, "{told:?}");
        assert_eq!(told[0], "task 17  dates ");
        assert!(told[1].ends_with(" b") && told[3].ends_with(" d"), "{told:?}");
        assert_eq!((told[4].as_str(), told[13].as_str()), ("  | line 10", "  | line 19"));

        assert_eq!(page_of("").len(), 4);
        assert_eq!(page_of(&"x".repeat(TAIL)).last().unwrap().len(), "  | ".len() + WIDTH);
        // The first of many lines may have begun before what was read.
        let torn = format!("half a sequence 31m\nwhole\n{}", "\n".repeat(TAIL));
        assert_eq!(page_of(&torn)[4..], ["  | whole"]);
    }
}

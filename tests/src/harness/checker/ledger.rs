//! What this process was promised: calls that were answered well, and what followers were shown.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

/// A call that was answered well; its effect must be there for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// This task was created.
    Created(u64),
    /// The end of this task was asked for.
    Stopped(u64),
    /// Another attempt of this task was asked for.
    Retried(u64),
    /// An executor was told that so many reports of this attempt are committed.
    Applied(String, u64),
    /// An executor was told that so many bytes of this attempt's log are committed.
    Held(String, u64),
}

/// Bytes of a log that somebody was shown, from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The task, as it was named.
    pub task: String,
    /// The attempt's number; 0 when nobody said which.
    pub attempt: u32,
    /// What was shown.
    pub bytes: Vec<u8>,
}

/// Everything that was promised so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    promises: Vec<Promise>,
    logs: BTreeMap<u64, Shown>,
    events: Vec<Value>,
    readers: u64,
}

/// A place in a ledger.
#[derive(Clone, Debug)]
pub struct Mark(Ledger);

impl Ledger {
    /// A call was answered well.
    pub fn promised(&mut self, promise: Promise) {
        self.promises.push(promise);
    }

    /// A follower was shown an event.
    pub fn event(&mut self, event: Value) {
        self.events.push(event);
    }

    /// A number for one more follower.
    pub fn reader(&mut self) -> u64 {
        self.readers += 1;
        self.readers
    }

    /// Follower number `reader` was shown further bytes of a log.
    pub fn log(&mut self, reader: u64, task: &str, attempt: u32, more: &[u8]) {
        let empty = || Shown { task: task.to_owned(), attempt, bytes: Vec::new() };
        self.logs.entry(reader).or_insert_with(empty).bytes.extend_from_slice(more);
    }

    /// What `arguments` of a `sculpt` command that exited with 0 promise.
    pub fn answered(&mut self, arguments: &[String], stdout: &str) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let promise = match words.as_slice() {
            ["run", rest @ ..] if rest.contains(&"-q") => number(stdout).map(Promise::Created),
            ["stop", task] => number(task).map(Promise::Stopped),
            ["retry", task, ..] => number(task).map(Promise::Retried),
            _ => None,
        };
        self.promises.extend(promise);
    }

    /// The calls that were answered well.
    pub fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// What followers of logs were shown.
    pub fn logs(&self) -> impl Iterator<Item = &Shown> {
        self.logs.values()
    }

    /// The events that followers were shown.
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark(self.clone())
    }

    /// Forgets what was promised after `mark`: the scenario has lost it on purpose.
    pub fn rewind(&mut self, mark: &Mark) {
        *self = mark.0.clone();
    }
}

/// The ledger of a stack, written to by all who use it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    /// Writes into it.
    pub fn note<T>(&self, write: impl FnOnce(&mut Ledger) -> T) -> T {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it says now.
    pub fn copy(&self) -> Ledger {
        self.note(|ledger| ledger.clone())
    }
}

/// What a run of `sculpt` shows on its stdout that must last.
#[derive(Clone, Debug)]
pub struct Watcher {
    ledger: Shared,
    watched: Watched,
}

#[derive(Clone, Debug)]
enum Watched {
    Events,
    Log { reader: u64, task: String },
}

impl Watcher {
    /// Of what a run with `arguments` shows; none when it shows something else.
    pub fn of(ledger: &Shared, arguments: &[String]) -> Option<Self> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let watched = match words.as_slice() {
            ["events", rest @ ..] if rest.contains(&"json") => Watched::Events,
            ["logs", task] | ["logs", "-f", task] | ["logs", task, "-f"] => {
                Watched::Log { reader: ledger.note(Ledger::reader), task: (*task).to_owned() }
            }
            _ => return None,
        };
        Some(Self { ledger: ledger.clone(), watched })
    }

    /// These bytes were shown; of events whole lines.
    pub fn shown(&self, bytes: &[u8]) {
        self.ledger.note(|ledger| match &self.watched {
            Watched::Log { reader, task } => ledger.log(*reader, task, 0, bytes),
            Watched::Events => {
                let lines = bytes.split(|byte| *byte == b'\n');
                lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|event| ledger.event(event));
            }
        });
    }
}

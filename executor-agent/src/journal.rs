//! The report journal of one attempt: append-only, on disk before anything is sent.
//!
//! One line per report: the CRC-32C of the JSON in eight hexadecimal digits, a space, the JSON. A torn last line (the
//! process died while writing) was never sent, so it is cut off; a damaged line before the last one is an error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sculpt_pairing::Role;
use sculpt_proto::id::SeatId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    damage, disk, host,
    report::{Ended, Seat, Step, taken},
};

/// Disk space that is held back for the reports that are still to come.
const RESERVE: u64 = 16 << 10;

/// More than the line takes that tells of a person.
const LONGEST_SEAT: u64 = 64 << 10;

/// Why somebody left who was there at the end.
const OVER: &str = "the agent has ended";

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("could not {attempt} the journal {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line that had been written whole is damaged.
    #[error("line {line} of the journal {path} is damaged; the attempt is left as it is")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// 1 for the first.
        line: usize,
    },
}

impl JournalError {
    /// Whether the same may succeed later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Io { source, .. } => damage::passes(source),
            Self::Damaged { .. } => false,
        }
    }
}

/// When something happened, on a clock that nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    boot: String,
    boottime_ms: u64,
    wall_ms: u64,
}

impl Stamp {
    /// This moment.
    pub fn now(boot: &str) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { boot: boot.to_owned(), boottime_ms: millis(host::boottime()), wall_ms: millis(wall) }
    }

    /// How long ago it was; after a reboot by the wall clock, and never negative.
    pub fn age(&self, now: &Self) -> Duration {
        let ms = if self.boot == now.boot {
            now.boottime_ms.saturating_sub(self.boottime_ms)
        } else {
            now.wall_ms.saturating_sub(self.wall_ms)
        };
        Duration::from_millis(ms)
    }

    /// Whether it was in this boot.
    pub fn same_boot(&self, boot: &str) -> bool {
        self.boot == boot
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A report in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 1, 2, 3, …
    pub sequence: u64,
    /// When it was written.
    pub at: Stamp,
    /// What it says.
    #[serde(flatten)]
    pub step: Step,
}

/// The journal of one attempt; the file has one writer.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    entries: Vec<Entry>,
    /// Length of the lines that are known to be whole.
    length: u64,
    /// Seats that were taken when it was opened.
    found: Vec<SeatId>,
}

impl Inner {
    /// The last entry that moves the attempt.
    fn last_step(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.step.moves())
    }

    fn told_of_seats(&self) -> impl Iterator<Item = &Seat> {
        self.entries.iter().filter_map(|entry| match &entry.step {
            Step::Seat(seat) => Some(seat),
            _ => None,
        })
    }

    fn has_ended(&self) -> bool {
        self.last_step().is_some_and(|entry| matches!(entry.step, Step::Ended(_)))
    }

    /// So that the last report can be written on a full disk. What cannot be held back now is tried for with the next.
    fn hold_room(&self) {
        let _full = disk::allocate(&self.file, self.length + RESERVE);
    }
}

impl Journal {
    /// Opens or makes the journal at `path`; `boot` is the kernel's boot id. A torn tail is cut off.
    pub fn open(path: &Path, boot: &str) -> Result<Self, JournalError> {
        let fail = |attempt: &'static str| move |source| JournalError::Io { attempt, path: path.to_owned(), source };
        let content = match std::fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail("read")(error)),
        };
        let (entries, length) = parse(&content, path)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(fail("open"))?;
        if (length as usize) < content.len() {
            file.set_len(length).map_err(fail("cut the torn end off"))?;
        }
        file.sync_all().map_err(fail("flush"))?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|directory| directory.sync_all()).map_err(fail("flush the directory of"))?;
        }
        let mut inner = Inner { file, entries, length, found: Vec::new() };
        inner.found = taken(inner.told_of_seats());
        inner.hold_room();
        let inner = Mutex::new(inner);
        Ok(Self { path: path.to_owned(), boot: boot.to_owned(), inner })
    }

    /// Appends a report and flushes it to disk; returns its sequence. Blocks.
    pub fn append(&self, step: Step) -> Result<u64, JournalError> {
        let mut inner = self.lock();
        if matches!(step, Step::Ended(_)) {
            self.leave(&mut inner);
        }
        self.write(&mut inner, step)
    }

    /// Says of everybody who is there that they are no longer, as nothing follows an end. That has room on a full disk; this may not.
    fn leave(&self, inner: &mut Inner) {
        for seat in taken(inner.told_of_seats()) {
            let left = Step::Seat(Seat::Detached { seat, why: OVER.to_owned() });
            if let Err(error) = self.make_room(inner).and_then(|()| self.write(inner, left)) {
                return warn!(%error, "who was there at the end of an attempt is not written down as gone");
            }
        }
    }

    /// Appends what a person does; none when the attempt has ended, after which nothing follows. The room that is held back
    /// for the attempt's own reports is not taken. Blocks.
    pub fn append_seat(&self, seat: Seat) -> Result<Option<u64>, JournalError> {
        let mut inner = self.lock();
        if inner.has_ended() {
            return Ok(None);
        }
        self.make_room(&inner)?;
        self.write(&mut inner, Step::Seat(seat)).map(Some)
    }

    /// Room for what people say and do, beside that which is held back.
    fn make_room(&self, inner: &Inner) -> Result<(), JournalError> {
        let fail = |source| JournalError::Io { attempt: "hold room in", path: self.path.clone(), source };
        disk::allocate(&inner.file, inner.length + LONGEST_SEAT + RESERVE).map(drop).map_err(fail)
    }

    /// Appends those of `all` that come after the milestones which stand here; none when there are none, or the attempt has
    /// ended. Blocks.
    pub fn append_milestones(&self, all: Vec<String>) -> Result<Option<u64>, JournalError> {
        let mut inner = self.lock();
        if inner.has_ended() {
            return Ok(None);
        }
        let known = inner.entries.iter().filter(|entry| matches!(entry.step, Step::Milestone { .. })).count();
        let mut last = None;
        for text in all.into_iter().skip(known) {
            self.make_room(&inner)?;
            last = Some(self.write(&mut inner, Step::Milestone { text })?);
        }
        Ok(last)
    }

    /// The last milestone.
    pub fn last_milestone(&self) -> Option<String> {
        self.lock().entries.iter().rev().find_map(|entry| match &entry.step {
            Step::Milestone { text } => Some(text.clone()),
            _ => None,
        })
    }

    fn write(&self, inner: &mut Inner, step: Step) -> Result<u64, JournalError> {
        let fail = |source| JournalError::Io { attempt: "append to", path: self.path.clone(), source };
        let sequence = inner.entries.last().map_or(0, |entry| entry.sequence) + 1;
        let entry = Entry { sequence, at: Stamp::now(&self.boot), step };
        let line = encode(&entry).map_err(|error| fail(io::Error::other(error)))?;
        // A failed write may have left a part behind, which must not join with the next line.
        let result = inner.file.write_all(&line).and_then(|()| {
            sculpt_failpoints::pass("journal.before_sync");
            inner.file.sync_data()
        });
        sculpt_failpoints::pass("journal.synced");
        if let Err(error) = result {
            let length = inner.length;
            let _cut = inner.file.set_len(length);
            return Err(fail(error));
        }
        inner.length += line.len() as u64;
        inner.entries.push(entry);
        inner.hold_room();
        Ok(sequence)
    }

    /// The last sequence; 0 when the journal is empty.
    pub fn last(&self) -> u64 {
        self.lock().entries.last().map_or(0, |entry| entry.sequence)
    }

    /// Entries with sequences from `from` to `through`, both included.
    pub fn range(&self, from: u64, through: u64) -> Vec<Entry> {
        let inner = self.lock();
        inner.entries.iter().filter(|entry| (from..=through).contains(&entry.sequence)).cloned().collect()
    }

    /// The last entry that moves the attempt; notes and people move nothing.
    pub fn last_step(&self) -> Option<Entry> {
        self.lock().last_step().cloned()
    }

    /// The last report, once there is one.
    pub fn ended(&self) -> Option<Ended> {
        match &self.lock().last_step()?.step {
            Step::Ended(ended) => Some(ended.clone()),
            Step::Accepted
            | Step::Preparing
            | Step::Running { .. }
            | Step::Finalizing { .. }
            | Step::Note { .. }
            | Step::Milestone { .. }
            | Step::Seat(_) => None,
        }
    }

    /// Seats that nobody was said to have left.
    pub fn seats(&self) -> Vec<SeatId> {
        taken(self.lock().told_of_seats())
    }

    /// Seats that were taken when this journal was opened: who sat there was cut off with whoever wrote it before. Each of them
    /// once.
    pub fn take_found(&self) -> Vec<SeatId> {
        std::mem::take(&mut self.lock().found)
    }

    /// Whether the last who drove has left this seat, and the keyboard with it.
    pub fn hands_back(&self, left: SeatId) -> bool {
        let inner = self.lock();
        let mut drives: Vec<SeatId> = Vec::new();
        let mut drove = false;
        for seat in inner.told_of_seats() {
            match seat {
                Seat::Attached { seat, role: Role::Driver, .. } => drives.push(*seat),
                Seat::Detached { seat, .. } => {
                    drove |= *seat == left && drives.contains(seat);
                    drives.retain(|one| one != seat);
                }
                Seat::Attached { .. } | Seat::Typed { .. } => {}
            }
        }
        drove && drives.is_empty()
    }

    /// Whether this remark has been made.
    pub fn has_note(&self, note: &str) -> bool {
        self.lock().entries.iter().any(|entry| matches!(&entry.step, Step::Note { text } if text == note))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_string(entry)?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes())
}

fn decode(line: &[u8], sequence: u64) -> Option<Entry> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc.strip_suffix(b" ")?).ok()?, 16).ok()?;
    let entry: Entry = (crc == crc32c::crc32c(json)).then(|| serde_json::from_slice(json).ok())??;
    (entry.sequence == sequence).then_some(entry)
}

/// The entries, and the length of the lines that hold them.
fn parse(content: &[u8], path: &Path) -> Result<(Vec<Entry>, u64), JournalError> {
    let mut entries = Vec::new();
    let mut length = 0;
    let mut lines = content.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let whole = line.strip_suffix(b"\n");
        match whole.and_then(|line| decode(line, entries.len() as u64 + 1)) {
            Some(entry) => {
                entries.push(entry);
                length += line.len() as u64;
            }
            None if lines.peek().is_none() => break,
            None => return Err(JournalError::Damaged { path: path.to_owned(), line: entries.len() + 1 }),
        }
    }
    Ok((entries, length))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

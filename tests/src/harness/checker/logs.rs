//! I1: log bytes are the bytes that the agent wrote.

use std::time::Duration;

use super::{AttemptFacts, Facts};

/// How much older than the last line that an agent noted the last byte of a torn recording may be: what is flushed within
/// 200 ms may be gone with the power, and what a loaded machine had not let the shim read is gone with the shim.
const EXPLAINED: Duration = Duration::from_secs(1);

/// How much of what the agent wrote may be missing in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing: it ended by itself.
    Nothing,
    /// The line that it was about to write when it was killed: it notes each line after writing it.
    Between,
    /// What it wrote in the last moment, because its recorder was killed or the host went down.
    Tail,
    /// The same, and its recording was damaged: the controller may hold more than is left of it, and what is missing of the
    /// rest is named in the attempt's remarks.
    Recording,
    /// What had not arrived when the task was taken away from it.
    Stale,
}

/// What is wrong with the logs.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let attempts = facts.attempts.iter();
    attempts.flat_map(|attempt| [length(attempt), spool(attempt), witness(attempt)]).flatten().collect()
}

/// What is held, what was told and what is given out have one length.
fn length(attempt: &AttemptFacts) -> Option<String> {
    let name = attempt.name();
    let given = attempt.log.len() as u64;
    if given != attempt.log_bytes {
        return Some(format!("{name}: {} bytes are held, {given} are given out", attempt.log_bytes));
    }
    match attempt.log_final {
        Some(told) if !attempt.fenced && told != attempt.log_bytes => {
            Some(format!("{name}: the executor told of {told} bytes, {given} are held"))
        }
        // Whoever ends an attempt without its executor takes the task away from it: every other end came with a length.
        None if !attempt.is_live() && !attempt.fenced => Some(format!("{name} has ended, but its log has no length")),
        Some(_) | None => None,
    }
}

/// What the API gives is what the executor recorded.
fn spool(attempt: &AttemptFacts) -> Option<String> {
    let spool = attempt.spool.as_ref()?;
    let name = attempt.name();
    if attempt.cut == Some(Cut::Recording) {
        return (!attempt.log.starts_with(spool)).then(|| difference(&name, "the spool", spool, &attempt.log));
    }
    if attempt.fenced {
        return (!spool.starts_with(&attempt.log)).then(|| difference(&name, "the spool", spool, &attempt.log));
    }
    (*spool != attempt.log).then(|| difference(&name, "the spool", spool, &attempt.log))
}

/// What the API gives is what the agent says it wrote.
fn witness(attempt: &AttemptFacts) -> Option<String> {
    let witness = attempt.witness.as_ref()?;
    let log = without_returns(&attempt.log);
    let whole = || log.strip_prefix(witness.as_slice()).is_some_and(|more| is_start_of_next(witness, more));
    let beginning = witness.starts_with(&log);
    let holds = match attempt.cut.unwrap_or_else(|| cut_of(attempt)) {
        Cut::Nothing => log == *witness,
        Cut::Between => whole(),
        Cut::Tail => whole() || beginning && is_moment(attempt),
        Cut::Recording => whole() || beginning && (is_moment(attempt) || names_its_damage(attempt)),
        Cut::Stale => whole() || beginning,
    };
    let (noted, recorded) = (attempt.noted_for, attempt.recorded_for);
    let found = || difference(&attempt.name(), "the agent's own account", witness, &log);
    (!holds).then(|| format!("{}; noted for {noted:?}, recorded for {recorded:?}", found()))
}

/// How much may be missing, by how the attempt ended.
fn cut_of(attempt: &AttemptFacts) -> Cut {
    if attempt.exit_code.is_some() && attempt.outcome.as_deref() != Some("cancelled") {
        return Cut::Nothing;
    }
    match attempt.cause.as_deref() {
        _ if attempt.fenced => Cut::Stale,
        Some("internal" | "interrupted") => Cut::Tail,
        Some(_) | None => Cut::Between,
    }
}

/// Whether what is missing was written in a moment that the death of the recorder explains.
fn is_moment(attempt: &AttemptFacts) -> bool {
    let recorded = attempt.recorded_for.unwrap_or_default();
    attempt.noted_for.is_some_and(|noted| noted.saturating_sub(recorded) <= EXPLAINED)
}

fn names_its_damage(attempt: &AttemptFacts) -> bool {
    attempt.told.contains("the recording was damaged")
}

/// A terminal writes a carriage return before each line feed.
fn without_returns(log: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(log.len());
    for (index, byte) in log.iter().enumerate() {
        if *byte != b'\r' || log.get(index + 1) != Some(&b'\n') {
            plain.push(*byte);
        }
    }
    plain
}

/// Whether `more` is nothing, or the line that a counting agent writes after `witness`, or the beginning of it.
fn is_start_of_next(witness: &[u8], more: &[u8]) -> bool {
    let lines = witness.iter().filter(|byte| **byte == b'\n').count();
    let next = format!("line {}\r\n", lines + 1);
    let plain = next.replace('\r', "");
    next.as_bytes().starts_with(more) || plain.as_bytes().starts_with(more)
}

fn difference(name: &str, side: &str, expected: &[u8], log: &[u8]) -> String {
    let at = expected.iter().zip(log).take_while(|(one, other)| one == other).count();
    let around = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(20).min(bytes.len())..(at + 20).min(bytes.len())];
        String::from_utf8_lossy(part).into_owned()
    };
    format!(
        "{name}: {side} has {} bytes, the log {}; they part at {at}: {:?} against {:?}",
        expected.len(),
        log.len(),
        around(expected),
        around(log)
    )
}

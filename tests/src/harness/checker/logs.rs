//! I1: log bytes are the bytes that the agent wrote.

use super::{AttemptFacts, Facts};

/// How much of what the agent wrote may be missing in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing: it ended by itself.
    Nothing,
    /// The line that it was about to write when it was killed: it notes each line after writing it.
    Between,
    /// What it wrote that nobody had read yet, because its recorder was killed or the host went down.
    Tail,
    /// The same, and its recording was damaged: the controller may hold more than is left of it.
    Recording,
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
        None if tells_its_end(attempt) => Some(format!("{name} has ended, but its log has no length")),
        Some(_) | None => None,
    }
}

/// Whether its end came from its executor, with the length of its log.
fn tells_its_end(attempt: &AttemptFacts) -> bool {
    let by_controller = matches!(attempt.cause.as_deref(), Some("executor_lost" | "interrupted" | "internal"))
        || (attempt.outcome.as_deref() == Some("cancelled") && attempt.log_bytes == 0);
    !attempt.is_live() && !attempt.fenced && !by_controller
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
    let holds = match attempt.cut.unwrap_or_else(|| cut_of(attempt)) {
        Cut::Nothing => log == *witness,
        Cut::Between => log.strip_prefix(witness.as_slice()).is_some_and(|more| is_start_of_next(witness, more)),
        Cut::Tail | Cut::Recording => {
            witness.starts_with(&log)
                || log.strip_prefix(witness.as_slice()).is_some_and(|more| is_start_of_next(witness, more))
        }
    };
    (!holds).then(|| difference(&attempt.name(), "the agent's own account", witness, &log))
}

/// How much may be missing, by how the attempt ended.
fn cut_of(attempt: &AttemptFacts) -> Cut {
    if attempt.exit_code.is_some() && attempt.outcome.as_deref() != Some("cancelled") {
        return Cut::Nothing;
    }
    match attempt.cause.as_deref() {
        Some("internal" | "interrupted" | "executor_lost") => Cut::Tail,
        Some(_) | None if attempt.fenced => Cut::Tail,
        Some(_) | None => Cut::Between,
    }
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

//! What people and programs read.

pub(crate) mod audit;
pub mod executors;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub(crate) mod identity;
pub(crate) mod progress;
pub mod screen;
pub(crate) mod seat;
pub(crate) mod table;
pub mod tasks;
pub(crate) mod time;

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{OutputModes, tcgetattr};
use serde::Serialize;

use crate::failure::Failure;

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences for people.
    Text,
    /// Stable JSON for programs.
    Json,
}

/// Writes one line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(Failure::output)?;
    out.flush().map_err(Failure::output)
}

/// Writes one value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(|error| Failure::output(error.into()))?)
}

/// Writes one value as one line of JSON: an element of followed output.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).map_err(|error| Failure::output(error.into()))?)
}

/// Tells people something that is not the output.
pub(crate) fn note(text: impl AsRef<str>) {
    // Where another program, as ssh, has a terminal for itself, nothing else brings the cursor to the beginning of a line.
    let raw = tcgetattr(io::stderr()).is_ok_and(|state| !state.output_modes.contains(OutputModes::OPOST));
    let begin = if raw { "\r" } else { "" };
    for line in text.as_ref().lines() {
        // A closed standard error must not end the command.
        let _ = writeln!(io::stderr(), "{begin}{}{begin}", clean(line));
    }
}

/// Text from elsewhere without characters that steer, so that a title neither moves the cursor nor turns what stands beside
/// it around.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if steers(c) && c != '\t' { ' ' } else { c }).collect()
}

/// Controls, and what changes the direction of text or breaks its lines.
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Whether standard output shows colours: a terminal, and nobody asked for none.
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text between a colour's start and end, when colours are shown.
pub(crate) fn paint(text: &str, sgr: &str) -> String {
    if colours() && !sgr.is_empty() { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `1 task`, `2 tasks`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `words` with `'` around them where a POSIX shell needs it.
pub(crate) fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_title_turns_nothing_around() {
        assert_eq!(clean("a\u{202e}b\u{2066}c\u{1b}d\u{2028}e\tf"), "a b c d e\tf");
        assert_eq!(clean("naïve 日本 👩\u{200d}💻"), "naïve 日本 👩\u{200d}💻", "what joins letters stays");
    }
}

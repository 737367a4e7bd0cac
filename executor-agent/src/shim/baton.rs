//! PURE: whether a message to the agent may be typed now, while people type into the same terminal. Whoever types has the
//! baton until they rest, or hand it back. What stands in the agent's input and was not handed in is a draft, and no message
//! goes out while there is one, however long ago it was typed: the message's Enter would hand in both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keystrokes::{Keystrokes, Stroke};

/// How long people rest before messages go out, unless the launch says otherwise.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// Why a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody types, or did a moment ago.
    Typing,
    /// Text that nobody has handed in stands in the agent's input.
    Draft,
    /// The agent is paused.
    Paused,
    /// That it is typed cannot be written down.
    Disk,
    /// A shim of another version says something else.
    #[serde(other)]
    Other,
}

/// What happens at the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// This came from the people who look at it.
    Keys(&'a [u8]),
    /// Nobody is at the keyboard any more.
    HandedBack,
    /// A message was typed, and handed in or not.
    Said { enter: bool },
    /// Some of a message may have been typed, and nobody knows how much.
    Stuck,
    /// The agent was paused, or goes on.
    Paused(bool),
}

/// Whether a message may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Free,
    /// Not before this moment, and then only if nothing more happens.
    At(Duration),
    /// Not before something happens.
    Later(Why),
}

/// What stands in the agent's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Draft {
    #[default]
    None,
    /// One line with the cursor at its end.
    Line,
    /// Anything.
    Unknown,
}

/// Who may type.
#[derive(Clone, Debug)]
pub(super) struct Baton {
    quiet: Duration,
    keys: Keystrokes,
    draft: Draft,
    /// When somebody typed last, unless they have handed it back.
    typed: Option<Duration>,
    paused: bool,
}

impl Baton {
    /// Free, with an empty input: a shim is there before its agent.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, keys: Keystrokes::default(), draft: Draft::None, typed: None, paused: false }
    }

    /// Takes note of what happens at `now`.
    pub(super) fn apply(&mut self, input: Input<'_>, now: Duration) {
        match input {
            Input::Keys(bytes) => {
                for stroke in self.keys.read(bytes) {
                    self.draft = self.draft.after(stroke);
                    self.typed = Some(now);
                }
            }
            // A draft stays a draft: who went away may come back to it.
            Input::HandedBack => self.typed = None,
            Input::Said { enter: true } => self.draft = Draft::None,
            Input::Said { enter: false } | Input::Stuck => self.draft = Draft::Unknown,
            Input::Paused(paused) => self.paused = paused,
        }
    }

    /// Whether a message may go out at `now`.
    pub(super) fn turn(&self, now: Duration) -> Turn {
        let rested = self.typed.map(|typed| typed.saturating_add(self.quiet)).filter(|rested| now < *rested);
        match (self.paused, self.draft, rested) {
            (true, _, _) => Turn::Later(Why::Paused),
            (false, Draft::Line | Draft::Unknown, _) => Turn::Later(Why::Draft),
            (false, Draft::None, Some(rested)) => Turn::At(rested),
            (false, Draft::None, None) => Turn::Free,
        }
    }
}

impl Draft {
    fn after(self, stroke: Stroke) -> Self {
        match (self, stroke) {
            (_, Stroke::Enter | Stroke::Cancel) => Self::None,
            // On a line alone it leaves nothing; elsewhere nobody knows what.
            (Self::None | Self::Line, Stroke::KillLine) => Self::None,
            (Self::None | Self::Line, Stroke::Text) => Self::Line,
            // How much one of them takes away is the agent's to say: the draft stays until it is handed in or thrown away.
            (draft @ (Self::None | Self::Line), Stroke::Erase) => draft,
            (Self::None, Stroke::Move) => Self::None,
            (Self::Line, Stroke::Move) | (Self::None | Self::Line, Stroke::Bring) => Self::Unknown,
            (Self::Unknown, Stroke::KillLine | Stroke::Text | Stroke::Erase | Stroke::Move | Stroke::Bring) => {
                Self::Unknown
            }
        }
    }
}

#[cfg(test)]
#[path = "baton_tests.rs"]
mod tests;

//! What stands in the status line of a view: what the task is for, and how far it has come. It is text of people and agents,
//! so it goes into options of ours, which the line shows as they are; nothing of it is ever a format.

use std::ffi::OsStr;

use super::{Error, View, refused};
use crate::text::plain_line;

/// What the status line shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What the task is for.
    pub intent: String,
    /// How far it has come; empty when nobody has said so.
    pub milestone: String,
}

const INTENT: &str = "@sculpt_intent";
const MILESTONE: &str = "@sculpt_milestone";

/// Longest text that is handed to tmux, in characters; it cuts off what does not fit a screen.
const LONGEST: usize = 500;

/// The line's own settings. `#{@name}` shows an option without expanding what it holds, as `#{E:@name}` would.
pub(super) const LINE: [&[&str]; 4] = [
    &["set-option", "-g", "status", "on"],
    &["set-option", "-g", "status-interval", "0"],
    &["set-option", "-g", "status-style", "reverse"],
    &[
        "set-option",
        "-g",
        "status-format[0]",
        concat!(
            "#[align=left] #{=/100/…:@sculpt_intent}#[align=right]#{=/100/…:@sculpt_milestone} | ",
            "#{?client_readonly,read-only | ,}C-b d leaves "
        ),
    ],
];

/// The line once the agent has ended: what is typed goes to nobody.
const ENDED: [&str; 9] = [
    "set-option",
    "-g",
    "status-style",
    "bold,reverse",
    ";",
    "set-option",
    "-g",
    "status-format[0]",
    "#[align=left] the agent has ended#[align=right]C-b d leaves ",
];

impl View {
    /// Says in the line of whoever is attached that the agent has ended.
    pub async fn tell_of_the_end(&self) -> Result<(), Error> {
        self.set("say that the agent has ended", &ENDED.map(OsStr::new)).await
    }

    /// Puts `status` into the line of whoever is attached, and of who comes.
    pub async fn show(&self, status: &Status) -> Result<(), Error> {
        let (intent, milestone) = (value(&status.intent), value(&status.milestone));
        let words =
            ["set-option", "-g", INTENT, &intent, ";", "set-option", "-g", MILESTONE, &milestone].map(OsStr::new);
        self.set("show what the task is for", &words).await
    }

    async fn set(&self, attempt: &'static str, words: &[&OsStr]) -> Result<(), Error> {
        let output = self.run(attempt, words).await?;
        if output.status.success() { Ok(()) } else { Err(refused(attempt, &output)) }
    }
}

/// PURE: a text as an argument of tmux that shows as it reads. A `#` begins a style where it is drawn, unless it is doubled;
/// an argument that ends with `;` ends the command, so none does.
fn value(text: &str) -> String {
    let text: String = plain_line(text).chars().take(LONGEST).collect();
    text.replace('#', "##") + " "
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_means_anything_to_tmux() {
        for (text, shown) in [
            ("", " "),
            ("fix the parser", "fix the parser "),
            ("#[fg=red]#(touch x)##", "##[fg=red]##(touch x)#### "),
            ("a;", "a; "),
            ("two\nlines\u{1b}[31m", "twolines[31m "),
        ] {
            assert_eq!(value(text), shown);
        }
        assert_eq!(value(&"ä".repeat(900)).chars().count(), LONGEST + 1);
    }
}

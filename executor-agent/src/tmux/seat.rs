//! A person's seat at a view: a client of its tmux server that may do as much as the person may.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    SESSION, View,
    modes::{PANE, WINDOW},
};
use crate::{stage::Stage, text::ByteText};

/// Says in place of the status line, for 4 s or until a key, that the terminal is taken for another. While it stands there tmux draws
/// nothing else that is new. It is a format, so nothing of what the person has called their terminal is in it.
const UNKNOWN: [&str; 5] = [
    ";",
    "display-message",
    "-d",
    "4000",
    "sculpt: this host does not know the type of your terminal; xterm-256color is used",
];

/// How somebody sits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sits {
    /// With all that tmux can do, which is as much as a shell.
    Freely,
    /// With the agent's terminal and nothing of tmux: in a session of this name, which shares the windows.
    ToType(String),
    /// Without a say in anything, its size too.
    ToWatch,
}

impl Sits {
    fn arguments(&self) -> Vec<OsString> {
        let window;
        let words: Vec<&str> = match self {
            Self::Freely => vec!["attach-session", "-t", SESSION],
            Self::ToWatch => vec!["attach-session", "-t", SESSION, "-f", "ignore-size,read-only"],
            Self::ToType(name) => {
                window = format!("{name}:{WINDOW}");
                [
                    &["new-session", "-d", "-t", SESSION, "-s", name][..],
                    // Prefix, mouse and whatever else is bound lead to tmux's commands, and those to a shell. No table has this name.
                    &[";", "set-option", "-t", name, "prefix", "None"],
                    &[";", "set-option", "-t", name, "prefix2", "None"],
                    &[";", "set-option", "-t", name, "key-table", name],
                    // Somebody may have gone to a shell beside the agent, and have left a mode open, which has keys of its own.
                    &[";", "select-window", "-t", &window, ";", "select-pane", "-t", PANE],
                    &[";", "copy-mode", "-q", "-t", PANE],
                    &[";", "attach-session", "-t", name],
                    // Not before somebody is attached: it would go at once.
                    &[";", "set-option", "-t", name, "destroy-unattached", "on"],
                ]
                .concat()
            }
        };
        words.into_iter().map(OsString::from).collect()
    }
}

impl View {
    /// The client, which lives no longer than who starts it. Whose terminal is `unknown` here is told so.
    pub(crate) fn seat(&self, sits: &Sits, unknown: bool, env: BTreeMap<ByteText, ByteText>) -> Stage {
        let mut arguments = sits.arguments();
        if unknown {
            arguments.extend(UNKNOWN.map(OsString::from));
        }
        let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
        Stage { dies_with_parent: true, ..self.stage(&arguments, env) }
    }
}

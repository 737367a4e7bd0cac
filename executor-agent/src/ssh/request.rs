//! PURE: what a person asks of a session channel, and what of it they get.

use russh::ChannelMsg;
use sculpt_pairing::{Right, Rights};

use crate::pty::Size;

/// The command by which one sits down at the agent's terminal; it is ours, and no program.
const ATTACH: &str = "sculpt-attach";
const READ_ONLY: &str = "--read-only";

/// Passed on from the person's own environment: how they read and what their terminal can do. Nothing of it leads a program
/// astray.
const PASSED: [&str; 5] = ["LANG", "TERM", "COLORTERM", "GIT_PROTOCOL", "TZ"];
const PASSED_FAMILIES: [&str; 2] = ["LC_", "VSCODE_"];

/// More variables are not taken, and none that is longer.
pub(super) const MOST_VARIABLES: usize = 64;
const LONGEST_VALUE: usize = 4096;

/// Of somebody who has no size, and the largest that anybody has: a terminal's memory grows with it.
const USUAL: Size = Size { columns: 80, rows: 24 };
const LARGEST: Size = Size { columns: 1000, rows: 500 };

/// What a terminal is taken for that nobody here knows.
pub(super) const KNOWN_TERM: &str = "xterm-256color";
const LONGEST_TERM: usize = 64;

/// What is to run in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing in particular.
    Shell,
    /// A line for a shell.
    Exec(Vec<u8>),
    /// Something by name.
    Subsystem(String),
}

impl Request {
    /// What a message asks to run; none when it is about something else.
    pub(super) fn of(message: &ChannelMsg) -> Option<Self> {
        match message {
            ChannelMsg::RequestShell { .. } => Some(Self::Shell),
            ChannelMsg::Exec { command, .. } => Some(Self::Exec(command.clone())),
            ChannelMsg::RequestSubsystem { name, .. } => Some(Self::Subsystem(name.clone())),
            _ => None,
        }
    }
}

/// What runs for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// The shell that somebody gets who logs in.
    Shell,
    /// A line in a shell.
    Command(Vec<u8>),
    /// Copying of files.
    Sftp,
    /// A seat at the agent's terminal.
    Seat {
        /// They only look on.
        read_only: bool,
    },
    /// Nothing, and why.
    Refused(String),
}

/// What somebody with these rights gets.
pub(super) fn service(request: Request, rights: Rights) -> Service {
    let seat = |read_only: bool| match (rights.has(Right::Observe), rights.has(Right::Drive)) {
        (true, drives) => Service::Seat { read_only: read_only || !drives },
        (false, _) => Service::Refused("you may not see this agent's terminal".to_owned()),
    };
    match request {
        Request::Shell if !rights.has(Right::Shell) => seat(false),
        Request::Shell => Service::Shell,
        Request::Exec(line) => match attach(&line) {
            Some(read_only) => seat(read_only),
            None if rights.has(Right::Shell) => Service::Command(line),
            None => Service::Refused("you may not run commands beside this agent".to_owned()),
        },
        Request::Subsystem(name) if name != "sftp" => {
            Service::Refused(format!("there is no subsystem {name:?} here, only sftp"))
        }
        Request::Subsystem(_) if rights.has(Right::Shell) => Service::Sftp,
        Request::Subsystem(_) => Service::Refused("you may not copy files of this agent".to_owned()),
    }
}

/// Whether the line asks for a seat, and only to look on.
fn attach(line: &[u8]) -> Option<bool> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    match words[..] {
        [ATTACH] => Some(false),
        [ATTACH, READ_ONLY] => Some(true),
        _ => None,
    }
}

/// Whether a variable of the person's own environment is passed on.
pub(super) fn passes(name: &str, value: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let known = PASSED.contains(&name) || PASSED_FAMILIES.iter().any(|family| name.starts_with(family));
    plain && known && value.len() <= LONGEST_VALUE && !value.contains('\0')
}

/// The size that a terminal gets.
pub(super) fn size(columns: u32, rows: u32) -> Size {
    let within = |asked: u32, usual: u16, largest: u16| match u16::try_from(asked) {
        Ok(0) => usual,
        Ok(asked) => asked.min(largest),
        Err(_) => largest,
    };
    Size { columns: within(columns, USUAL.columns, LARGEST.columns), rows: within(rows, USUAL.rows, LARGEST.rows) }
}

/// What the terminal is taken for, and what its owner is to be told of that. `known` says whether the host has a
/// description at this place below its directories of terminals.
pub(super) fn term(asked: &str, known: impl Fn(&str) -> bool) -> (String, Option<String>) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    let sound = !asked.starts_with('.') && asked.len() <= LONGEST_TERM && asked.bytes().all(plain);
    let found = asked.chars().next().filter(|_| sound).is_some_and(|first| known(&format!("{first}/{asked}")));
    if found && asked != "dumb" {
        return (asked.to_owned(), None);
    }
    let words = format!("this host does not know the terminal {asked:?}; it is taken for {KNOWN_TERM}");
    (KNOWN_TERM.to_owned(), (!asked.is_empty()).then_some(words))
}

#[cfg(test)]
mod tests {
    use sculpt_pairing::Profile;

    use super::*;

    #[test]
    fn what_runs_follows_from_the_rights() {
        let seat = |read_only| Some(Service::Seat { read_only });
        let exec = |line: &str| Request::Exec(line.into());
        let [observe, attach, all] = [Profile::Observe, Profile::Attach, Profile::Workspace].map(Profile::rights);
        let drive: Rights = [Right::Drive].into_iter().collect();
        let table = [
            (Request::Shell, observe, seat(true)),
            (Request::Shell, attach, seat(false)),
            (Request::Shell, all, Some(Service::Shell)),
            (Request::Shell, drive, None),
            (exec("sculpt-attach"), observe, seat(true)),
            (exec("sculpt-attach"), attach, seat(false)),
            (exec(" sculpt-attach  --read-only "), attach, seat(true)),
            (exec("sculpt-attach --read-only"), all, seat(true)),
            (exec("sculpt-attach; id"), attach, None),
            (exec("sculpt-attach; id"), all, Some(Service::Command(b"sculpt-attach; id".to_vec()))),
            (exec("id"), attach, None),
            (exec("id"), Rights::NONE, None),
            (Request::Exec(vec![0xff]), all, Some(Service::Command(vec![0xff]))),
            (Request::Subsystem("sftp".into()), all, Some(Service::Sftp)),
            (Request::Subsystem("sftp".into()), attach, None),
            (Request::Subsystem("netconf".into()), all, None),
        ];
        for (request, rights, expected) in table {
            match (service(request.clone(), rights), expected) {
                (Service::Refused(_), None) => {}
                (got, Some(expected)) if got == expected => {}
                (got, expected) => panic!("{request:?} with {rights:?}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn little_of_an_environment_passes() {
        for name in ["LANG", "LC_ALL", "LC_CTYPE", "TERM", "COLORTERM", "GIT_PROTOCOL", "VSCODE_IPC_HOOK_CLI"] {
            assert!(passes(name, "x"), "{name}");
        }
        for name in
            ["PATH", "LD_PRELOAD", "BASH_ENV", "GIT_SSH_COMMAND", "SCULPT_ATTEMPT", "HOME", "LC_A=B", "", "lang"]
        {
            assert!(!passes(name, "x"), "{name}");
        }
        assert!(!passes("LANG", "a\0b") && !passes("LANG", &"x".repeat(LONGEST_VALUE + 1)));
    }

    #[test]
    fn a_size_is_one_that_a_terminal_can_have() {
        for ((columns, rows), expected) in [
            ((0, 0), (80, 24)),
            ((0, 50), (80, 50)),
            ((132, 43), (132, 43)),
            ((1, 1), (1, 1)),
            ((10_000, 10_000), (1000, 500)),
            ((u32::MAX, 70_000), (1000, 500)),
        ] {
            let size = size(columns, rows);
            assert_eq!((size.columns, size.rows), expected, "{columns}x{rows}");
        }
    }

    #[test]
    fn an_unknown_terminal_is_taken_for_a_known_one() {
        let known = |path: &str| ["v/vt100", "d/dumb", "x/xterm-256color"].contains(&path);
        assert_eq!(term("vt100", known), ("vt100".into(), None));
        assert_eq!(term("", known), (KNOWN_TERM.into(), None));
        for asked in ["dumb", "from-tomorrow", "../../etc", "v/../vt100", &"x".repeat(65)] {
            let (taken, told) = term(asked, known);
            assert!(taken == KNOWN_TERM && told.unwrap().contains(KNOWN_TERM), "{asked}");
        }
    }
}

//! PURE: how a connection of ssh has ended, from its exit code and from what it said.

use super::tunnel::REACH;
use crate::exit::Exit;

/// Exit code of a seat whose terminal has closed.
const CLOSED: i32 = 10;

/// That of a seat whose terminal was lost, and is made anew.
const LOST: i32 = 75;

/// Those of the other side for what is not allowed, and for what cannot be had.
const NOT_ALLOWED: i32 = 77;
const NOT_HERE: i32 = 69;

/// What an executor says to who sits beside an agent that ends.
const OVER: &str = "the agent has ended";

/// Those of SSH's own numbers by which the other side says that it knows who comes and does not let them in (no more
/// authentication methods available), and that too many are there (too many connections).
const TURNED_AWAY: &str = "14";
const CROWDED: &str = "12";

/// ssh's own, for everything that goes wrong with the connection.
const SSH: i32 = 255;

/// What ssh says when no certificate helps.
const UNPROVED: [&str; 4] =
    ["Permission denied (", "Host key verification failed", "no matching host key type", "Certificate invalid"];

/// What says nothing that is not known.
const EMPTY: [&str; 6] = [
    "Connection closed by UNKNOWN",
    "Connection closed by remote host",
    "Connection to ",
    "kex_exchange_identification:",
    "client_loop: send disconnect",
    "Disconnected from ",
];

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The person has left.
    Left,
    /// The other side is over: the agent's terminal has closed.
    Closed,
    /// One side does not take the other for what it should be, or does not let it.
    Refused(Exit, String),
    /// It broke; another one may do.
    Broken(String),
}

/// How it ended: with which exit code, if it was not killed, and with what words.
pub(super) fn ending(code: Option<i32>, said: &[String]) -> Ending {
    match code {
        Some(0) => Ending::Left,
        Some(CLOSED) => Ending::Closed,
        Some(NOT_ALLOWED) => Ending::Refused(Exit::NotAllowed, reason(said)),
        Some(NOT_HERE) => Ending::Refused(Exit::Conflict, reason(said)),
        Some(SSH) if is_told(said, TURNED_AWAY) => Ending::Refused(Exit::NotAllowed, reason(said)),
        Some(SSH) if is_told(said, CROWDED) => Ending::Refused(Exit::Conflict, reason(said)),
        Some(SSH) => match said.iter().find(|line| UNPROVED.iter().any(|words| line.contains(words))) {
            Some(line) => Ending::Refused(Exit::NotAllowed, line.clone()),
            None => match reason(said) {
                why if why.starts_with(OVER) => Ending::Closed,
                why => Ending::Broken(why),
            },
        },
        Some(LOST) => Ending::Broken(reason(said)),
        Some(code) => Ending::Broken(format!("its terminal ended with code {code}")),
        None => Ending::Broken("ssh was killed".to_owned()),
    }
}

/// Whether the other side gave this number of SSH's for why it ends the connection.
fn is_told(said: &[String], number: &str) -> bool {
    let from = |line: &String| Some(line.strip_prefix("Received disconnect from ")?.split_once(": ")?.0.to_owned());
    said.iter().filter_map(from).any(|from| from.rsplit_once(':').is_some_and(|(_, told)| told == number))
}

/// The line that says most: one of ours, then what the other side gave for a reason, then ssh's last.
fn reason(said: &[String]) -> String {
    // What a tunnel of ours attempts is nothing that the person has asked for.
    let attempt = format!("cannot {REACH}: ");
    let ours = said.iter().find_map(|line| line.strip_prefix("sculpt: "));
    let ours = ours.map(|words| words.strip_prefix(&*attempt).unwrap_or(words));
    let theirs = || {
        let given = said.iter().find(|line| line.starts_with("Received disconnect from "))?;
        // "from HOST port 22:11: words"
        given.splitn(3, ": ").last().map(|words| words.split_once(": ").map_or(words, |(_, words)| words))
    };
    let told = |line: &&String| !line.is_empty() && !EMPTY.iter().any(|words| line.starts_with(words));
    let last = || said.iter().rev().find(told).map(String::as_str);
    ours.or_else(theirs).or_else(last).unwrap_or("the connection was closed").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_learns_how_it_ended() {
        let refused = |exit, why: &str| Ending::Refused(exit, why.to_owned());
        let broken = |why: &str| Ending::Broken(why.to_owned());
        let table: [(Option<i32>, &[&str], Ending); 16] = [
            (Some(0), &[], Ending::Left),
            (Some(0), &["sculpt: this host does not know the terminal \"x\""], Ending::Left),
            (Some(10), &["sculpt: the agent's terminal has closed"], Ending::Closed),
            (Some(75), &["sculpt: its terminal was lost"], broken("its terminal was lost")),
            (Some(77), &["sculpt: you may not see this"], refused(Exit::NotAllowed, "you may not see this")),
            (Some(69), &["sculpt: no terminal"], refused(Exit::Conflict, "no terminal")),
            (
                Some(255),
                &["a@b: Permission denied (publickey)."],
                refused(Exit::NotAllowed, "a@b: Permission denied (publickey)."),
            ),
            (
                Some(255),
                &[
                    "sculpt: cannot reach the task's executor: the controller is away",
                    "Connection closed by UNKNOWN port 65535",
                ],
                broken("the controller is away"),
            ),
            (
                Some(255),
                &[
                    "Received disconnect from UNKNOWN port 65535:11: this executor ends; the agent goes on",
                    "Disconnected from UNKNOWN port 65535",
                ],
                broken("this executor ends; the agent goes on"),
            ),
            (
                Some(255),
                &["Timeout, server sculpt.17 not responding.", "Connection to sculpt.17 closed."],
                broken("Timeout, server sculpt.17 not responding"),
            ),
            (Some(255), &["client_loop: send disconnect: Broken pipe"], broken("the connection was closed")),
            (
                Some(255),
                &["Received disconnect from UNKNOWN port 65535:11: the agent has ended; `sculpt logs` shows it"],
                Ending::Closed,
            ),
            (
                Some(255),
                &["Received disconnect from 10.0.0.1 port 7422:14: the pairing was taken back"],
                refused(Exit::NotAllowed, "the pairing was taken back"),
            ),
            (
                Some(255),
                &[
                    "Received disconnect from UNKNOWN port 65535:12: you have 64 connections to this executor already; \
                     close one of them",
                    "Disconnected from UNKNOWN port 65535",
                ],
                refused(Exit::Conflict, "you have 64 connections to this executor already; close one of them"),
            ),
            (Some(1), &[], broken("its terminal ended with code 1")),
            (None, &[], broken("ssh was killed")),
        ];
        for (code, said, expected) in table {
            let said: Vec<String> = said.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(ending(code, &said), expected, "{code:?} {said:?}");
        }
    }
}

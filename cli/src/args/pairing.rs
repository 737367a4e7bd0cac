//! Sitting beside an agent.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use sculpt_proto::id::PairingId;

use crate::pairing::Via;

pub(super) const PAIR: &str = "What you type goes to the agent: Ctrl-C interrupts it. Ctrl-b d leaves it running; from within a tmux \
of your own it is Ctrl-b Ctrl-b d. Several people may sit there at once.\nWhen the connection breaks it is made again, until you press \
Ctrl-C or the agent has ended; what you type meanwhile goes nowhere.\nThe exit code is 0 when you have left, and when the agent has \
ended, however it did: `sculpt wait` tells how.";

pub(super) const SSH: &str = "The words of COMMAND are what they are; a line for a shell is one word of a shell. The exit code is the command's \
own, or 255 where the connection broke.\n\nExamples:\n  sculpt ssh \
17\n  sculpt ssh 17 -- git status\n  sculpt ssh 17 -- sh -c 'make && ls'";

pub(super) const CONFIG_SSH: &str = "Afterwards every program that goes by ssh reaches a task by its number:\n  \
ssh sculpt.17\n  scp sculpt.17:out.txt .\n  rsync -a sculpt.17:src/ src/\n  git clone sculpt.17:. copy\n\
VS Code and JetBrains take sculpt.17 for a host. The certificate is fetched when ssh begins; nothing of it stands in the file.";

pub(super) const CP: &str = "One of the two is TASK:PATH; PATH is taken literally, and from the workspace on unless it begins with a slash. It does not lead \
out of the workspace.\nDirectories are copied with all that is in them. The exit code is that of scp.\n\nExamples:\n  sculpt cp 17:report.html .\n  sculpt cp fixtures 17:tests/";

pub(super) const PORT_FORWARD: &str = "Examples:\n  sculpt port-forward 17 3000         http://127.0.0.1:3000 is the agent's port 3000;\n                                      \
where 3000 is taken here, another port leads there\n  \
sculpt port-forward 17 8080:3000    on port 8080 of this machine, or not at all\n  \
sculpt port-forward 17 0:3000       on a port that is free here";

#[derive(Args)]
pub(crate) struct PairArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Only look on: nothing that you type reaches the agent
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Print the ssh command and what another client needs, without connecting
    #[arg(long)]
    pub(crate) print: bool,
    /// Do not wait for an agent that has not started yet
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

#[derive(Args)]
pub(crate) struct WayArgs {
    /// Through the controller, or straight to the executor's port; the latter by itself where it can be reached
    #[arg(long = "via", value_name = "WAY", value_enum)]
    via: Option<Via>,
}

impl WayArgs {
    pub(crate) fn via(&self) -> Via {
        self.via.unwrap_or_default()
    }
}

#[derive(Args)]
pub(crate) struct SshArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Give the command a terminal
    #[arg(short = 't')]
    pub(crate) terminal: bool,
    #[command(flatten)]
    pub(crate) way: WayArgs,
    /// What to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct ConfigSshArgs {
    /// Print what would be written
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take our lines out again
    #[arg(long)]
    pub(crate) remove: bool,
    /// Another file than ~/.ssh/config
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Fetch the certificate for this host, as ssh asks for it
    #[arg(long = "for", value_name = "HOST", hide = true, conflicts_with_all = ["dry_run", "remove", "file"])]
    pub(crate) host: Option<String>,
}

#[derive(Args)]
pub(crate) struct TunnelArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK", required_unless_present = "pairing")]
    pub(crate) task: Option<String>,
    /// What lets you sit there, by its uuid
    #[arg(long, value_name = "UUID", hide = true, conflicts_with = "task")]
    pub(crate) pairing: Option<PairingId>,
}

#[derive(Args)]
pub(crate) struct PortForwardArgs {
    /// Number, uuid, or unique prefix of the uuid
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Port of the agent's side; with one of this machine before it as HERE:THERE
    #[arg(value_name = "PORT", required = true, value_parser = Forward::parse)]
    pub(crate) ports: Vec<Forward>,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

/// A port of this machine that leads to one of the agent's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// 0: one that is free. None: the same as there, if that is free.
    pub(crate) here: Option<u16>,
    pub(crate) there: u16,
}

impl Forward {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "write it as 3000, 8080:3000 or 0:3000".to_owned();
        let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let forward = match text.split_once(':') {
            Some((here, there)) => Self { here: Some(port(here)?), there: port(there)? },
            None => Self { here: None, there: port(text)? },
        };
        if forward.there == 0 { Err(wrong()) } else { Ok(forward) }
    }
}

#[derive(Args)]
pub(crate) struct CpArgs {
    /// What to copy
    #[arg(value_name = "SRC")]
    pub(crate) from: OsString,
    /// Where to
    #[arg(value_name = "DST")]
    pub(crate) to: OsString,
    #[command(flatten)]
    pub(crate) way: WayArgs,
}

#[cfg(test)]
mod tests {
    use super::Forward;

    #[test]
    fn a_forward_is_one_port_or_two() {
        for (text, forward) in [
            ("3000", Some((None, 3000))),
            ("8080:3000", Some((Some(8080), 3000))),
            ("0:3000", Some((Some(0), 3000))),
            ("0", None),
            ("3000:0", None),
            ("3000:", None),
            ("65536", None),
            ("a:1", None),
            ("1:2:3", None),
        ] {
            let parsed = Forward::parse(text).ok().map(|forward| (forward.here, forward.there));
            assert_eq!(parsed, forward, "{text}");
        }
    }
}

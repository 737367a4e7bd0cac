//! The view of an attempt: one tmux server on a socket of its own, whose pane shows the shim's terminal. Losing it loses nothing.

use std::{collections::BTreeMap, io, path::PathBuf};

use crate::{stage::Identity, text::ByteText};

/// What an attempt's tmux server is made of.
#[derive(Clone, Debug)]
pub struct View {
    /// The server's socket, in a directory of the attempt's account.
    pub socket: PathBuf,
    /// The shim's view socket.
    pub view_socket: PathBuf,
    /// The executor's own binary; under another account it must be executable for that account.
    pub program: PathBuf,
    /// Where shells that people open in it begin.
    pub cwd: PathBuf,
    /// The whole environment of these shells; TERM is set by tmux.
    pub env: BTreeMap<ByteText, ByteText>,
    /// Absent: the executor's account.
    pub identity: Option<Identity>,
    /// `cgroup.procs` files of the view's leaf.
    pub cgroups: Vec<PathBuf>,
}

/// A tmux command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run at all.
    #[error("cannot run tmux to {attempt}: {source}; is tmux installed?")]
    Run {
        /// What it was to do.
        attempt: &'static str,
        /// Why it did not run.
        source: io::Error,
    },
    /// It ran and refused.
    #[error("tmux cannot {attempt}: {text}")]
    Refused {
        /// What it was to do.
        attempt: &'static str,
        /// What it said.
        text: String,
    },
    /// It did not answer.
    #[error("tmux did not {attempt} within {seconds} s; its server may be stopped")]
    Silent {
        /// What it was to do.
        attempt: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Whether a tmux server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers and has the session.
    Present,
    /// There is none.
    Absent,
    /// It cannot be said now.
    Unknown,
}

impl View {
    /// Starts the server and its session unless they are there; true when it was started.
    pub async fn ensure(&self) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Whether the server is there.
    pub async fn alive(&self) -> Liveness {
        unimplemented!()
    }

    /// How many people are attached.
    pub async fn attached_clients(&self) -> Result<usize, Error> {
        unimplemented!()
    }

    /// Ends the server with everything in it. No server is no error.
    pub async fn kill(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

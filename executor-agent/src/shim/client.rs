//! The executor's side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::wire::{Progress, Status};

/// A shim that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("cannot reach the shim at {socket}: {source}")]
    Unreachable {
        /// Its control socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not answer.
    #[error("the shim at {socket} does not answer")]
    Silent {
        /// Its control socket.
        socket: PathBuf,
    },
    /// It answered with something else.
    #[error("the shim at {socket} gave an answer that makes no sense: {problem}")]
    Nonsense {
        /// Its control socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It said no.
    #[error("the shim refused: {0}")]
    Refused(String),
}

/// Speaks to one shim; every call is a connection of its own, so that clones and dropped calls disturb nothing.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the shim with this control socket; nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// How it stands.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let _ = &self.socket;
        unimplemented!()
    }

    /// News from now on, beginning with how it stands.
    pub async fn subscribe(&self) -> Result<Subscription, ClientError> {
        unimplemented!()
    }

    /// Types `bytes` into the terminal; returns when the terminal has taken all of them.
    pub async fn input(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let _ = bytes;
        unimplemented!()
    }

    /// Gives the terminal a size in cells.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), ClientError> {
        let _ = (columns, rows);
        unimplemented!()
    }

    /// Ends the agent: interrupt, terminate at half of `grace`, kill of the whole tree after it. Returns at once.
    pub async fn stop(&self, grace: Duration) -> Result<(), ClientError> {
        let _ = grace;
        unimplemented!()
    }

    /// Freezes the agent's tree.
    pub async fn hold(&self) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Lets a frozen tree go on.
    pub async fn resume(&self) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// The end has been taken note of: the shim goes away once it has ended and nobody is attached.
    pub async fn release(&self) -> Result<(), ClientError> {
        unimplemented!()
    }
}

/// A stream of news of one shim.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The next change; none when the shim has gone.
    pub async fn next(&mut self) -> Result<Option<Progress>, ClientError> {
        unimplemented!()
    }
}

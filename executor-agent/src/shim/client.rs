//! The executor's side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use uuid::Uuid;

use super::wire::{self, Progress, Request, Response, Status};
use crate::text::ByteText;

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

/// How long a shim may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a terminal may take to read what is typed.
const TYPING: Duration = Duration::from_secs(15);

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
        match self.ask(&Request::Status, PATIENCE).await? {
            Response::Status(status) => Ok(*status),
            other => Err(self.nonsense(&other)),
        }
    }

    /// News from now on, beginning with how it stands.
    pub async fn subscribe(&self) -> Result<Subscription, ClientError> {
        let stream = timeout(PATIENCE, self.send(&Request::Subscribe)).await.map_err(|_| self.silent())??;
        Ok(Subscription { client: self.clone(), stream, received: Vec::new() })
    }

    /// Gives it a message to the agent, to be typed when people let it, and handed in with `enter`. Returns at once; what
    /// becomes of it is news. The same `id` is typed once, however often it is given.
    pub async fn say(&self, id: Uuid, text: &str, enter: bool) -> Result<(), ClientError> {
        self.tell(&Request::Say { id, text: text.to_owned(), enter }, PATIENCE).await
    }

    /// Nobody is at the keyboard any more: messages need not wait for a rest.
    pub async fn hand_back(&self) -> Result<(), ClientError> {
        self.tell(&Request::HandBack, PATIENCE).await
    }

    /// Types `bytes` into the terminal, whoever types; returns when the terminal has taken all of them.
    pub async fn input(&self, bytes: &[u8]) -> Result<(), ClientError> {
        self.tell(&Request::Input { bytes: ByteText(bytes.to_vec()) }, TYPING).await
    }

    /// Gives the terminal a size in cells.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), ClientError> {
        self.tell(&Request::Resize { columns, rows }, PATIENCE).await
    }

    /// Ends the agent: interrupt, terminate at half of `grace`, kill of the whole tree after it. Returns at once.
    pub async fn stop(&self, grace: Duration) -> Result<(), ClientError> {
        self.tell(&Request::Stop { grace }, PATIENCE).await
    }

    /// Freezes the agent's tree.
    pub async fn hold(&self) -> Result<(), ClientError> {
        self.tell(&Request::Hold, PATIENCE).await
    }

    /// Lets a frozen tree go on.
    pub async fn resume(&self) -> Result<(), ClientError> {
        self.tell(&Request::Resume, PATIENCE).await
    }

    /// The controller is known to have heard of the executor at `confirmed`, by CLOCK_BOOTTIME. A lease that has run out
    /// is not renewed by it.
    pub async fn lease(&self, confirmed: Duration) -> Result<(), ClientError> {
        self.tell(&Request::Lease { confirmed }, PATIENCE).await
    }

    /// The end has been taken note of: the shim goes away once it has ended and nobody is attached.
    pub async fn release(&self) -> Result<(), ClientError> {
        self.tell(&Request::Release, PATIENCE).await
    }

    async fn tell(&self, request: &Request, patience: Duration) -> Result<(), ClientError> {
        match self.ask(request, patience).await? {
            Response::Done => Ok(()),
            other => Err(self.nonsense(&other)),
        }
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<Response, ClientError> {
        let answer = async {
            let mut stream = self.send(request).await?;
            let mut received = Vec::new();
            let response = receive(&mut stream, &mut received).await.map_err(|source| self.lost(source))?;
            response.ok_or_else(|| self.lost(io::ErrorKind::UnexpectedEof.into()))
        };
        match timeout(patience, answer).await.map_err(|_| self.silent())?? {
            Response::Refused { why } => Err(ClientError::Refused(why)),
            response => Ok(response),
        }
    }

    async fn send(&self, request: &Request) -> Result<UnixStream, ClientError> {
        let message = wire::encode(request).map_err(|source| self.lost(source))?;
        let mut stream = UnixStream::connect(&self.socket).await.map_err(|source| self.lost(source))?;
        stream.write_all(&message).await.map_err(|source| self.lost(source))?;
        Ok(stream)
    }

    fn lost(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        if source.kind() == io::ErrorKind::InvalidData {
            return ClientError::Nonsense { socket, problem: source.to_string() };
        }
        ClientError::Unreachable { socket, source }
    }

    /// That it did not do in time what it should.
    pub(crate) fn silent(&self) -> ClientError {
        ClientError::Silent { socket: self.socket.clone() }
    }

    fn nonsense(&self, response: &Response) -> ClientError {
        ClientError::Nonsense { socket: self.socket.clone(), problem: format!("unexpected {response:?}") }
    }
}

/// A stream of news of one shim.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    stream: UnixStream,
    /// What has come of the next message.
    received: Vec<u8>,
}

impl Subscription {
    /// The next change; none when the shim has gone. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Option<Progress>, ClientError> {
        let received = receive(&mut self.stream, &mut self.received).await;
        match received.map_err(|source| self.client.lost(source))? {
            None => Ok(None),
            Some(Response::Progress(progress)) => Ok(Some(*progress)),
            Some(Response::Refused { why }) => Err(ClientError::Refused(why)),
            Some(other) => Err(self.client.nonsense(&other)),
        }
    }
}

/// The next message; what has come of it stands in `received`, so that it can be dropped and called again.
async fn receive(stream: &mut UnixStream, received: &mut Vec<u8>) -> io::Result<Option<Response>> {
    loop {
        if let Some(prefix) = received.first_chunk::<4>() {
            let whole = 4 + wire::length(*prefix)?;
            if received.len() >= whole {
                let response = serde_json::from_slice(&received[4..whole])?;
                received.drain(..whole);
                return Ok(Some(response));
            }
        }
        if stream.read_buf(received).await? == 0 {
            return if received.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

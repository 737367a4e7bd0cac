//! What is said on a shim's sockets.
//!
//! Control socket, both ways: length u32 big-endian, then JSON. An executor may be newer or older than the shim, so
//! fields are only ever added and unknown ones are passed over.
//!
//! View socket, to the shim: kind u8 (1 input, 2 size), length u32 big-endian, payload (a size is columns and rows as
//! u16 big-endian); the first message is a size. From the shim: the terminal's bytes.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{baton::Why, lease::Lease, record::ExitRecord};
use crate::{text::ByteText, tree::ProcessId};

/// Version of the control protocol.
pub(super) const VERSION: u32 = 3;
/// Largest message on the control socket in bytes.
pub(super) const MAX_MESSAGE: usize = 8 << 20;
/// Largest payload on the view socket in bytes.
pub(super) const MAX_INPUT: usize = 64 << 10;

/// Where the agent is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It runs.
    Running,
    /// Its tree is frozen.
    Held,
    /// Its end was asked for, or its main process has ended and the rest is being ended.
    Ending,
    /// The exit record is written.
    Ended(ExitRecord),
}

/// A shim's answer about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the control protocol that the shim speaks.
    pub version: u32,
    /// Its attempt.
    pub attempt: Uuid,
    /// The shim itself.
    pub shim: ProcessId,
    /// The agent's main process, once it was started.
    pub agent: Option<ProcessId>,
    /// Where the agent is in its life.
    pub phase: Phase,
    /// Length of the spool in bytes.
    pub log_end: u64,
    /// How many views are connected.
    pub views: u32,
    /// Why output cannot be written to disk now.
    pub blocked: Option<String>,
    /// How long the agent may go on unless the controller is heard of.
    #[serde(default)]
    pub lease: Option<Lease>,
}

/// News of a subscription; several changes may come as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Length of the spool in bytes.
    pub log_end: u64,
    /// Where the agent is in its life.
    pub phase: Phase,
    /// The messages that wait, and the last ones that were typed.
    #[serde(default)]
    pub said: Vec<Said>,
    /// How many milestones were said within the attempt.
    #[serde(default)]
    pub milestones: u64,
}

/// A message to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Which one.
    pub id: Uuid,
    /// What has become of it.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Delivery {
    /// It waits for its turn, or for those before it.
    Queued {
        /// Absent: for those before it alone.
        why: Option<Why>,
    },
    /// It is being typed.
    Typing,
    /// The terminal has taken all of it.
    Typed,
    /// The terminal has taken an unknown part of it.
    Uncertain,
}

impl Delivery {
    /// Whether it has yet to be typed.
    pub fn waits(self) -> bool {
        match self {
            Self::Queued { .. } | Self::Typing => true,
            Self::Typed | Self::Uncertain => false,
        }
    }
}

/// What an executor asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Status,
    Subscribe,
    Input {
        bytes: ByteText,
    },
    /// Type this when people let it; the same id is typed once.
    Say {
        id: Uuid,
        text: String,
        enter: bool,
    },
    /// Nobody is at the keyboard any more.
    HandBack,
    Resize {
        columns: u16,
        rows: u16,
    },
    Stop {
        grace: Duration,
    },
    Hold,
    Resume,
    /// CLOCK_BOOTTIME at the sending of the newest message that the controller is known to have got.
    Lease {
        confirmed: Duration,
    },
    Release,
}

/// What a shim answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Response {
    Status(Box<Status>),
    Progress(Box<Progress>),
    Done,
    Refused { why: String },
}

/// `message` as it is sent.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_MESSAGE);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// The length that a message announces.
pub(super) fn length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    Ok(length)
}

/// Sends `message`.
pub(super) fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// The next message; none at the end of the connection.
pub(super) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut json = vec![0; length(prefix)?];
    from.read_exact(&mut json)?;
    Ok(Some(serde_json::from_slice(&json)?))
}

/// What a view tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ViewMessage {
    Input(Vec<u8>),
    Size { columns: u16, rows: u16 },
}

/// Sends a view's message.
pub(super) fn send_view(mut to: impl Write, message: &ViewMessage) -> io::Result<()> {
    let (kind, payload) = match message {
        ViewMessage::Input(bytes) => (1, bytes.clone()),
        ViewMessage::Size { columns, rows } => (2, [columns.to_be_bytes(), rows.to_be_bytes()].concat()),
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    to.write_all(&[&[kind][..], &length.to_be_bytes(), &payload].concat())
}

/// The next message of a view; none at the end of the connection.
pub(super) fn receive_view(mut from: impl Read) -> io::Result<Option<ViewMessage>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    if length > MAX_INPUT {
        return Err(invalid("the view's message is too long"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    match (head[0], payload.as_slice()) {
        (1, _) => Ok(Some(ViewMessage::Input(payload))),
        (2, &[c1, c2, r1, r2]) => {
            Ok(Some(ViewMessage::Size { columns: u16::from_be_bytes([c1, c2]), rows: u16::from_be_bytes([r1, r2]) }))
        }
        _ => Err(invalid("the view's message makes no sense")),
    }
}

//! The recording of an attempt's output on disk: framed, append-only, checked.
//!
//! A spool is a directory of segments named by the offset of their first byte. What stands in it was written before
//! anyone saw the bytes and reaches the disk within 200 ms.

mod extent;
mod flush;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod reader;
mod recover;
mod writer;

use std::{io, path::PathBuf};

pub use extent::{Extent, extent};
pub use reader::{Chunk, Reader};
pub use recover::{Recovered, recover};
use serde::{Deserialize, Serialize};
pub use writer::{OnBlocked, Options, Reserve, Writer};

use crate::damage;
pub use crate::pty::Size;

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The agent's terminal.
    Terminal,
    /// Standard output, without a terminal.
    Stdout,
    /// Standard error, without a terminal.
    Stderr,
}

/// Bytes that one stream wrote at one time, or the part of them that a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where they came from.
    pub stream: Stream,
    /// How many.
    pub length: u32,
    /// Milliseconds since the agent's start.
    pub time_ms: u64,
    /// What the terminal's size had become when the first of them was written, if it had changed.
    pub size: Option<Size>,
}

/// A spool that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What stands there is not what was written.
    #[error("{path} is damaged at byte {position} of the file: {problem}")]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// Bytes are missing.
    #[error("{directory} has no bytes at offset {offset}")]
    Missing {
        /// The spool.
        directory: PathBuf,
        /// The offset that no segment holds.
        offset: u64,
    },
}

impl Error {
    /// Whether the spool may be read later; if not, it is damaged.
    pub fn passes(&self) -> bool {
        match self {
            Self::Io { source, .. } => damage::passes(source),
            Self::Damaged { .. } | Self::Missing { .. } => false,
        }
    }

    /// Whether what was written is not there any more. An error of the system alone does not prove it.
    pub fn proves_damage(&self) -> bool {
        match self {
            Self::Io { .. } => false,
            Self::Damaged { .. } | Self::Missing { .. } => true,
        }
    }
}

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

/// What one frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes of a stream.
    Bytes(Stream),
    /// The terminal has this size from here on; no bytes.
    Resize {
        /// Width in cells.
        columns: u16,
        /// Height in cells.
        rows: u16,
    },
}

/// One frame, or the part of it that a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub content: Content,
    /// How many bytes of it.
    pub length: u32,
    /// Milliseconds since the agent's start.
    pub time_ms: u64,
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

//! Reads a spool, also while it is written.

use std::path::Path;

use super::{Error, Frame};

/// Consecutive bytes of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// What they are made of: lengths add up to that of `data`; the first may be the rest of a frame, the last its
    /// beginning. Resizes stand between them with length 0.
    pub frames: Vec<Frame>,
}

/// A position in a spool.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// A reader whose next byte is that at `offset`, which may be the end.
    pub fn open(directory: &Path, offset: u64) -> Result<Self, Error> {
        let _ = (directory, offset);
        unimplemented!()
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> u64 {
        unimplemented!()
    }

    /// Up to `max_bytes` bytes (at least 1); none when everything that is written has been read. Calling it again
    /// later, when the shim has told of growth, goes on from there. Blocks on the disk.
    pub fn read(&mut self, max_bytes: usize) -> Result<Option<Chunk>, Error> {
        let _ = max_bytes;
        unimplemented!()
    }
}

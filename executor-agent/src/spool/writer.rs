//! Appends to a spool.

use std::path::Path;

use super::{Error, Stream};

/// Settings of a writer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
}

/// The only writer of a spool.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Makes an empty spool in `directory`, which must not hold one.
    pub fn create(directory: &Path, options: Options) -> Result<Self, Error> {
        let _ = (directory, options);
        unimplemented!()
    }

    /// Adds `data`; blocks for as long as the disk refuses it.
    pub fn append(&mut self, stream: Stream, time_ms: u64, data: &[u8]) {
        let _ = (stream, time_ms, data);
    }
}

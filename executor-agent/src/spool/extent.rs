//! How far a spool can be read in order.

use std::path::Path;

use super::{Error, Reader};

/// What is read at once.
const PIECE: usize = 1 << 20;

/// Where what can be read of a spool ends.
#[derive(Debug)]
pub struct Extent {
    /// Offset after the last byte that can be read in order, or where the reading began.
    pub end: u64,
    /// What stands behind it, if that is not simply the end.
    pub damage: Option<Error>,
}

/// Reads the spool in `directory` from `from` on, which may be beyond its end, and checks all of it. Only when nobody
/// writes it any more. What is not damaged but cannot be read now is an error.
pub fn extent(directory: &Path, from: u64) -> Result<Extent, Error> {
    let mut end = from;
    let read = Reader::open(directory, from).and_then(|mut reader| {
        while reader.read(PIECE)?.is_some() {
            end = reader.offset();
        }
        Ok(())
    });
    match read {
        Ok(()) => Ok(Extent { end, damage: None }),
        Err(error) if error.passes() => Err(error),
        Err(damage) => Ok(Extent { end, damage: Some(damage) }),
    }
}

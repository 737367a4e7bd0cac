//! A pack on its way in, kept in a file until it is verified.

use std::path::Path;

use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use super::{GitError, Repositories};
use crate::blobs::Blobs;

/// Length of a pack without objects: header and checksum.
const EMPTY_PACK: u64 = 32;

/// What a peer has sent so far. The file goes with this value.
#[derive(Debug)]
pub struct ReceivedPack {
    file: NamedTempFile,
    writer: tokio::io::BufWriter<tokio::fs::File>,
    length: u64,
    limit: u64,
    blobs: Blobs,
}

impl Repositories {
    /// A place for a pack that is about to be sent.
    pub async fn receive(&self) -> Result<ReceivedPack, GitError> {
        let blobs = self.inner.blobs.clone();
        blobs.has_room()?;
        let directory = &self.inner.settings.scratch;
        let file = tempfile::Builder::new().prefix("pack-").tempfile_in(directory);
        let file = file.map_err(GitError::files("make a file in", directory))?;
        let writer = file.reopen().map_err(GitError::files("open", file.path()))?;
        let writer = tokio::io::BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(writer));
        Ok(ReceivedPack { file, writer, length: 0, limit: self.inner.settings.max_pack, blobs })
    }
}

impl ReceivedPack {
    /// Adds what came next.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), GitError> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > self.limit {
            return Err(GitError::TooLarge { limit: self.limit });
        }
        // A pack may be larger than the reserve.
        self.blobs.has_room()?;
        self.writer.write_all(bytes).await.map_err(GitError::files("write", self.file.path()))
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it can hold no object: nothing was sent, or an empty pack.
    pub(super) fn is_empty(&self) -> bool {
        self.length <= EMPTY_PACK
    }

    /// The file with everything in it.
    pub(super) async fn finish(&mut self) -> Result<&Path, GitError> {
        self.writer.flush().await.map_err(GitError::files("write", self.file.path()))?;
        Ok(self.file.path())
    }
}

//! Immutable blobs: packs and sealed logs.
//!
//! A blob is written and synced before a row names it, is never changed, and is deleted only when no row names it any
//! more (`background::dead_blobs`). A directory by default; anything else that `object_store` speaks fits behind it.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart, local::LocalFileSystem};
use sculpt_proto::id::AttemptId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::room::Room;

/// Size of one part of a large upload, in bytes; the smallest that S3 takes.
const PART: usize = 5 << 20;

/// Parts of one upload that may be under way at once.
const PARTS_UNDER_WAY: usize = 4;

/// The name of a blob. Rows hold it as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobKey(object_store::path::Path);

impl BlobKey {
    /// A pack of git objects.
    pub fn pack(id: Uuid) -> Self {
        Self(format!("packs/{id}.pack").into())
    }

    /// The sealed part of an attempt's log that begins at `start`, in bytes.
    pub fn log(attempt: AttemptId, start: u64) -> Self {
        Self(format!("logs/{attempt}/{start:020}.zst").into())
    }

    /// As it stands in a row.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BlobKey {
    type Err = BlobError;

    /// Reads what a row holds.
    fn from_str(text: &str) -> Result<Self, BlobError> {
        match object_store::path::Path::parse(text) {
            Ok(path) if !path.as_ref().is_empty() => Ok(Self(path)),
            Ok(_) | Err(_) => Err(BlobError::Name(text.to_owned())),
        }
    }
}

/// Why a blob could not be stored, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The rest of the disk is for what cannot wait.
    #[error("{0}; make room on it, and send it again")]
    Full(String),
    /// Not the name of a blob.
    #[error("{0:?} is not the name of a blob")]
    Name(String),
    /// A row names it, but the store does not have it.
    #[error("the blob {0} is missing from the blob store; restore it from a backup of the same time as the database")]
    Missing(BlobKey),
    /// The blob store did not do it.
    #[error("{action} the blob {key}")]
    Store {
        /// "write", "read" or "delete".
        action: &'static str,
        /// Which.
        key: BlobKey,
        /// What it said.
        source: object_store::Error,
    },
    /// The directory of the store cannot be used.
    #[error("use {} as the blob store", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that is copied from or to cannot be used.
    #[error("copy the blob {key} from or to {}", file.display())]
    File {
        /// Which blob.
        key: BlobKey,
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The blob store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    room: Room,
}

impl Blobs {
    /// Blobs as files below `directory`, which is made when it is missing.
    pub fn at_directory(directory: &Path) -> Result<Self, BlobError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| BlobError::Directory {
            directory: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| failed(error.into()))?;
        Ok(Self::over(Arc::new(store.with_fsync(true))))
    }

    /// Blobs in any object store whose writes are durable when they return.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, room: Room::default() }
    }

    /// The same, on a disk that may be full.
    pub fn within(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Fails while nothing may be stored that can wait: to be asked before work that ends with a new blob.
    pub fn has_room(&self) -> Result<(), BlobError> {
        self.room.full().map_or(Ok(()), |why| Err(BlobError::Full(why)))
    }

    /// Fails only when the disk is so full that even what makes room in the end must wait.
    pub fn has_reserve(&self) -> Result<(), BlobError> {
        self.room.spent().map_or(Ok(()), |why| Err(BlobError::Full(why)))
    }

    /// Stores `bytes`, which take the place of more that then goes from the database; durable when it returns. The same key
    /// may be written again with the same bytes.
    pub async fn put(&self, key: &BlobKey, bytes: impl Into<Bytes>) -> Result<(), BlobError> {
        self.has_reserve()?;
        let done = self.store.put(&key.0, bytes.into().into()).await;
        done.map(drop).map_err(|source| failed("write", key, source))
    }

    /// Stores the contents of `file`; durable when it returns. Needs memory for a few parts, whatever the file's size.
    pub async fn put_file(&self, key: &BlobKey, file: &Path) -> Result<(), BlobError> {
        self.has_room()?;
        let unreadable = |source| BlobError::File { key: key.clone(), file: file.to_owned(), source };
        let mut input = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let upload = self.store.put_multipart(&key.0).await.map_err(|source| failed("write", key, source))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let copied: Result<(), BlobError> = async {
            loop {
                let mut piece = bytes::BytesMut::with_capacity(256 << 10);
                if input.read_buf(&mut piece).await.map_err(unreadable)? == 0 {
                    return Ok(());
                }
                upload.wait_for_capacity(PARTS_UNDER_WAY).await.map_err(|source| failed("write", key, source))?;
                upload.put(piece.freeze());
            }
        }
        .await;
        match copied {
            Ok(()) => upload.finish().await.map(drop).map_err(|source| failed("write", key, source)),
            Err(error) => {
                if let Err(left) = upload.abort().await {
                    tracing::warn!(%key, error = %left, "an aborted upload was not cleaned up");
                }
                Err(error)
            }
        }
    }

    /// All bytes of a blob. For what is known to be small.
    pub async fn get(&self, key: &BlobKey) -> Result<Bytes, BlobError> {
        let found = self.store.get(&key.0).await.map_err(|source| failed("read", key, source))?;
        found.bytes().await.map_err(|source| failed("read", key, source))
    }

    /// The bytes of a blob in pieces.
    pub async fn stream(&self, key: &BlobKey) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let found = self.store.get(&key.0).await.map_err(|source| failed("read", key, source))?;
        let key = key.clone();
        Ok(found.into_stream().map(move |piece| piece.map_err(|source| failed("read", &key, source))).boxed())
    }

    /// Writes a blob to `file`, which must not exist, and syncs it; returns its length in bytes.
    pub async fn get_file(&self, key: &BlobKey, file: &Path) -> Result<u64, BlobError> {
        let unwritable = |source| BlobError::File { key: key.clone(), file: file.to_owned(), source };
        let mut pieces = self.stream(key).await?;
        let mut output = tokio::fs::File::create_new(file).await.map_err(unwritable)?;
        let mut length = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            length += piece.len() as u64;
            output.write_all(&piece).await.map_err(unwritable)?;
        }
        output.sync_all().await.map_err(unwritable)?;
        Ok(length)
    }

    /// Deletes a blob; one that is gone already is as good.
    pub async fn delete(&self, key: &BlobKey) -> Result<(), BlobError> {
        match self.store.delete(&key.0).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("delete", key, source)),
        }
    }
}

fn failed(action: &'static str, key: &BlobKey, source: object_store::Error) -> BlobError {
    match source {
        object_store::Error::NotFound { .. } => BlobError::Missing(key.clone()),
        source => BlobError::Store { action, key: key.clone(), source },
    }
}

#[cfg(test)]
mod tests {
    use sculpt_space::{Level, Space};

    use super::*;
    use crate::room::Standing;

    #[tokio::test]
    async fn a_file_of_many_parts_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::at_directory(&directory.path().join("blobs")).unwrap();
        let bytes: Vec<u8> = (0..12_345_678_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = directory.path().join("in");
        std::fs::write(&file, &bytes).unwrap();
        let key = BlobKey::pack(Uuid::nil());
        blobs.put_file(&key, &file).await.unwrap();
        let copy = directory.path().join("out");
        assert_eq!(blobs.get_file(&key, &copy).await.unwrap(), bytes.len() as u64);
        assert!(std::fs::read(&copy).unwrap() == bytes);
        assert_eq!(blobs.get(&key.as_str().parse().unwrap()).await.unwrap().len(), bytes.len());
    }

    #[tokio::test]
    async fn what_is_deleted_is_missing_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::at_directory(directory.path()).unwrap();
        let key = BlobKey::log(AttemptId(Uuid::nil()), 7);
        blobs.put(&key, "text").await.unwrap();
        assert_eq!(blobs.get(&key).await.unwrap(), "text");
        blobs.delete(&key).await.unwrap();
        blobs.delete(&key).await.unwrap();
        assert!(matches!(blobs.get(&key).await, Err(BlobError::Missing(missing)) if missing == key));
    }

    #[tokio::test]
    async fn on_a_full_disk_only_what_makes_room_is_stored_and_everything_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::default();
        let blobs = Blobs::at_directory(&directory.path().join("blobs")).unwrap().within(room.clone());
        let pack = directory.path().join("pack");
        std::fs::write(&pack, "pack").unwrap();
        let (key, other) = (BlobKey::log(AttemptId(Uuid::nil()), 7), BlobKey::log(AttemptId(Uuid::nil()), 8));
        let full = |free| Standing { space: Space { used: 99, budget: 100 }, level: Level::Full, free };
        let refused = |error: Result<(), BlobError>| match error {
            Err(BlobError::Full(why)) => why.contains("(99 %)"),
            Ok(()) | Err(_) => false,
        };
        room.set(full(1 << 30));
        blobs.put(&key, "text").await.unwrap();
        assert!(refused(blobs.put_file(&other, &pack).await));
        room.set(full(1 << 20));
        assert!(refused(blobs.put(&other, "text").await));
        assert_eq!(blobs.get(&key).await.unwrap(), "text");
        blobs.delete(&key).await.unwrap();
        room.set(Standing::default());
        blobs.put_file(&other, &pack).await.unwrap();
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", "../secret", "a//b", "a/./b"] {
            assert!(name.parse::<BlobKey>().is_err(), "{name:?}");
        }
    }
}

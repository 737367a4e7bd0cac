//! What the log stream reads from: the recordings of attempts.

use std::{future::Future, path::Path, sync::Arc};

use sculpt_proto::id::AttemptId;
use tracing::warn;

use super::LogEnd;
use crate::{
    attempts::{Attempts, Break, Context, Handle},
    shim,
    spool::{self, Chunk, Reader},
};

/// All recordings that are here. The simulation has others.
pub trait Recordings: Send + Sync + 'static {
    /// One of them.
    type Recording: Recording;

    /// All of them.
    fn all(&self) -> Vec<Self::Recording>;

    /// That of one attempt.
    fn get(&self, attempt: AttemptId) -> Option<Self::Recording>;
}

/// What the agent of one attempt has written.
pub trait Recording: Send + Sync {
    /// A position in it.
    type Reader: Send;

    /// Of which attempt.
    fn attempt(&self) -> AttemptId;

    /// How far it goes and can be read.
    fn end(&self) -> LogEnd;

    /// Whether the controller has released it.
    fn released(&self) -> bool;

    /// How often a controller has taken it over.
    fn takeovers(&self) -> u64;

    /// The controller holds so much of it; none: some of it is under way.
    fn held(&self, bytes: Option<u64>);

    /// Reads up to `most` bytes from `start`; none when nothing more is written. A reader that stands elsewhere is opened
    /// anew.
    fn read(
        &self,
        reader: &mut Option<Self::Reader>,
        start: u64,
        most: usize,
    ) -> impl Future<Output = Result<Option<Chunk>, spool::Error>> + Send;

    /// It cannot be read now, and has not been for a while; it is tried again. Only a recording on a disk knows that.
    fn unread(&self, _context: &Context, _why: &spool::Error) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// It cannot be read beyond `at`, and why; none: there is nothing more.
    fn break_at(&self, context: &Context, at: u64, why: Option<spool::Error>) -> impl Future<Output = ()> + Send;
}

impl Recordings for Attempts {
    type Recording = Arc<Handle>;

    fn all(&self) -> Vec<Arc<Handle>> {
        self.all()
    }

    fn get(&self, attempt: AttemptId) -> Option<Arc<Handle>> {
        self.get(attempt)
    }
}

impl Recording for Arc<Handle> {
    type Reader = Reader;

    fn attempt(&self) -> AttemptId {
        self.id
    }

    fn end(&self) -> LogEnd {
        self.log_end()
    }

    fn released(&self) -> bool {
        Handle::released(self)
    }

    fn takeovers(&self) -> u64 {
        Handle::takeovers(self)
    }

    fn held(&self, bytes: Option<u64>) {
        self.log_held(bytes);
    }

    async fn read(&self, reader: &mut Option<Reader>, start: u64, most: usize) -> Result<Option<Chunk>, spool::Error> {
        let directory = self.dir.join(shim::files::SPOOL);
        // An attempt that was put aside stands elsewhere.
        let opened = reader.take().filter(|reader| reader.offset() == start && reader.directory() == directory);
        let work = tokio::task::spawn_blocking(move || {
            let read = read(&directory, opened, start, most);
            if matches!(read, Ok((_, None)) | Err(spool::Error::Missing { .. }))
                && let Some(attempt) = directory.parent()
                && let Err(source) = attempt.metadata()
            {
                // What is on a volume that is not there, or was moved a moment ago, is not missing.
                return Err(spool::Error::Io { attempt: "look for", path: attempt.to_owned(), source });
            }
            read
        });
        match work.await {
            Ok(result) => {
                let (read, chunk) = result?;
                *reader = Some(read);
                Ok(chunk)
            }
            // The runtime is ending.
            Err(_) => Ok(None),
        }
    }

    async fn unread(&self, context: &Context, why: &spool::Error) {
        let text = format!("the recording cannot be read on the executor, and is tried again and again: {why}");
        if let Err(error) = self.note(context, text).await {
            warn!(attempt = %self.id, %error, "could not note that the recording cannot be read");
        }
    }

    async fn break_at(&self, context: &Context, at: u64, why: Option<spool::Error>) {
        let why = match why {
            Some(error) => error.to_string(),
            None => format!("{} ends there", self.dir.join(shim::files::SPOOL).display()),
        };
        self.break_log(context, Break { at, why }).await;
    }
}

fn read(
    directory: &Path,
    opened: Option<Reader>,
    start: u64,
    most: usize,
) -> Result<(Reader, Option<Chunk>), spool::Error> {
    let mut reader = match opened {
        Some(reader) => reader,
        None => Reader::open(directory, start)?,
    };
    let chunk = reader.read(most)?;
    Ok((reader, chunk))
}

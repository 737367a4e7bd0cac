//! The log of an attempt, taken as slowly as it is looked at: the controller is not read ahead of us.

use sculpt_proto::v1::{LogChunk, LogEnd};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    failure::Failure,
    follow::{LogReader, Sink},
};

/// Chunks between the connection and who takes them.
const WAITING: usize = 2;

/// What an attempt has written so far. Dropped, it reads no more.
pub(crate) struct Recording {
    chunks: mpsc::Receiver<LogChunk>,
    reading: JoinSet<Result<LogEnd, Failure>>,
    end: Option<LogEnd>,
}

impl Recording {
    /// Begins to read; `reader` makes the reader that writes to this sink.
    pub(crate) fn open(reader: impl FnOnce(Sink) -> LogReader) -> Self {
        let (taker, chunks) = mpsc::channel(WAITING);
        let reader = reader(Sink::Chunks(taker));
        let mut reading = JoinSet::new();
        reading.spawn(async move { reader.pump().await.map(|(_, end)| end) });
        Self { chunks, reading, end: None }
    }

    /// The next chunk; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<LogChunk>, Failure> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        match self.reading.join_next().await {
            Some(Ok(end)) => self.end = Some(end?),
            // Nobody aborts it, and what it may panic with has been printed.
            Some(Err(_)) => return Err(Failure::quiet(crate::exit::Exit::Failed)),
            None => {}
        }
        Ok(None)
    }

    /// Where the log ended; none before all of it was taken.
    pub(crate) fn end(&self) -> Option<LogEnd> {
        self.end
    }
}

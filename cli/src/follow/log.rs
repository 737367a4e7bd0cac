//! The bytes of one attempt's log: in order, none lost, none doubled, whatever happens to the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sculpt_proto::v1::{LogChunk, LogEnd, ReadLogRequest, ReadLogResponse, read_log_response::Part};
use tonic::Streaming;

use super::Sink;
use crate::{
    client::{Backoff, Client, Outage},
    exit::Exit,
    failure::{Failure, is_transient},
};

/// How long a reader that does not follow waits for a controller that went away in the middle.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place in a log, and where its bytes go.
pub(crate) struct LogReader {
    pub(crate) client: Client,
    /// Uuid of the task.
    pub(crate) task: String,
    /// By which people know it.
    pub(crate) number: u64,
    pub(crate) attempt: u32,
    /// The next byte that is wanted.
    pub(crate) offset: u64,
    pub(crate) follow: bool,
    pub(crate) quiet: bool,
    pub(crate) sink: Sink,
    /// How far the log was written; for whoever waits for it.
    pub(crate) reached: Arc<AtomicU64>,
}

/// How one stream ended.
enum Ended {
    Done(LogEnd),
    Broken,
}

impl LogReader {
    /// Reads to the end: of what there is, or of the whole log when it follows. Gives the sink back.
    pub(crate) async fn pump(mut self) -> Result<(Sink, LogEnd), Failure> {
        let attempted = format!("read the log of attempt {} of task {}", self.attempt, self.number);
        let mut backoff = Backoff::new();
        let mut outage = Outage::default();
        let mut since: Option<Instant> = None;
        loop {
            let before = self.offset;
            let request = ReadLogRequest {
                task: self.task.clone(),
                attempt: self.attempt,
                from_offset: self.offset,
                follow: self.follow,
            };
            let opened = self.client.logs().read_log(request).await;
            let outcome = match opened {
                Ok(response) => {
                    outage.ended(self.quiet);
                    since = None;
                    self.drain(response.into_inner(), &attempted).await?
                }
                Err(status) if is_transient(&status) => Ended::Broken,
                Err(status) => return Err(self.client.refused(&attempted, &status)),
            };
            match outcome {
                Ended::Done(end) if end.complete || !self.follow => return Ok((self.sink, end)),
                Ended::Done(_) => {}
                Ended::Broken => {
                    outage.began(self.quiet);
                    let waited = since.get_or_insert_with(Instant::now).elapsed();
                    if !self.follow && waited > PATIENCE {
                        return Err(Failure::new(
                            Exit::OutOfReach,
                            &attempted,
                            "the connection broke and the controller did not come back",
                        ));
                    }
                }
            }
            if self.offset > before {
                backoff.reset();
            }
            backoff.pause().await;
        }
    }

    async fn drain(&mut self, mut stream: Streaming<ReadLogResponse>, attempted: &str) -> Result<Ended, Failure> {
        loop {
            match stream.message().await {
                Ok(Some(ReadLogResponse { part: Some(Part::Chunk(chunk)), attempt })) => {
                    let Some(chunk) = self.wanted(chunk, attempted)? else { continue };
                    self.sink.write(attempt, &chunk).await?;
                    self.offset += chunk.data.len() as u64;
                    self.reached.store(self.offset, Ordering::Relaxed);
                }
                Ok(Some(ReadLogResponse { part: Some(Part::End(end)), .. })) => return Ok(Ended::Done(end)),
                Ok(Some(ReadLogResponse { part: None, .. })) => {}
                Ok(None) => return Ok(Ended::Broken),
                Err(status) if is_transient(&status) => return Ok(Ended::Broken),
                Err(status) => return Err(self.client.refused(attempted, &status)),
            }
        }
    }

    /// The part of a chunk that was not written yet.
    fn wanted(&self, mut chunk: LogChunk, attempted: &str) -> Result<Option<LogChunk>, Failure> {
        if chunk.offset > self.offset {
            let why =
                format!("the bytes from {} to {} are missing in the controller's answer", self.offset, chunk.offset);
            return Err(Failure::new(Exit::Failed, attempted, why));
        }
        let mut known = usize::try_from(self.offset - chunk.offset).unwrap_or(usize::MAX);
        if known >= chunk.data.len() {
            return Ok(None);
        }
        let _ = chunk.data.split_to(known);
        chunk.offset = self.offset;
        while let Some(first) = chunk.frames.first_mut() {
            let length = first.length as usize;
            if length > known {
                first.length -= u32::try_from(known).unwrap_or(first.length);
                // A size came with the frame's first byte.
                first.size = first.size.filter(|_| known == 0);
                break;
            }
            known -= length;
            chunk.frames.remove(0);
        }
        Ok(Some(chunk))
    }
}

//! Terminal logs for people: exact bytes from sealed segments and the live tail, followed until the log is complete.
//!
//! A slow reader is waited for: nothing is read ahead of it but one piece of the log, so many of them cost little.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use sculpt_proto::{
    MAX_MESSAGE,
    v1::{
        LogChunk, LogEnd, ReadLogRequest, ReadLogResponse, logs_server::Logs, logs_server::LogsServer,
        read_log_response::Part,
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    access::{On, Read},
    blobs::Blobs,
    bus::Bus,
    grpc::status,
    session::held::{HeldError, HeldLog},
    store::{Store, StoreError, logs},
};

/// How soon a lost signal is repaired.
const POLL: Duration = Duration::from_secs(2);

/// Most logs that are read at a time; each holds a piece of its log in memory.
const READERS: usize = 1000;

/// Serves logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogsApi {
    store: Store,
    bus: Bus,
    blobs: Blobs,
    readers: Arc<Semaphore>,
    /// Cancelled when streams are to end.
    ending: CancellationToken,
}

impl LogsApi {
    /// Serves what `store` and `blobs` hold, until `ending` is cancelled.
    pub fn new(store: Store, bus: Bus, blobs: Blobs, ending: CancellationToken) -> Self {
        Self { store, bus, blobs, readers: Arc::new(Semaphore::new(READERS)), ending }
    }

    /// As a service with its limits.
    pub fn into_service(self) -> LogsServer<Self> {
        LogsServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<ReadLogResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Logs for LogsApi {
    type ReadLogStream = Replies;

    async fn read_log(&self, request: Request<ReadLogRequest>) -> Result<Response<Replies>, Status> {
        let caller = super::caller(&request)?;
        let request = request.into_inner();
        let Ok(seat) = Arc::clone(&self.readers).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{READERS} logs are being read already; ask again when some of their readers have gone"
            )));
        };
        let task: On<Read> = caller.on(&self.store.find_task(&caller.sees(), &request.task).await?)?;
        let reader = Reader {
            _seat: seat,
            api: self.clone(),
            task,
            wanted: request.attempt,
            at: request.from_offset,
            follow: request.follow,
            stage: Stage::Waiting(self.bus.journal_moved()),
        };
        let first = reader.attempt().await?;
        if first.is_none() && request.attempt != 0 {
            return Err(Status::not_found(format!("task {} has no attempt {}", request.task, request.attempt)));
        }
        let replies = stream::unfold(reader, |mut reader| async move {
            let reply = reader.next().await.transpose()?;
            if reply.is_err() {
                reader.stage = Stage::Over;
            }
            Some((reply, reader))
        });
        Ok(Response::new(replies.boxed()))
    }
}

/// One stream to one reader.
struct Reader {
    _seat: OwnedSemaphorePermit,
    api: LogsApi,
    task: On<Read>,
    /// 0: the newest.
    wanted: u32,
    at: u64,
    follow: bool,
    stage: Stage,
}

enum Stage {
    /// The task may have no attempt yet; changes when it may have got one.
    Waiting(watch::Receiver<u64>),
    /// In the middle of a log.
    Reading(Open),
    /// Everything was said.
    Over,
}

struct Open {
    log: HeldLog,
    attempt: sculpt_proto::id::AttemptId,
    number: u32,
    grew: watch::Receiver<u64>,
    pieces: VecDeque<LogChunk>,
}

/// What to do next.
enum Next {
    Reply(ReadLogResponse),
    Wait,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ReadLogResponse>, Status> {
        loop {
            let step = match &mut self.stage {
                Stage::Over => return Ok(None),
                Stage::Waiting(_) => self.begin().await?,
                Stage::Reading(open) => {
                    if let Some(piece) = open.pieces.pop_front() {
                        self.at = piece.offset + piece.data.len() as u64;
                        return Ok(Some(reply(Part::Chunk(piece), open.number)));
                    }
                    self.read().await?
                }
            };
            match step {
                Some(Next::Reply(reply)) => {
                    self.stage = Stage::Over;
                    return Ok(Some(reply));
                }
                Some(Next::Wait) => self.wait().await?,
                None => {}
            }
        }
    }

    /// Finds the attempt, or says that there is none.
    async fn begin(&mut self) -> Result<Option<Next>, Status> {
        if let Stage::Waiting(moved) = &mut self.stage {
            // Whatever happens from here on is seen by the wait.
            moved.mark_unchanged();
        }
        // Asked first: a task that is claimed between the two questions may not begin any more, and has its attempt.
        let may_begin = {
            let mut conn = self.api.store.read().await?;
            logs::may_begin(&mut conn, &self.task).await?.unwrap_or(false)
        };
        if let Some((attempt, number)) = self.attempt().await? {
            let grew = self.api.bus.subscribe_log(attempt);
            let log = HeldLog::new(self.api.blobs.clone(), attempt);
            self.stage = Stage::Reading(Open { log, attempt, number, grew, pieces: VecDeque::new() });
            return Ok(None);
        }
        if may_begin && self.follow {
            return Ok(Some(Next::Wait));
        }
        Ok(Some(Next::Reply(reply(Part::End(LogEnd { length: 0, complete: !may_begin }), 0))))
    }

    async fn attempt(&self) -> Result<Option<(sculpt_proto::id::AttemptId, u32)>, StoreError> {
        let mut conn = self.api.store.read().await?;
        logs::attempt_of(&mut conn, &self.task, self.wanted).await
    }

    /// Takes what is held from here on, or says that this is the end.
    async fn read(&mut self) -> Result<Option<Next>, Status> {
        let Stage::Reading(open) = &mut self.stage else { return Ok(None) };
        // Whatever grows from here on is seen by the wait.
        open.grew.mark_unchanged();
        let mut conn = self.api.store.read().await?;
        let Some(state) = logs::state(&mut conn, open.attempt).await? else {
            return Err(Status::not_found("the task was removed"));
        };
        if let Some(at) = state.dropped.filter(|_| self.at < state.end) {
            return Err(Status::not_found(format!(
                "the log of attempt {} was dropped on {} because the task had ended long before: the controller's \
                 log_retention says for how long logs are kept",
                open.number,
                at.format("%Y-%m-%d")
            )));
        }
        if self.at < state.end {
            open.pieces = open.log.read(&mut conn, self.at).await.map_err(failed)?.into();
            return Ok(None);
        }
        if state.closed || !self.follow {
            let end = LogEnd { length: state.end, complete: state.closed };
            return Ok(Some(Next::Reply(reply(Part::End(end), open.number))));
        }
        Ok(Some(Next::Wait))
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let ending = self.api.ending.clone();
        let signal = async {
            match &mut self.stage {
                Stage::Reading(open) => open.grew.changed().await,
                Stage::Waiting(moved) => moved.changed().await,
                Stage::Over => Ok(()),
            }
        };
        tokio::select! {
            () = ending.cancelled() => Err(status::shutting_down()),
            // Nothing came, or the bus is gone: look again either way.
            _ = tokio::time::timeout(POLL, signal) => Ok(()),
        }
    }
}

fn reply(part: Part, attempt: u32) -> ReadLogResponse {
    ReadLogResponse { part: Some(part), attempt }
}

fn failed(error: HeldError) -> Status {
    match error {
        HeldError::Store(error) => error.into(),
        HeldError::Blob(_) | HeldError::Damaged { .. } | HeldError::Frames(_) | HeldError::Hole { .. } => {
            status::internal(&error)
        }
    }
}

//! The Logs connection: bytes come in, are committed at their offset, then acknowledged with credit.
//!
//! Bounds: at most [`CREDIT`] bytes of one executor are in memory; what it sends beyond waits in the network.

use std::{sync::Arc, time::Duration};

use sculpt_proto::{
    FieldError, MAX_APPEND,
    executor::v1::{Append, LogAck, LogRefusal, LogsHello, LogsRequest, LogsResponse, logs_request, logs_response},
    id::AttemptId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::who::Who;
use crate::{
    session::{
        frames,
        growing::{Piece, Verdict},
        shelf::{Shelf, ShelfError},
    },
    store::sessions::Epoch,
};

/// How many bytes of one executor may be under way.
pub const CREDIT: u64 = 4 << 20;

/// What one transaction takes, in bytes.
const BATCH: usize = 1 << 20;

/// Appends that one transaction takes.
const BATCH_APPENDS: usize = 1024;

/// The least time from one commit to the next, so that many small appends share a transaction.
const LINGER: Duration = Duration::from_millis(20);

/// How long the first message may take.
const HELLO: Duration = Duration::from_secs(10);

/// How long an acknowledgement may wait for the executor to read it.
const STALLED: Duration = Duration::from_secs(30);

/// Appends whose bytes count as at least this much against the credit: none is free.
const LEAST: usize = 256;

impl TryFrom<Append> for Piece {
    type Error = FieldError;

    fn try_from(append: Append) -> Result<Self, FieldError> {
        if append.data.len() > MAX_APPEND {
            let problem = format!("{} bytes; at most {MAX_APPEND} are taken", append.data.len());
            return Err(FieldError::new("append.data", problem));
        }
        let end = append.start.checked_add(append.data.len() as u64).and_then(|end| i64::try_from(end).ok());
        if end.is_none() {
            return Err(FieldError::new("append.start", format!("{} is beyond the end of any log", append.start)));
        }
        frames::check(&append.frames, append.data.len())
            .map_err(|error| FieldError::new("append.frames", error.to_string()))?;
        Ok(Self {
            attempt: FieldError::parse(&append.attempt_id, "append.attempt_id")?,
            start: append.start,
            data: append.data,
            frames: append.frames,
        })
    }
}

/// Serves one Logs connection until the executor or a newer session ends it.
pub async fn serve(
    shelf: impl Shelf,
    who: Who,
    inbound: impl Stream<Item = Result<LogsRequest, Status>> + Unpin,
    out: mpsc::Sender<Result<LogsResponse, Status>>,
) {
    if let Err(status) = run(shelf, who, inbound, &out).await {
        // The stream may be gone already.
        let _ = out.send(Err(status)).await;
    }
}

async fn run(
    shelf: impl Shelf,
    who: Who,
    mut inbound: impl Stream<Item = Result<LogsRequest, Status>> + Unpin,
    out: &mpsc::Sender<Result<LogsResponse, Status>>,
) -> Result<(), Status> {
    let hello = tokio::time::timeout(HELLO, inbound.next()).await;
    let hello = hello.map_err(|_| Status::deadline_exceeded("no LogsHello within 10 s"))?;
    let epoch = match hello.transpose()?.and_then(|request| request.part) {
        Some(logs_request::Part::Hello(hello)) => epoch(who, &hello)?,
        Some(logs_request::Part::Append(_)) | None => {
            return Err(Status::invalid_argument("the first message of Logs must be a LogsHello"));
        }
    };
    let (queue, batches) = mpsc::channel(BATCH_APPENDS);
    let reader = read(inbound, queue);
    let writer = write(&shelf, epoch, batches, out);
    tokio::pin!(reader, writer);
    tokio::select! {
        biased;
        written = &mut writer => written,
        () = out.closed() => Ok(()),
        // What was queued before the executor ended the stream, or before it sent nonsense, is still written.
        read = &mut reader => writer.await.and(read),
    }
}

fn epoch(who: Who, hello: &LogsHello) -> Result<Epoch, Status> {
    Ok(Epoch { executor: who.named(&hello.executor_id, "hello.executor_id")?, number: hello.epoch })
}

type Queued = (Piece, OwnedSemaphorePermit);

async fn read(
    mut inbound: impl Stream<Item = Result<LogsRequest, Status>> + Unpin,
    queue: mpsc::Sender<Queued>,
) -> Result<(), Status> {
    let room = Arc::new(Semaphore::new(usize::try_from(CREDIT).unwrap_or(Semaphore::MAX_PERMITS)));
    while let Some(request) = inbound.next().await {
        let append = match request?.part {
            Some(logs_request::Part::Append(append)) => append,
            Some(logs_request::Part::Hello(_)) => return Err(Status::invalid_argument("a second LogsHello")),
            // A newer executor may say what this controller does not know.
            None => continue,
        };
        let piece = Piece::try_from(append)?;
        let size = u32::try_from(piece.data.len().max(LEAST)).unwrap_or(u32::MAX);
        let Ok(permit) = room.clone().acquire_many_owned(size).await else { return Ok(()) };
        if queue.send((piece, permit)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn write(
    shelf: &impl Shelf,
    epoch: Epoch,
    mut queue: mpsc::Receiver<Queued>,
    out: &mpsc::Sender<Result<LogsResponse, Status>>,
) -> Result<(), Status> {
    let mut next = tokio::time::Instant::now();
    while let Some(first) = queue.recv().await {
        let mut bytes = first.0.data.len();
        let mut batch = vec![first];
        while bytes < BATCH && batch.len() < BATCH_APPENDS {
            match tokio::time::timeout_at(next, queue.recv()).await {
                Ok(Some(queued)) => {
                    bytes += queued.0.data.len();
                    batch.push(queued);
                }
                Ok(None) | Err(_) => break,
            }
        }
        let (pieces, permits): (Vec<Piece>, Vec<OwnedSemaphorePermit>) = batch.into_iter().unzip();
        let verdicts = match shelf.put(epoch, pieces).await {
            Ok(verdicts) => verdicts,
            Err(ShelfError::Superseded) => {
                return Err(Status::aborted("a newer session has this executor; end this one"));
            }
            Err(error) => {
                tracing::warn!(executor = %epoch.executor, error = &error as &dyn std::error::Error, "log bytes not taken");
                return Err(Status::unavailable("the controller cannot store logs now; send again in a moment"));
            }
        };
        sculpt_failpoints::pass("log.before_ack");
        drop(permits);
        next = tokio::time::Instant::now() + LINGER;
        for (attempt, verdict) in verdicts {
            let sent = tokio::time::timeout(STALLED, out.send(Ok(response(attempt, verdict)))).await;
            match sent {
                Ok(Ok(())) => sculpt_failpoints::pass("log.acked"),
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Status::deadline_exceeded("acknowledgements were not read for 30 s")),
            }
        }
    }
    Ok(())
}

fn response(attempt: AttemptId, verdict: Verdict) -> LogsResponse {
    let attempt_id = attempt.to_string();
    let part = match verdict {
        Verdict::Stands(committed) => logs_response::Part::Ack(LogAck { attempt_id, committed, credit: CREDIT }),
        Verdict::Refused(code, text) => {
            logs_response::Part::Refusal(LogRefusal { attempt_id, code: code.into(), text })
        }
    };
    LogsResponse { part: Some(part) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sculpt_proto::v1::{LogFrame, LogSize};

    use super::*;

    #[test]
    fn what_cannot_be_is_refused_before_it_is_queued() {
        let append = |start: u64, length: usize, frames: &[u32]| Append {
            attempt_id: AttemptId::fresh().to_string(),
            start,
            data: Bytes::from(vec![b'x'; length]),
            frames: frames
                .iter()
                .map(|length| LogFrame { length: *length, stream: 1, ..LogFrame::default() })
                .collect(),
        };
        assert!(Piece::try_from(append(0, 3, &[1, 2])).is_ok());
        assert!(Piece::try_from(append(0, 0, &[])).is_ok());
        let sizeless = LogFrame { length: 1, stream: 1, time_ms: 0, size: Some(LogSize::default()) };
        for (bad, field) in [
            (append(0, 3, &[2]), "append.frames"),
            (append(0, 3, &[]), "append.frames"),
            (append(0, 0, &[0]), "append.frames"),
            (append(u64::MAX, 1, &[1]), "append.start"),
            (append(i64::MAX as u64, 1, &[1]), "append.start"),
            (append(0, MAX_APPEND + 1, &[MAX_APPEND as u32 + 1]), "append.data"),
            (Append { attempt_id: "17".into(), ..append(0, 1, &[1]) }, "append.attempt_id"),
            (Append { frames: vec![sizeless], ..append(0, 1, &[]) }, "append.frames"),
        ] {
            assert_eq!(Piece::try_from(bad).map_err(|error| error.field), Err(field));
        }
    }
}

//! Sends an attempt's new commits to the controller, for as long as it takes.

use std::time::Duration;

use bytes::Bytes;
use sculpt_proto::{
    MAX_PACK_PIECE,
    executor::v1::{PublishRequest, publish_request},
    id::AttemptId,
};
use tokio::{io::AsyncReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::warn;

use super::{Context, Link, life::Life};
use crate::{connect::Backoff, harvest::Found, journal::JournalError};

/// How often an answer that should not be is tried again, as opposed to no answer at all.
const TRIES: u32 = 8;

/// One try to publish.
pub(super) enum Tried {
    /// The published head.
    Taken(String),
    /// Why the controller refuses it for good.
    Refused(String),
    /// The controller did not take it yet.
    Later,
}

/// Something that is published by and by.
pub(super) struct Publication<'a> {
    context: &'a Context,
    attempt: AttemptId,
    found: &'a Found,
    backoff: Backoff,
    tries: u32,
}

impl Life<'_> {
    /// The published head, or why the controller refuses it for good.
    pub(super) async fn publish(&self, found: &Found) -> Result<Result<String, String>, JournalError> {
        let mut publication = Publication::new(self.context, self.handle.id, found);
        loop {
            match publication.again().await {
                Tried::Taken(head) => return Ok(Ok(head)),
                Tried::Refused(why) => return Ok(Err(why)),
                Tried::Later => {}
            }
            self.note("publishing what was made has to wait: the controller did not take it yet").await?;
            publication.pause().await;
        }
    }
}

impl<'a> Publication<'a> {
    pub(super) fn new(context: &'a Context, attempt: AttemptId, found: &'a Found) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        Self { context, attempt, found, backoff, tries: 0 }
    }

    /// Until the next try.
    pub(super) async fn pause(&mut self) {
        self.backoff.wait().await;
    }

    /// Tries once, in the session that there is, or the next.
    pub(super) async fn again(&mut self) -> Tried {
        let Link { epoch, .. } = self.context.session().await;
        let status = match self.send(epoch).await {
            Ok(head) => return Tried::Taken(head),
            Err(status) => status,
        };
        let same_session = self.context.link.borrow().is_some_and(|link| link.epoch == epoch);
        warn!(attempt = %self.attempt, code = ?status.code(), text = status.message(), "could not publish");
        match status.code() {
            // A controller that does not know the attempt, after its database was lost, may take it over yet; and one that
            // does not let this executor in may do so again: what was made waits for it.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::NotFound
            | Code::Unauthenticated
            | Code::PermissionDenied => Tried::Later,
            _ if !same_session => Tried::Later,
            Code::Internal | Code::Unknown | Code::Aborted | Code::DataLoss => {
                self.tries += 1;
                if self.tries == TRIES { Tried::Refused(status.message().to_owned()) } else { Tried::Later }
            }
            _ => Tried::Refused(status.message().to_owned()),
        }
    }

    async fn send(&self, epoch: u64) -> Result<String, Status> {
        let found = self.found;
        let unreadable = |error: std::io::Error| Status::internal(format!("could not read the pack: {error}"));
        let file = tokio::fs::File::open(&found.pack).await.map_err(unreadable)?;
        let mut client = self.context.dialer.dial().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let header = publish_request::Header {
            executor_id: self.context.executor.to_string(),
            epoch,
            attempt_id: self.attempt.to_string(),
            head: found.head.clone(),
            pack_length: found.pack_length,
            from_branch: found.branch.clone().unwrap_or_default(),
        };
        let (sender, receiver) = mpsc::channel(4);
        let feed = async move {
            let mut file = file;
            let mut part = publish_request::Part::Header(header);
            loop {
                if sender.send(PublishRequest { part: Some(part) }).await.is_err() {
                    return Ok(());
                }
                let mut piece = vec![0; MAX_PACK_PIECE];
                let read = file.read(&mut piece).await.map_err(unreadable)?;
                if read == 0 {
                    return Ok::<(), Status>(());
                }
                piece.truncate(read);
                part = publish_request::Part::Data(Bytes::from(piece));
            }
        };
        let (fed, answer) = tokio::join!(feed, client.publish(ReceiverStream::new(receiver)));
        fed?;
        Ok(answer?.into_inner().head)
    }
}

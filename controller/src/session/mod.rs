//! The executor protocol.
//!
//! [`control`] keeps an executor and the database in step, [`ingest`] takes its logs, [`publish`] its commits. Every write
//! is checked against the session's epoch and the attempt's fence in the transaction that makes it.

pub mod adopt;
pub mod book;
pub mod census;
pub mod control;
pub mod deeds;
pub mod disk;
mod end;
pub mod enrolment;
mod errands;
pub mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod garbage;
pub mod growing;
pub mod held;
pub mod hello;
pub mod ingest;
mod milestones;
pub mod pairing;
mod present;
pub mod publish;
pub mod registry;
pub mod reports;
pub mod shelf;
pub mod spec;
pub mod state;
pub mod who;
mod wire;

use sculpt_proto::{
    FieldError, MAX_MESSAGE,
    executor::v1::{
        ControlRequest, ControlResponse, GetSpecRequest, GetSpecResponse, LogsRequest, LogsResponse, PublishRequest,
        PublishResponse, PutSpecRequest, PutSpecResponse, control_response,
        executor_service_server::{ExecutorService, ExecutorServiceServer},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use self::{
    adopt::AdoptError,
    control::Context,
    end::say,
    shelf::StoredLogs,
    spec::HandOutError,
    who::{Away, Who},
};
pub use self::{
    present::Present,
    registry::{Sessions, Undialled},
};
use crate::{blobs::Blobs, dispatch::DispatchError, git::Repositories, store::sessions::Epoch};

/// Messages to an executor that wait in memory.
const OUTBOX: usize = 64;

/// Serves executors.
#[derive(Clone, Debug)]
pub struct ExecutorApi {
    context: Context,
    blobs: Blobs,
    repositories: Repositories,
    /// Sessions that are to end before the controller does.
    tracker: TaskTracker,
}

impl ExecutorApi {
    /// Serves executors; streams run on `tracker` and end with the context's `shutdown`.
    pub fn new(context: Context, blobs: Blobs, repositories: Repositories, tracker: TaskTracker) -> Self {
        Self { context, blobs, repositories, tracker }
    }

    /// As a service with its limits.
    pub fn into_service(self) -> ExecutorServiceServer<Self> {
        ExecutorServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl ExecutorService for ExecutorApi {
    type ControlStream = ReceiverStream<Result<ControlResponse, Status>>;
    type LogsStream = ReceiverStream<Result<LogsResponse, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (out, outbox) = mpsc::channel(OUTBOX);
        if let Some(away) = request.extensions().get::<Away>() {
            // The only word: there is room for it.
            let _ = out.try_send(Ok(say(control_response::Part::Reject(away.reject()))));
            return Ok(Response::new(ReceiverStream::new(outbox)));
        }
        let (context, who) = (self.context.clone(), Who::of(&request)?);
        self.tracker.spawn(control::serve(context, who, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(outbox)))
    }

    async fn logs(&self, request: Request<Streaming<LogsRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        let (out, outbox) = mpsc::channel(OUTBOX);
        let shelf = StoredLogs { dispatch: self.context.book.clone(), blobs: self.blobs.clone() };
        let ingest = ingest::serve(shelf, Who::of(&request)?, request.into_inner(), out);
        let shutdown = self.context.shutdown.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = ingest => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(outbox)))
    }

    async fn get_spec(&self, request: Request<GetSpecRequest>) -> Result<Response<GetSpecResponse>, Status> {
        let who = Who::of(&request)?;
        let request = request.into_inner();
        let executor = who.named(&request.executor_id, "executor_id")?;
        let attempt = FieldError::parse(&request.attempt_id, "attempt_id")?;
        let epoch = Epoch { executor, number: request.epoch };
        let spec = spec::hand_out(&self.context.book, epoch, attempt).await.map_err(|error| {
            let text = error.to_string();
            match error {
                HandOutError::Superseded => Status::aborted(text),
                HandOutError::Unknown(_) => Status::not_found(text),
                HandOutError::Over(_) | HandOutError::Dispatch(DispatchError::Illegal(_)) => {
                    Status::failed_precondition(text)
                }
                HandOutError::Dispatch(_) | HandOutError::Store(_) => {
                    tracing::warn!(%executor, %attempt, error = &error as &dyn std::error::Error, "no spec handed out");
                    Status::unavailable("the controller's database is out of reach; ask again in a moment")
                }
            }
        })?;
        Ok(Response::new(GetSpecResponse { spec }))
    }

    async fn put_spec(&self, request: Request<PutSpecRequest>) -> Result<Response<PutSpecResponse>, Status> {
        let who = Who::of(&request)?;
        let request = request.into_inner();
        let executor = who.named(&request.executor_id, "executor_id")?;
        let attempt = FieldError::parse(&request.attempt_id, "attempt_id")?;
        let epoch = Epoch { executor, number: request.epoch };
        adopt::take_over(&self.context.book, epoch, attempt, request.spec).await.map_err(|error| {
            let text = error.to_string();
            match error {
                AdoptError::Superseded => Status::aborted(text),
                AdoptError::Unasked(_) | AdoptError::Refused { .. } | AdoptError::Settled(_) => {
                    Status::failed_precondition(text)
                }
                AdoptError::Early => Status::unavailable(text),
                AdoptError::Dispatch(_) | AdoptError::Store(_) => {
                    tracing::warn!(%executor, %attempt, error = &error as &dyn std::error::Error, "not taken over");
                    Status::unavailable("the controller's database is out of reach; hand it in again in a moment")
                }
            }
        })?;
        Ok(Response::new(PutSpecResponse { cluster_id: self.context.cluster.to_string() }))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let who = Who::of(&request)?;
        let pieces = request.into_inner();
        publish::publish(&self.context.book, &self.repositories, who, pieces).await.map(Response::new)
    }
}

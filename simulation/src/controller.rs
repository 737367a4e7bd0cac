//! A controller: the real sessions over the simulated database, as `session` and `background` of the controller wire them.

use std::{
    pin::Pin,
    task::{Context as Poller, Poll},
    time::Duration,
};

use sculpt_controller::{
    session::{Sessions, control, ingest, who::Who},
    store::sessions::Epoch,
};
use sculpt_proto::{
    FieldError,
    executor::v1::{
        ControlRequest, ControlResponse, GetSpecRequest, GetSpecResponse, LogsRequest, LogsResponse, PublishRequest,
        PublishResponse, PutSpecRequest, PutSpecResponse, control_request, control_response,
        executor_service_server::{ExecutorService, ExecutorServiceServer},
        logs_response, publish_request,
    },
    id::ClusterId,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{book::Book, guard::Guard, network, noise::Noisy, witness::Witness, world::World};

/// How often the queue and silence are looked at, whether anything was told or not.
const PERIOD: Duration = Duration::from_secs(5);

/// A controller that was away judges nobody before executors had the time to come back.
const FAIR: Duration = Duration::from_secs(45);

/// Runs until it is crashed.
pub async fn run(book: Book, world: World, witness: Witness, cluster: ClusterId) -> turmoil::Result {
    let _host = network::Host::begin();
    let sessions = Sessions::new();
    tokio::spawn(place(book.clone(), sessions.clone()));
    tokio::spawn(judge(book.clone()));
    let incoming = network::listen().await?;
    world.tell(format_args!("controller: up"));
    let service = ExecutorServiceServer::new(Service { book, world, sessions, cluster, witness });
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

async fn place(book: Book, sessions: Sessions) {
    let mut placed = book.bus().placed();
    loop {
        placed.mark_unchanged();
        // What fails is tried again with the next look.
        drop(book.place(&sessions).await);
        drop(tokio::time::timeout(PERIOD, placed.changed()).await);
    }
}

async fn judge(book: Book) {
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(PERIOD).await;
        if since.elapsed() >= FAIR && book.judge().await.is_err() {
            since = Instant::now();
        }
    }
}

struct Service {
    book: Book,
    world: World,
    sessions: Sessions,
    cluster: ClusterId,
    witness: Witness,
}

#[tonic::async_trait]
impl ExecutorService for Service {
    type ControlStream = Noisy<Overheard<ControlResponse>, ControlResponse>;
    type LogsStream = Noisy<Overheard<LogsResponse>, LogsResponse>;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (out, outbox) = mpsc::channel(64);
        let context = control::Context {
            book: self.book.clone(),
            sessions: self.sessions.clone(),
            cluster: self.cluster,
            authority: None,
            shutdown: CancellationToken::new(),
        };
        // What an executor has is true for its moment alone.
        let lasting = |request: &ControlRequest| !matches!(request.part, Some(control_request::Part::Observed(_)));
        let inbound = Noisy::new(request.into_inner(), self.world.clone(), lasting);
        tokio::spawn(control::serve(context, Who::unasked(), inbound, out));
        let (book, witness) = (self.book.clone(), self.witness.clone());
        let early = self.world.lacks(Guard::Confirmation);
        let outbound = Overheard::new(outbox, move |response: &mut ControlResponse| {
            if let Some(control_response::Part::HeartbeatAck(ack)) = &mut response.part
                && early
            {
                ack.leased = ack.sequence;
            }
            if let Some(control_response::Part::ReportAck(ack)) = &response.part
                && let Ok(attempt) = ack.attempt_id.parse()
                && ack.refusal == 0
            {
                witness.promised(&book.archive().rows(), attempt, Some(ack.through), None);
            }
        });
        Ok(Response::new(Noisy::new(outbound, self.world.clone(), |_| true)))
    }

    async fn logs(&self, request: Request<Streaming<LogsRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        let (out, outbox) = mpsc::channel(64);
        let inbound = Noisy::new(request.into_inner(), self.world.clone(), |_| true);
        tokio::spawn(ingest::serve(self.book.clone(), Who::unasked(), inbound, out));
        let (book, witness) = (self.book.clone(), self.witness.clone());
        let outbound = Overheard::new(outbox, move |response: &mut LogsResponse| {
            if let Some(logs_response::Part::Ack(ack)) = &response.part
                && let Ok(attempt) = ack.attempt_id.parse()
            {
                witness.promised(&book.archive().rows(), attempt, None, Some(ack.committed));
            }
        });
        Ok(Response::new(Noisy::new(outbound, self.world.clone(), |_| true)))
    }

    async fn get_spec(&self, request: Request<GetSpecRequest>) -> Result<Response<GetSpecResponse>, Status> {
        let request = request.into_inner();
        let executor = FieldError::parse(&request.executor_id, "executor_id")?;
        let attempt = FieldError::parse(&request.attempt_id, "attempt_id")?;
        let spec = self.book.hand_out(Epoch { executor, number: request.epoch }, attempt).await?;
        Ok(Response::new(GetSpecResponse { spec }))
    }

    async fn put_spec(&self, _request: Request<PutSpecRequest>) -> Result<Response<PutSpecResponse>, Status> {
        Err(Status::unimplemented("nothing is taken over in the simulation"))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let first = request.into_inner().next().await.transpose()?.and_then(|request| request.part);
        let Some(publish_request::Part::Header(header)) = first else {
            return Err(Status::invalid_argument("no header"));
        };
        let executor = FieldError::parse(&header.executor_id, "executor_id")?;
        let attempt = FieldError::parse(&header.attempt_id, "attempt_id")?;
        let epoch = Epoch { executor, number: header.epoch };
        let head = self.book.publish(epoch, attempt, header.head).await?;
        Ok(Response::new(PublishResponse { head }))
    }
}

/// What is said to an executor, heard by the witness as it leaves.
pub struct Overheard<T> {
    stream: ReceiverStream<Result<T, Status>>,
    hear: Box<dyn Fn(&mut T) + Send>,
}

impl<T> Overheard<T> {
    fn new(outbox: mpsc::Receiver<Result<T, Status>>, hear: impl Fn(&mut T) + Send + 'static) -> Self {
        Self { stream: ReceiverStream::new(outbox), hear: Box::new(hear) }
    }
}

impl<T> Stream for Overheard<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let mut next = Pin::new(&mut self.stream).poll_next(cx);
        if let Poll::Ready(Some(Ok(response))) = &mut next {
            (self.hear)(response);
        }
        next
    }
}

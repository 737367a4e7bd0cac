//! An executor that says what the test says, and fails on every answer that the test does not expect.

use std::{collections::VecDeque, time::Duration};

use sculpt_proto::{
    executor::v1::{
        Accepted, Append, ControlRequest, ControlResponse, Desired, Dial, Ended, Finalizing, GetSpecRequest, Guests,
        Hello, LogAck, LogRefusal, LogsHello, LogsRequest, LogsResponse, Observed, ObservedAttempt, Preparing,
        PublishRequest, Reject, Report, ReportAck, Running, control_request, control_response, ended,
        executor_service_client::ExecutorServiceClient, logs_request, logs_response, publish_request, report::Step,
    },
    id::{AttemptId, ExecutorId},
    v1::{Exit, Failure, LogFrame},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::Stack;
use crate::harness::Authorised;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn hello(name: &str) -> Hello {
    Hello {
        protocol: 1,
        executor_id: ExecutorId::fresh().to_string(),
        name: name.into(),
        instance_id: Uuid::new_v4().to_string(),
        boot_id: Uuid::new_v4().to_string(),
        pool: "default".into(),
        slots: 4,
        separates: true,
        ..Hello::default()
    }
}

/// A Control connection.
pub(crate) struct Scripted {
    pub(crate) client: ExecutorServiceClient<Authorised>,
    pub(crate) id: String,
    pub(crate) epoch: u64,
    requests: mpsc::Sender<ControlRequest>,
    responses: Streaming<ControlResponse>,
    /// Whom it was told to let in, which a controller may say at any time.
    invited: VecDeque<Guests>,
}

impl Scripted {
    /// Connects and says hello; the answer is the next response.
    pub(crate) async fn dial(stack: &mut Stack, hello: Hello) -> Self {
        Self::over(stack.executor_client().await, hello).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn over(mut client: ExecutorServiceClient<Authorised>, hello: Hello) -> Self {
        let (requests, stream) = mpsc::channel(1024);
        let id = hello.executor_id.clone();
        let first = ControlRequest { part: Some(control_request::Part::Hello(hello)) };
        requests.send(first).await.unwrap();
        let responses = client.control(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { client, id, epoch: 0, requests, responses, invited: VecDeque::new() }
    }

    /// Connects and is welcomed.
    pub(crate) async fn welcome(stack: &mut Stack, hello: Hello) -> Self {
        let mut scripted = Self::dial(stack, hello).await;
        assert_eq!(scripted.welcomed().await, stack.cluster.to_string());
        scripted
    }

    /// Waits for the welcome; the cluster's id.
    pub(crate) async fn welcomed(&mut self) -> String {
        match self.next().await {
            control_response::Part::Welcome(welcome) => {
                self.epoch = welcome.epoch;
                welcome.cluster_id
            }
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Connects with nothing of its own and is told what it should have.
    pub(crate) async fn ready(stack: &mut Stack, hello: Hello) -> (Self, Desired) {
        let mut scripted = Self::welcome(stack, hello).await;
        scripted.observe(vec![]).await;
        let desired = scripted.desired().await;
        assert!(desired.full && desired.last);
        (scripted, desired)
    }

    pub(crate) async fn send(&self, part: control_request::Part) {
        self.requests.send(ControlRequest { part: Some(part) }).await.unwrap();
    }

    pub(crate) async fn observe(&self, attempts: Vec<ObservedAttempt>) {
        self.send(control_request::Part::Observed(Observed { attempts, last: true })).await;
    }

    pub(crate) async fn next(&mut self) -> control_response::Part {
        self.message().await.unwrap().expect("the stream goes on").part.unwrap()
    }

    pub(crate) async fn message(&mut self) -> Result<Option<ControlResponse>, Status> {
        loop {
            let message = self.any_message().await;
            match message {
                Ok(Some(ControlResponse { part: Some(control_response::Part::Guests(guests)) })) => {
                    self.invited.push_back(guests);
                }
                other => return other,
            }
        }
    }

    async fn any_message(&mut self) -> Result<Option<ControlResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// Whom it is told to let in next.
    pub(crate) async fn guests(&mut self) -> Guests {
        if let Some(guests) = self.invited.pop_front() {
            return guests;
        }
        match self.any_message().await.unwrap().expect("the stream goes on").part.unwrap() {
            control_response::Part::Guests(guests) => guests,
            other => panic!("no Guests but {other:?}"),
        }
    }

    /// The tunnel that it is to dial next.
    pub(crate) async fn dialled(&mut self) -> Dial {
        match self.next().await {
            control_response::Part::Dial(dial) => dial,
            other => panic!("no Dial but {other:?}"),
        }
    }

    pub(crate) async fn desired(&mut self) -> Desired {
        match self.next().await {
            control_response::Part::Desired(desired) => desired,
            other => panic!("no Desired but {other:?}"),
        }
    }

    pub(crate) async fn rejected(&mut self) -> Reject {
        match self.next().await {
            control_response::Part::Reject(reject) => reject,
            other => panic!("no Reject but {other:?}"),
        }
    }

    /// Reports a step and gives the answer.
    pub(crate) async fn report(&mut self, attempt: &str, sequence: u64, step: Step) -> ReportAck {
        let report = Report { attempt_id: attempt.into(), sequence, age: None, step: Some(step) };
        self.send(control_request::Part::Report(report)).await;
        match self.next().await {
            control_response::Part::ReportAck(ack) => ack,
            other => panic!("no ReportAck but {other:?}"),
        }
    }

    /// The same, whatever else is said before the answer.
    pub(crate) async fn answer(&mut self, attempt: &str, sequence: u64, step: Step) -> ReportAck {
        let report = Report { attempt_id: attempt.into(), sequence, age: None, step: Some(step) };
        self.send(control_request::Part::Report(report)).await;
        loop {
            if let control_response::Part::ReportAck(ack) = self.next().await {
                return ack;
            }
        }
    }

    /// Takes the next attempt that is wanted, up to and with its agent running.
    pub(crate) async fn run_one(&mut self) -> String {
        let attempt = self.desired().await.attempts.remove(0).attempt_id;
        self.spec(&attempt).await.unwrap();
        for (sequence, step) in (1..).zip([accepted(), preparing(), running()]) {
            assert_eq!(self.report(&attempt, sequence, step).await.through, sequence);
        }
        attempt
    }

    pub(crate) async fn spec(&mut self, attempt: &str) -> Result<Vec<u8>, Code> {
        let request =
            GetSpecRequest { executor_id: self.id.clone(), epoch: self.epoch, attempt_id: attempt.to_owned() };
        self.client.get_spec(request).await.map(|answer| answer.into_inner().spec).map_err(|status| status.code())
    }

    /// Publishes `head` by `pack`, in the session `epoch`; the published head.
    pub(crate) async fn publish(
        &mut self,
        epoch: u64,
        attempt: &str,
        head: &str,
        pack: &[u8],
    ) -> Result<String, Status> {
        let length = pack.len() as u64;
        let parts = [self.header(epoch, attempt, head, length)].into_iter().chain(pieces(pack)).collect::<Vec<_>>();
        self.client.publish(tokio_stream::iter(parts)).await.map(|answer| answer.into_inner().head)
    }

    /// The first message of a Publish call.
    pub(crate) fn header(&self, epoch: u64, attempt: &str, head: &str, pack_length: u64) -> PublishRequest {
        let header = publish_request::Header {
            executor_id: self.id.clone(),
            epoch,
            attempt_id: attempt.into(),
            head: head.into(),
            pack_length,
            from_branch: String::new(),
        };
        PublishRequest { part: Some(publish_request::Part::Header(header)) }
    }

    /// Opens a Logs connection with this epoch.
    pub(crate) async fn logs(&mut self, epoch: u64) -> LogStream {
        let (requests, stream) = mpsc::channel(4096);
        let hello = LogsHello { executor_id: self.id.clone(), epoch };
        requests.send(LogsRequest { part: Some(logs_request::Part::Hello(hello)) }).await.unwrap();
        let responses = self.client.logs(ReceiverStream::new(stream)).await.unwrap().into_inner();
        LogStream { requests, responses }
    }
}

/// A Logs connection.
pub(crate) struct LogStream {
    requests: mpsc::Sender<LogsRequest>,
    responses: Streaming<LogsResponse>,
}

impl LogStream {
    pub(crate) async fn send(&self, append: Append) {
        self.requests.send(LogsRequest { part: Some(logs_request::Part::Append(append)) }).await.unwrap();
    }

    pub(crate) async fn message(&mut self) -> Result<Option<LogsResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// Appends and gives the answer.
    pub(crate) async fn append(&mut self, attempt: &str, start: u64, data: &[u8]) -> Result<LogAck, LogRefusal> {
        self.send(append(attempt, start, data)).await;
        match self.message().await.unwrap().unwrap().part.unwrap() {
            logs_response::Part::Ack(ack) => Ok(ack),
            logs_response::Part::Refusal(refusal) => Err(refusal),
        }
    }

    /// Waits until everything below `end` is committed.
    pub(crate) async fn committed(&mut self, end: u64) {
        loop {
            match self.message().await.unwrap().unwrap().part.unwrap() {
                logs_response::Part::Ack(ack) if ack.committed == end => return,
                logs_response::Part::Ack(ack) => assert!(ack.committed < end),
                logs_response::Part::Refusal(refusal) => panic!("{refusal:?}"),
            }
        }
    }
}

/// A pack in messages.
pub(crate) fn pieces(pack: &[u8]) -> impl Iterator<Item = PublishRequest> {
    let piece = |piece: &[u8]| PublishRequest { part: Some(publish_request::Part::Data(piece.to_vec().into())) };
    pack.chunks(100).map(piece)
}

pub(crate) fn append(attempt: &str, start: u64, data: &[u8]) -> Append {
    let length = u32::try_from(data.len()).unwrap();
    let frames = if length == 0 { vec![] } else { vec![LogFrame { length, stream: 2, time_ms: start, size: None }] };
    Append { attempt_id: attempt.into(), start, data: data.to_vec().into(), frames }
}

pub(crate) fn accepted() -> Step {
    Step::Accepted(Accepted {})
}

pub(crate) fn preparing() -> Step {
    Step::Preparing(Preparing {})
}

pub(crate) fn running() -> Step {
    Step::Running(Running { pid: 4711, tmux_socket: "/run/t".into() })
}

pub(crate) fn finalizing(code: i32) -> Step {
    Step::Finalizing(Finalizing { exit: Some(Exit { code: Some(code), signal: None }) })
}

pub(crate) fn completed(log_length: u64) -> Step {
    Step::Ended(Ended {
        outcome: ended::Outcome::Completed.into(),
        exit: Some(Exit { code: Some(0), signal: None }),
        log_length,
        ..Ended::default()
    })
}

pub(crate) fn failed(cause: &str) -> Step {
    let failure = Failure { cause: cause.into(), message: "as its shim says".into() };
    Step::Ended(Ended { outcome: ended::Outcome::Failed.into(), failure: Some(failure), ..Ended::default() })
}

pub(crate) fn observed(stack: &Stack, attempt: &str, ended: bool) -> ObservedAttempt {
    ObservedAttempt {
        attempt_id: attempt.into(),
        task_id: Uuid::nil().to_string(),
        number: 1,
        cluster_id: stack.cluster.to_string(),
        report_sequence: 0,
        log_length: 0,
        ended,
        unreadable: String::new(),
    }
}

pub(crate) fn unknown() -> String {
    AttemptId::fresh().to_string()
}

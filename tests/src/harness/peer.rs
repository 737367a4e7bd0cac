//! An executor that says what the test says, over the real listener and with a certificate of its own.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use procfs::process::Process;
use sculpt_proto::executor::v1::{
    Append, ControlRequest, ControlResponse, GetSpecRequest, Hello, LogsHello, LogsRequest, LogsResponse, Observed,
    ObservedAttempt, PublishRequest, Report, ReportAck, control_request, control_response,
    executor_service_client::ExecutorServiceClient, logs_request, logs_response, publish_request, report::Step,
    report_ack::Refusal,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

use super::{
    DEADLINE, Stack,
    checker::{Promise, Shared},
    within,
};

/// A Control connection in the test's hand.
#[derive(Debug)]
pub struct Peer {
    /// Every call that an executor can make.
    pub client: ExecutorServiceClient<Channel>,
    /// Its id.
    pub id: String,
    /// Of its session.
    pub epoch: u64,
    /// Of the controller.
    pub cluster: String,
    requests: mpsc::Sender<ControlRequest>,
    responses: Streaming<ControlResponse>,
    /// What is acknowledged is written down for the checker.
    promised: Shared,
}

/// What such an executor says first.
pub fn hello(name: &str, pool: &str) -> Hello {
    let id = || Uuid::new_v4().to_string();
    Hello {
        protocol: 1,
        executor_id: id(),
        name: name.to_owned(),
        instance_id: id(),
        boot_id: id(),
        directory_id: id(),
        pool: pool.to_owned(),
        slots: 4,
        owner: owner(),
        ..Hello::default()
    }
}

/// The account of the tests, whose tasks an executor without separation may have.
fn owner() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut named = accounts.lines().filter(|line| line.split(':').nth(2) == Some(uid.as_str()));
    named.next().and_then(|line| line.split(':').next()).unwrap_or(&uid).to_owned()
}

impl Stack {
    /// Connects an executor of the test's with nothing of its own.
    pub async fn peer(&self, hello: Hello) -> Result<Peer> {
        let mut peer = self.dial_peer(hello).await?;
        peer.observe(Vec::new(), true).await;
        peer.answer("what it should have", |part| matches!(part, control_response::Part::Desired(_)).then_some(()))
            .await?;
        Ok(peer)
    }

    /// Connects and is welcomed.
    pub async fn dial_peer(&self, hello: Hello) -> Result<Peer> {
        let client = ExecutorServiceClient::new(self.proved(&hello).await?);
        let (requests, stream) = mpsc::channel(64);
        let id = hello.executor_id.clone();
        requests.send(ControlRequest { part: Some(control_request::Part::Hello(hello)) }).await?;
        let responses = client.clone().control(ReceiverStream::new(stream)).await?.into_inner();
        let promised = self.promised.clone();
        let mut peer = Peer { client, id, epoch: 0, cluster: String::new(), requests, responses, promised };
        let welcome = peer
            .answer("a welcome", |part| match part {
                control_response::Part::Welcome(welcome) => Some(welcome),
                _ => None,
            })
            .await?;
        (peer.epoch, peer.cluster) = (welcome.epoch, welcome.cluster_id);
        Ok(peer)
    }
}

impl Peer {
    /// Sends one message; that the controller has ended the session is seen by [`Peer::closed`].
    pub async fn say(&self, part: control_request::Part) {
        let _ = self.requests.send(ControlRequest { part: Some(part) }).await;
    }

    /// Says what it has.
    pub async fn observe(&self, attempts: Vec<ObservedAttempt>, last: bool) {
        self.say(control_request::Part::Observed(Observed { attempts, last })).await;
    }

    /// The first answer that `pick` takes; others are passed over.
    pub async fn answer<T>(&mut self, what: &str, pick: impl Fn(control_response::Part) -> Option<T>) -> Result<T> {
        within(DEADLINE, what, async {
            while let Some(response) = self.responses.message().await? {
                if let Some(found) = response.part.and_then(&pick) {
                    return Ok(found);
                }
            }
            bail!("the session ended before {what}")
        })
        .await
    }

    /// Waits until the controller ends the session, and gives its word.
    pub async fn closed(mut self) -> Result<Status> {
        let mut rejected = None;
        within(DEADLINE, "the end of the session", async {
            loop {
                match self.responses.message().await {
                    Ok(Some(response)) => {
                        if let Some(control_response::Part::Reject(reject)) = response.part {
                            rejected = Some(reject.text);
                        }
                    }
                    Ok(None) => return Ok(Status::cancelled(rejected.unwrap_or_default())),
                    Err(status) => return Ok(status),
                }
            }
        })
        .await
    }

    /// Reports a step and gives the answer.
    pub async fn report(&mut self, attempt: &str, sequence: u64, step: Step) -> Result<ReportAck> {
        let report = Report { attempt_id: attempt.to_owned(), sequence, age: None, step: Some(step) };
        self.say(control_request::Part::Report(report)).await;
        let ack = self
            .answer("the answer to a report", |part| match part {
                control_response::Part::ReportAck(ack) => Some(ack),
                _ => None,
            })
            .await?;
        if ack.refusal() == Refusal::Unspecified {
            let applied = Promise::Applied(ack.attempt_id.clone(), ack.through);
            self.promised.note(|ledger| ledger.promised(applied));
        }
        Ok(ack)
    }

    /// Waits for an attempt that it should run, and reads its spec.
    pub async fn offered(&mut self) -> Result<String> {
        let attempt = self
            .answer("an attempt", |part| match part {
                control_response::Part::Desired(desired) => Some(desired.attempts.first()?.attempt_id.clone()),
                _ => None,
            })
            .await?;
        self.spec(&attempt, self.epoch).await?;
        Ok(attempt)
    }

    /// The spec of an attempt.
    pub async fn spec(&mut self, attempt: &str, epoch: u64) -> Result<Vec<u8>, Status> {
        let request = GetSpecRequest { executor_id: self.id.clone(), epoch, attempt_id: attempt.to_owned() };
        self.client.get_spec(request).await.map(|answer| answer.into_inner().spec)
    }

    /// Publishes `head` by `pack`, of which the header says that it has `length` bytes.
    pub async fn publish(&mut self, attempt: &str, head: &str, pack: &[u8], length: u64) -> Result<String, Status> {
        let header = publish_request::Header {
            executor_id: self.id.clone(),
            epoch: self.epoch,
            attempt_id: attempt.to_owned(),
            head: head.to_owned(),
            pack_length: length,
            from_branch: String::new(),
        };
        let pieces: Vec<_> = std::iter::once(publish_request::Part::Header(header))
            .chain(pack.chunks(64 << 10).map(|piece| publish_request::Part::Data(piece.to_vec().into())))
            .map(|part| PublishRequest { part: Some(part) })
            .collect();
        self.client.publish(tokio_stream::iter(pieces)).await.map(|answer| answer.into_inner().head)
    }

    /// Opens a Logs connection in the session `epoch`.
    pub async fn logs(&mut self, epoch: u64) -> Result<Appends> {
        let (requests, stream) = mpsc::channel(16);
        let hello = LogsHello { executor_id: self.id.clone(), epoch };
        requests.send(LogsRequest { part: Some(logs_request::Part::Hello(hello)) }).await?;
        let responses = self.client.logs(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Appends { requests, responses, promised: self.promised.clone() })
    }
}

/// A Logs connection in the test's hand.
#[derive(Debug)]
pub struct Appends {
    requests: mpsc::Sender<LogsRequest>,
    responses: Streaming<LogsResponse>,
    promised: Shared,
}

impl Appends {
    /// Sends bytes; false once the controller reads no more of them for `patience`.
    pub async fn send(&self, append: Append, patience: Duration) -> bool {
        let request = LogsRequest { part: Some(logs_request::Part::Append(append)) };
        matches!(tokio::time::timeout(patience, self.requests.send(request)).await, Ok(Ok(())))
    }

    /// Sends bytes and gives the answer.
    pub async fn append(&mut self, append: Append) -> Result<logs_response::Part, Status> {
        self.send(append, DEADLINE).await;
        let answer = tokio::time::timeout(DEADLINE, self.responses.message()).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the test waited in vain for an answer"))??;
        let part =
            answer.and_then(|response| response.part).ok_or_else(|| Status::cancelled("the stream has ended"))?;
        if let logs_response::Part::Ack(ack) = &part {
            let held = Promise::Held(ack.attempt_id.clone(), ack.committed);
            self.promised.note(|ledger| ledger.promised(held));
        }
        Ok(part)
    }
}

/// Bytes of a terminal from `start` on, with the frame that they need.
pub fn append(attempt: &str, start: u64, data: &[u8]) -> Append {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let frames = if length == 0 {
        Vec::new()
    } else {
        vec![sculpt_proto::v1::LogFrame { length, stream: 2, ..Default::default() }]
    };
    Append { attempt_id: attempt.to_owned(), start, data: data.to_vec().into(), frames }
}

/// Resident memory of the process `pid`, in bytes.
pub fn resident(pid: i32) -> Result<u64> {
    let statm = Process::new(pid)?.statm().context("look at a process's memory")?;
    Ok(statm.resident * procfs::page_size())
}

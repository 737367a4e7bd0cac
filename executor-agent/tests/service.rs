//! What the scripted controller answers executors.

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use sculpt_proto::executor::v1::{
    ControlRequest, ControlResponse, Desired, DesiredAttempt, GetSpecRequest, GetSpecResponse, Hello, LogAck,
    LogRefusal, LogsRequest, LogsResponse, Phase, PublishRequest, PublishResponse, PutSpecRequest, PutSpecResponse,
    Report, ReportAck, Welcome, control_request, control_response, executor_service_server::ExecutorService,
    log_refusal, logs_request, logs_response, publish_request, report, report_ack::Refusal,
};
use sculpt_tls::Caller;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::controller::Inner;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ExecutorService for Inner {
    type ControlStream = Answers<ControlResponse>;
    type LogsStream = Answers<LogsResponse>;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        let mut inbound = request.into_inner();
        let (answers, receiver) = tokio::sync::mpsc::channel(64);
        let inner = self.clone();
        tokio::spawn(async move {
            let mut changed = inner.changed.subscribe();
            loop {
                let answered = tokio::select! {
                    message = inbound.next() => match message {
                        Some(Ok(message)) => inner.hear(caller.as_ref(), message),
                        _ => return,
                    },
                    _ = changed.changed() => {
                        let barred = inner.memory.lock().unwrap().enrolments.barred.is_some();
                        let collect = inner.memory.lock().unwrap().collect.take().map(control_response::Part::Collect);
                        let first = if barred { inner.turned_away(caller.as_ref()) } else { Some(inner.desired(false)) };
                        let people = std::mem::take(&mut inner.memory.lock().unwrap().people);
                        first.into_iter().chain(collect).chain(people).collect()
                    }
                };
                for part in answered {
                    if answers.send(Ok(ControlResponse { part: Some(part) })).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn put_spec(&self, request: Request<PutSpecRequest>) -> Result<Response<PutSpecResponse>, Status> {
        let PutSpecRequest { epoch, attempt_id, spec, .. } = request.into_inner();
        let cluster_id = {
            let mut memory = self.memory.lock().unwrap();
            assert_eq!(epoch, memory.epoch, "handed in in another session");
            memory.adopted.retain(|adopted| *adopted != attempt_id);
            memory.desired.entry(attempt_id.clone()).or_insert(Phase::Run);
            memory.specs.insert(attempt_id, spec);
            memory.cluster.clone()
        };
        self.changed.send_modify(|count| *count += 1);
        Ok(Response::new(PutSpecResponse { cluster_id }))
    }

    async fn logs(&self, request: Request<Streaming<LogsRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        let inner = self.clone();
        let answers = request.into_inner().filter_map(move |message| match message.ok()?.part? {
            logs_request::Part::Hello(hello) => {
                let current = inner.memory.lock().unwrap().epoch;
                (hello.epoch != current).then(|| Err(Status::failed_precondition("an older session")))
            }
            logs_request::Part::Append(append) => {
                let committed = {
                    let mut memory = inner.memory.lock().unwrap();
                    if !memory.specs.contains_key(&append.attempt_id) {
                        let code = log_refusal::Code::UnknownAttempt.into();
                        let refusal = LogRefusal { attempt_id: append.attempt_id, code, text: String::new() };
                        return Some(Ok(LogsResponse { part: Some(logs_response::Part::Refusal(refusal)) }));
                    }
                    let covered: u64 = append.frames.iter().map(|frame| u64::from(frame.length)).sum();
                    assert_eq!(covered, append.data.len() as u64, "frames cover the data");
                    memory.frames.entry(append.attempt_id.clone()).or_default().extend(append.frames);
                    let log = memory.logs.entry(append.attempt_id.clone()).or_default();
                    let start = usize::try_from(append.start).unwrap();
                    if start <= log.len() {
                        let held = (log.len() - start).min(append.data.len());
                        assert_eq!(log[start..start + held], append.data[..held], "the same bytes at the same place");
                        log.extend_from_slice(&append.data[held..]);
                    }
                    log.len() as u64
                };
                inner.changed.send_modify(|_| {});
                let ack = LogAck { attempt_id: append.attempt_id, committed, credit: 512 << 10 };
                Some(Ok(LogsResponse { part: Some(logs_response::Part::Ack(ack)) }))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_spec(&self, request: Request<GetSpecRequest>) -> Result<Response<GetSpecResponse>, Status> {
        let memory = self.memory.lock().unwrap();
        let spec = memory.specs.get(&request.into_inner().attempt_id).cloned();
        Ok(Response::new(GetSpecResponse { spec: spec.ok_or_else(|| Status::not_found("no such attempt"))? }))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let mut inbound = request.into_inner();
        let mut header = None;
        let mut pack = Vec::new();
        while let Some(message) = inbound.next().await {
            match message?.part {
                Some(publish_request::Part::Header(first)) => header = Some(first),
                Some(publish_request::Part::Data(piece)) => pack.extend_from_slice(&piece),
                None => {}
            }
        }
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        assert_eq!(header.pack_length, pack.len() as u64);
        {
            let mut memory = self.memory.lock().unwrap();
            if !memory.specs.contains_key(&header.attempt_id) {
                return Err(Status::not_found("there is no such attempt"));
            }
            if let Some(why) = memory.refuse_for_good {
                return Err(Status::failed_precondition(why));
            }
            if memory.refuse_publications > 0 {
                memory.refuse_publications -= 1;
                return Err(Status::unavailable("the database is away"));
            }
        }
        let repository = self.repositories.join("project.git");
        let target = repository.join(format!("objects/pack/pack-{}.pack", header.attempt_id));
        std::fs::write(&target, &pack)?;
        crate::git::git(&repository, &["index-pack", "--strict", target.to_str().unwrap()]);
        crate::git::git(&repository, &["update-ref", &format!("refs/heads/{}", header.attempt_id), &header.head]);
        let head = header.head.clone();
        self.memory.lock().unwrap().published.insert(header.attempt_id.clone(), header);
        Ok(Response::new(PublishResponse { head }))
    }
}

impl Inner {
    /// What an executor is told that is not let in.
    fn turned_away(&self, caller: Option<&Caller>) -> Option<control_response::Part> {
        let judged = self.memory.lock().unwrap().enrolments.judge(caller);
        judged.err().map(|away| control_response::Part::Reject(away.reject()))
    }

    fn hear(&self, caller: Option<&Caller>, message: ControlRequest) -> Vec<control_response::Part> {
        let answers = match message.part {
            Some(control_request::Part::Hello(hello)) => match self.turned_away(caller) {
                Some(rejection) => vec![rejection],
                None => self.greet(hello),
            },
            Some(control_request::Part::Observed(observed)) => {
                self.memory.lock().unwrap().observed = observed.attempts;
                vec![]
            }
            Some(control_request::Part::Heartbeat(heartbeat)) => {
                {
                    let mut memory = self.memory.lock().unwrap();
                    memory.heartbeats += 1;
                    memory.heartbeat = Some(heartbeat.clone());
                }
                let ack = sculpt_proto::executor::v1::HeartbeatAck {
                    sequence: heartbeat.sequence,
                    leased: heartbeat.sequence,
                    trusted: self.memory.lock().unwrap().enrolments.trusted(),
                };
                vec![control_response::Part::HeartbeatAck(ack)]
            }
            Some(control_request::Part::Report(report)) => vec![self.take(report)],
            Some(control_request::Part::Collected(collected)) => {
                let mut memory = self.memory.lock().unwrap();
                memory.collected.entry(collected.request).or_default().extend(collected.items);
                vec![]
            }
            None => vec![],
        };
        self.changed.send_modify(|_| {});
        answers
    }

    fn greet(&self, hello: Hello) -> Vec<control_response::Part> {
        let mut memory = self.memory.lock().unwrap();
        memory.epoch += 1;
        memory.hellos.push(hello);
        if let Some(reject) = memory.reject.clone() {
            return vec![control_response::Part::Reject(reject)];
        }
        let welcome = Welcome {
            cluster_id: memory.cluster.clone(),
            epoch: memory.epoch,
            heartbeat_interval: Some(sculpt_proto::to_duration(Duration::from_millis(200))),
            watchdog: Some(sculpt_proto::to_duration(Duration::from_secs(5))),
        };
        drop(memory);
        vec![control_response::Part::Welcome(welcome), self.desired(true)]
    }

    fn desired(&self, full: bool) -> control_response::Part {
        let memory = self.memory.lock().unwrap();
        let attempts = memory.desired.iter().map(|(id, phase)| DesiredAttempt {
            attempt_id: id.clone(),
            spec_digest: sculpt_executor::spec::digest(&memory.specs[id]).to_vec(),
            phase: (*phase).into(),
            ..DesiredAttempt::default()
        });
        let attempts = attempts.collect();
        control_response::Part::Desired(Desired {
            full,
            last: true,
            attempts,
            released: memory.released.clone(),
            adopted: memory.adopted.clone(),
        })
    }

    fn take(&self, report: Report) -> control_response::Part {
        let mut memory = self.memory.lock().unwrap();
        let attempt_id = report.attempt_id.clone();
        if !memory.specs.contains_key(&attempt_id) {
            let refusal = Refusal::UnknownAttempt.into();
            return control_response::Part::ReportAck(ReportAck { attempt_id, refusal, ..ReportAck::default() });
        }
        let reports = memory.reports.entry(attempt_id.clone()).or_default();
        let through = reports.len() as u64;
        let published = memory.published.get(&attempt_id).map(|header| header.head.clone());
        let names_another = |step: &report::Step| match step {
            report::Step::Ended(ended) => !ended.head.is_empty() && Some(&ended.head) != published.as_ref(),
            _ => false,
        };
        if report.sequence == through + 1 && report.step.as_ref().is_some_and(names_another) {
            let refusal = Refusal::Illegal.into();
            return control_response::Part::ReportAck(ReportAck {
                attempt_id,
                through,
                refusal,
                ..ReportAck::default()
            });
        }
        let reports = memory.reports.entry(attempt_id.clone()).or_default();
        let refusal = if report.sequence > through + 1 { Refusal::Gap } else { Refusal::Unspecified };
        if report.sequence == through + 1 {
            reports.push(report);
        }
        let through = reports.len() as u64;
        let refusal = refusal.into();
        control_response::Part::ReportAck(ReportAck { attempt_id, through, refusal, text: String::new() })
    }
}

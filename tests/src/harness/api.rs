//! The gRPC API as another program uses it, and waiting on its streams.

use anyhow::{Context as _, Result, bail};
use sculpt_proto::v1::{
    AuditEntry, ReadAuditRequest, ReadLogRequest, Task, WatchTaskRequest, audit_client::AuditClient,
    events_client::EventsClient, executors_client::ExecutorsClient, git_client::GitClient, logs_client::LogsClient,
    pairings_client::PairingsClient, projects_client::ProjectsClient, read_log_response::Part,
    system_client::SystemClient, tasks_client::TasksClient,
};
use sculpt_tls::Trust;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{DEADLINE, Stack, again, enrolment::dial, within};

/// Puts the token on every call.
#[derive(Clone, Debug)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Of this token.
    fn of(token: &str) -> Result<Self> {
        Ok(Self(format!("Bearer {token}").parse().context("make a header of the token")?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection on which every call carries a token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// One client per service, over one connection.
#[derive(Clone, Debug)]
pub struct Api {
    /// Tasks.
    pub tasks: TasksClient<Authorized>,
    /// Logs.
    pub logs: LogsClient<Authorized>,
    /// The journal.
    pub events: EventsClient<Authorized>,
    /// Who sits beside agents.
    pub pairings: PairingsClient<Authorized>,
    /// Projects.
    pub projects: ProjectsClient<Authorized>,
    /// Executors.
    pub executors: ExecutorsClient<Authorized>,
    /// Packs and diffs.
    pub git: GitClient<Authorized>,
    /// The record.
    pub audit: AuditClient<Authorized>,
    /// The controller about itself.
    pub system: SystemClient<Authorized>,
}

impl Api {
    /// Connects on first use to who is certified by `trust`, and again whenever the connection was lost.
    pub fn dial(url: String, trust: Trust, token: &str) -> Result<Self> {
        let channel = dial(url, trust, None)?;
        let bearer = Bearer::of(token)?;
        let service = || InterceptedService::new(channel.clone(), bearer.clone());
        Ok(Self {
            tasks: TasksClient::new(service()),
            logs: LogsClient::new(service()),
            events: EventsClient::new(service()),
            pairings: PairingsClient::new(service()),
            projects: ProjectsClient::new(service()),
            executors: ExecutorsClient::new(service()),
            git: GitClient::new(service()),
            audit: AuditClient::new(service()),
            system: SystemClient::new(service()),
        })
    }
}

impl Stack {
    /// The API with the person's token.
    pub async fn api(&self) -> Result<Api> {
        Api::dial(self.url()?, self.trust()?, &self.token()?)
    }

    /// Follows `task` until it is as wished; outages of the controller are waited out.
    pub async fn until(&self, task: &str, what: &str, wished: impl Fn(&Task) -> bool) -> Result<Task> {
        // Again only after an outage, which nothing announces the end of.
        again(DEADLINE, &format!("task {task}: {what}"), async || match self.watch(task, &wished).await {
            Ok(found) => Ok(found),
            Err(error) => outage(error).map(|()| None),
        })
        .await
    }

    /// Follows the record until `action` stands in it.
    pub async fn recorded(&self, action: &str) -> Result<AuditEntry> {
        let request = ReadAuditRequest { follow: true, actions: vec![action.to_owned()], ..Default::default() };
        within(DEADLINE, &format!("{action} in the record"), async {
            let mut entries = self.api().await?.audit.read_audit(request).await?.into_inner();
            while let Some(message) = entries.message().await? {
                if let Some(found) = message.entries.into_iter().next() {
                    return Ok(found);
                }
            }
            bail!("the record has ended");
        })
        .await
    }

    async fn watch(&self, task: &str, wished: impl Fn(&Task) -> bool) -> Result<Option<Task>> {
        let mut api = self.api().await?;
        let mut stream = api.tasks.watch_task(WatchTaskRequest { task: task.to_owned() }).await?.into_inner();
        while let Some(message) = stream.message().await? {
            let found = message.task.context("a task in each message")?;
            if wished(&found) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Follows the log of `task` until it is as wished or complete; outages of the controller are waited out.
    pub async fn log_until(&self, task: &str, what: &str, wished: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut log = Vec::new();
        again(DEADLINE, &format!("the log of task {task}: {what}"), async || {
            match self.read_on(task, &mut log, &wished).await {
                Ok(done) => Ok(done.then_some(())),
                Err(error) => outage(error).map(|()| None),
            }
        })
        .await?;
        Ok(log)
    }

    /// Reads from the end of `log` on; true when it is as wished.
    async fn read_on(&self, task: &str, log: &mut Vec<u8>, wished: impl Fn(&[u8]) -> bool) -> Result<bool> {
        if wished(log) {
            return Ok(true);
        }
        let mut api = self.api().await?;
        let request = ReadLogRequest { task: task.to_owned(), attempt: 0, from_offset: log.len() as u64, follow: true };
        let mut stream = api.logs.read_log(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            match message.part.context("a part in each message")? {
                Part::Chunk(chunk) if chunk.offset == log.len() as u64 => log.extend_from_slice(&chunk.data),
                Part::Chunk(chunk) => bail!("a chunk at {} where {} was next", chunk.offset, log.len()),
                Part::End(end) if end.complete => bail!("the log is complete, but: {}", wished(log)),
                Part::End(_) => return Ok(false),
            }
            if wished(log) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Passes what is only an outage.
fn outage(error: anyhow::Error) -> Result<()> {
    use tonic::Code;
    match error.downcast_ref::<Status>().map(Status::code) {
        Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted) => Ok(()),
        _ => Err(error),
    }
}

//! Tasks: made, looked at, followed, stopped, tried again.

use futures_util::stream;
use prost::Message as _;
use sculpt_core::placement::AgentNeed;
use sculpt_proto::{
    FieldError,
    id::{ProjectId, TaskId},
    labels, required, v1,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::{
    Api, POLL, Replies,
    brief::brief,
    caller, convert, cursor, request_id,
    spec::{self, Wish},
    waiting::listed,
};
use crate::{
    access::{Caller, On, Read, Sees, Steer},
    dispatch::{Dispatch, DispatchError, Wish as Steering},
    store::{
        StoreError,
        executors::Executor,
        projects::Project,
        requests::{self, RequestError, Taken, take_request},
        tasks::{NewTask, Start},
        tasks_read::{Filter, View},
    },
};

/// Most bytes of a page, well below what a message may have.
const PAGE_BYTES: usize = 2 << 20;

#[tonic::async_trait]
impl v1::tasks_server::Tasks for Api {
    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let id = request_id(&message.request_id)?;
        let spec = required(message.spec, "spec")?;
        let request = requests::Request { id, method: "CreateTask", digest: spec::digest(&spec) };
        let wish = Wish::try_from(spec)?;
        // What was made once is answered whatever has changed since.
        let task = match self.store.repeated(&request).await? {
            Some(done) => TaskId(done),
            None => {
                let (start, new) = self.new_task(&caller, wish).await?;
                let (task, fresh) = self.store.create_task(start, request, new).await?;
                if fresh {
                    self.bus.journal();
                    self.bus.place();
                }
                task
            }
        };
        sculpt_failpoints::pass("task.before_answer");
        let task = self.readable(&caller, &task.to_string()).await?;
        Ok(Response::new(v1::CreateTaskResponse { task: Some(self.shown(&task).await?) }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let caller = caller(&request)?;
        let task = self.readable(&caller, &request.into_inner().task).await?;
        Ok(Response::new(v1::GetTaskResponse { task: Some(self.shown(&task).await?) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let sees = caller(&request)?.sees();
        let message = request.into_inner();
        let limit = cursor::page_size(message.page_size);
        let filter = self.filter(&sees, message).await?;
        // One more than asked for tells whether there is another page.
        let (view, place) = self.store.list_tasks(&sees, &filter, limit + 1).await?;
        let (tasks, next_page_token) = page(self.open_to(view), limit as usize);
        let cursor = cursor::cursor(self.about.cluster, place);
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token, cursor }))
    }

    type WatchTaskStream = Replies<v1::WatchTaskResponse>;

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let caller = caller(&request)?;
        let task = self.readable(&caller, &request.into_inner().task).await?;
        let watch = Watch { api: self.clone(), task, moved: self.bus.journal_moved(), seen: None };
        let replies = stream::try_unfold(watch, |mut watch| async move {
            let task = watch.next().await?;
            Ok(Some((v1::WatchTaskResponse { task: Some(task) }, watch)))
        });
        Ok(Response::new(self.replies(replies)))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        if message.reason.len() > 4096 {
            return Err(FieldError::new("reason", "has more than 4096 bytes").into());
        }
        let steered = Steered {
            request: message.request_id,
            task: message.task,
            expected: message.expected_revision,
            reason: message.reason,
        };
        let task = self.steer_once(&caller, Steering::Stop, steered).await?;
        Ok(Response::new(v1::StopTaskResponse { task: Some(task) }))
    }

    async fn retry_task(
        &self,
        request: Request<v1::RetryTaskRequest>,
    ) -> Result<Response<v1::RetryTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let wish = if message.in_workspace { Steering::RetryInWorkspace } else { Steering::Retry };
        let steered = Steered {
            request: message.request_id,
            task: message.task,
            expected: message.expected_revision,
            reason: String::new(),
        };
        let task = self.steer_once(&caller, wish, steered).await?;
        Ok(Response::new(v1::RetryTaskResponse { task: Some(task) }))
    }

    async fn describe_task(
        &self,
        request: Request<v1::DescribeTaskRequest>,
    ) -> Result<Response<v1::DescribeTaskResponse>, Status> {
        let caller = caller(&request)?;
        let task = self.describe_once(&caller, request.into_inner()).await?;
        Ok(Response::new(v1::DescribeTaskResponse { task: Some(task) }))
    }
}

/// A wish for a task, as it was sent.
struct Steered {
    request: String,
    task: String,
    expected: u64,
    reason: String,
}

/// A follower of one task.
struct Watch {
    api: Api,
    task: On<Read>,
    moved: tokio::sync::watch::Receiver<u64>,
    /// The revision that was sent last.
    seen: Option<i64>,
}

impl Watch {
    /// The task as it is, once its revision differs from the one sent last.
    async fn next(&mut self) -> Result<v1::Task, Status> {
        loop {
            // Before the query: what happens meanwhile wakes the next wait.
            self.moved.mark_unchanged();
            let revision = self.api.store.task_revision(&self.task).await?;
            if revision != self.seen || revision.is_none() {
                let task = self.api.shown(&self.task).await?;
                self.seen = Some(i64::try_from(task.revision).unwrap_or(i64::MAX));
                return Ok(task);
            }
            tokio::select! {
                changed = self.moved.changed() => changed.map_err(|_| super::status::shutting_down())?,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

impl Api {
    /// A task as people see it.
    pub(super) async fn shown(&self, task: &On<Read>) -> Result<v1::Task, Status> {
        let view = self.store.task(task).await?;
        let task = view.and_then(|view| convert::tasks(self.open_to(view)).pop());
        task.ok_or_else(|| Status::not_found("the task has been removed"))
    }

    /// The task that a caller means, if they see it.
    pub(super) async fn readable(&self, caller: &Caller, task: &str) -> Result<On<Read>, Status> {
        Ok(caller.on(&self.store.find_task(&caller.sees(), task).await?)?)
    }

    /// Moves a task by a person's wish, once per request id, and shows it.
    async fn steer_once(&self, caller: &Caller, wish: Steering, steered: Steered) -> Result<v1::Task, Status> {
        let Steered { request, task, expected, reason } = steered;
        let id = request_id(&request)?;
        let located = self.store.find_task(&caller.sees(), &task).await?;
        let may: On<Steer> = caller.on(&located)?;
        let mut hash = Sha256::new();
        hash.update(may.task().0.as_bytes());
        hash.update(expected.to_be_bytes());
        hash.update(&reason);
        let method = match wish {
            Steering::Stop => "StopTask",
            Steering::Retry => "RetryTask",
            Steering::RetryInWorkspace => {
                hash.update("in_workspace");
                "RetryTask"
            }
        };
        let request = requests::Request { id, method, digest: hash.finalize().into() };
        let expected = (expected > 0).then_some(expected);
        let moved = self
            .store
            .write(move |conn| {
                Box::pin(async move {
                    match take_request(conn, &request, may.task().0).await? {
                        Taken::Done(_) => Ok(None),
                        Taken::Fresh => {
                            let moved = Dispatch::steer_in(conn, &may, expected, wish, &reason).await?;
                            Ok::<_, MoveError>(Some(moved))
                        }
                    }
                })
            })
            .await?;
        if let Some(moved) = &moved {
            self.dispatch.after_commit(moved);
        }
        self.shown(&caller.on(&located)?).await
    }

    /// `wish` with everything that it names, which must be there.
    async fn new_task(&self, caller: &Caller, mut wish: Wish) -> Result<(Start, NewTask), Status> {
        let mut project = None;
        let start = match wish.base.take() {
            None => Start::WithoutProject(caller.may()?),
            Some((name, commit)) => {
                let found = self.store.project(&caller.sees(), &name).await?;
                let may = caller.within(&found)?;
                self.known_base(&found, &commit).await?;
                wish.spec.project = found.id.to_string();
                project = Some(found);
                Start::At(may, commit)
            }
        };
        wish.spec.requester = Some(self.author(caller, wish.spec.requester.take()).await?);
        let executors = self.store.executors(&caller.sees()).await?;
        if !executors.is_empty() && !executors.iter().any(|executor| executor.pool == wish.pool) {
            let there = listed(executors.iter().map(|executor| executor.pool.as_str()));
            let problem = format!("no executor is in a pool {:?}; there are: {there}", wish.pool);
            return Err(FieldError::new("spec.pool", problem).into());
        }
        let agent = agent(&wish, project.as_ref(), &executors)?;
        let new = NewTask {
            base: None,
            needs: wish.needs(agent),
            spec: wish.spec.encode_to_vec(),
            brief: brief(&wish.spec).map(|brief| brief.encode_to_vec()),
            title: wish.title,
            labels: wish.labels,
            priority: wish.spec.priority,
            created_by: caller.name().to_owned(),
            policy: wish.policy,
        };
        Ok((start, new))
    }

    async fn known_base(&self, project: &Project, commit: &str) -> Result<(), Status> {
        let present = self.repositories.has_commits(project.id(), &[commit.to_owned()]).await?;
        if present.iter().any(|present| present == commit) {
            return Ok(());
        }
        let problem = format!(
            "the controller does not have commit {commit} of project {}; send it first (`sculpt run` does)",
            project.name
        );
        Err(FieldError::new("spec.base", problem).into())
    }

    async fn filter(&self, sees: &Sees, message: v1::ListTasksRequest) -> Result<Filter, Status> {
        let mut states = Vec::new();
        for state in message.states {
            let known = v1::TaskState::try_from(state).ok().and_then(convert::state_name);
            states.push(known.ok_or_else(|| FieldError::new("states", format!("{state} is not a state")))?);
        }
        let below =
            cursor::page(&message.page_token)?.map(|token| FieldError::parse(&token, "page_token")).transpose()?;
        let project: Option<ProjectId> = match message.project.as_str() {
            "" => None,
            name => Some(self.store.project(sees, name).await?.id()),
        };
        Ok(Filter {
            states,
            project,
            created_by: (!message.created_by.is_empty()).then_some(message.created_by),
            labels: labels(message.labels, "labels")?,
            below,
        })
    }
}

impl Api {
    /// `view` with executors that get no work while the controller itself has no room for what it brings.
    fn open_to(&self, mut view: View) -> View {
        if let Some(why) = self.about.room.closed() {
            view.executors.iter_mut().for_each(|executor| executor.closed = Some(why.clone()));
        }
        view
    }
}

/// The first tasks of `view`, within the limits of a page, and the token of the next.
fn page(view: View, limit: usize) -> (Vec<v1::Task>, String) {
    let all = convert::tasks(view);
    let total = all.len();
    let mut bytes = 0;
    let within = |(at, task): &(usize, v1::Task)| {
        bytes += task.encoded_len();
        *at < limit && (*at == 0 || bytes <= PAGE_BYTES)
    };
    let tasks: Vec<_> = all.into_iter().enumerate().take_while(within).map(|(_, task)| task).collect();
    let more = tasks.len() < total;
    let next = tasks.last().filter(|_| more).map(|last| cursor::page_token(&last.number.to_string()));
    (tasks, next.unwrap_or_default())
}

/// Which agent the task needs; refused when no executor that is known has it.
fn agent(wish: &Wish, project: Option<&Project>, executors: &[Executor]) -> Result<AgentNeed, FieldError> {
    if !wish.prompt {
        return Ok(AgentNeed::None);
    }
    let of_project = project.map(|project| project.default_agent.as_str()).unwrap_or_default();
    let name = if wish.spec.agent.is_empty() { of_project } else { &wish.spec.agent };
    let known = || {
        let known = listed(executors.iter().flat_map(|executor| executor.agents.iter().map(String::as_str)));
        if known.is_empty() { "none; define one in the executor's TOML".to_owned() } else { known }
    };
    if name.is_empty() {
        if executors.is_empty() || executors.iter().any(|executor| executor.default_agent.is_some()) {
            return Ok(AgentNeed::Default);
        }
        let problem =
            format!("none was named, and neither project nor executor has a default; agents there are: {}", known());
        return Err(FieldError::new("spec.agent", problem));
    }
    if executors.is_empty() || executors.iter().any(|executor| executor.agents.iter().any(|agent| agent == name)) {
        return Ok(AgentNeed::Named(name.to_owned()));
    }
    Err(FieldError::new("spec.agent", format!("no executor has an agent {name:?}; agents there are: {}", known())))
}

/// Why a wished move did not happen.
pub(super) enum MoveError {
    Request(RequestError),
    Dispatch(DispatchError),
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Dispatch(error.into())
    }
}

impl From<RequestError> for MoveError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<DispatchError> for MoveError {
    fn from(error: DispatchError) -> Self {
        Self::Dispatch(error)
    }
}

impl From<MoveError> for Status {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Request(error) => error.into(),
            MoveError::Dispatch(error) => error.into(),
        }
    }
}

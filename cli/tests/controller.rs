//! A scripted controller on a real socket: it remembers what it was sent and breaks where it is told to.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use rustls::ServerConfig;

use sculpt_proto::v1::{
    executors_server::ExecutorsServer,
    git_server::{Git, GitServer},
    identity_server::IdentityServer,
    logs_server::{Logs, LogsServer},
    pairings_server::PairingsServer,
    projects_server::{Projects, ProjectsServer},
    read_log_response::Part as LogPart,
    send_pack_request::Part as PackPart,
    system_server::SystemServer,
    tasks_server::{Tasks, TasksServer},
    *,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{
    Request, Response, Status, Streaming,
    service::{Routes, interceptor::InterceptedService},
};

use crate::{
    authority::{Authority, bundle, listen},
    identity::Book,
    pairing::desk::Desk,
    sandbox::Sandbox,
};

pub(crate) const PROJECT: &str = "0198c0de-0000-7000-8000-00000000000a";

/// What the controller does and what it was told.
pub(crate) struct Script {
    pub(crate) task: watch::Sender<Task>,
    pub(crate) log: Mutex<Vec<u8>>,
    /// What is known of the log's bytes, while they are one chunk.
    pub(crate) frames: Mutex<Vec<LogFrame>>,
    /// Nothing will be added to the log.
    pub(crate) complete: Mutex<bool>,
    /// What is answered to who asks for a log.
    pub(crate) no_log: Mutex<Option<Status>>,
    /// Bytes after which each next log stream breaks.
    pub(crate) breaks: Mutex<VecDeque<usize>>,
    /// How many creations are lost on the way back.
    pub(crate) lost_answers: Mutex<u32>,
    pub(crate) created: Mutex<Vec<CreateTaskRequest>>,
    pub(crate) ensured: Mutex<Vec<EnsureProjectRequest>>,
    pub(crate) packs: Mutex<Vec<usize>>,
    /// A bare repository that takes the packs.
    pub(crate) store: PathBuf,
    pub(crate) known_project: Mutex<bool>,
    /// The one token that is good, and what is said of others.
    pub(crate) token: String,
    pub(crate) refused: Mutex<HashMap<String, &'static str>>,
    /// What everybody is told who calls here by mistake.
    pub(crate) elsewhere: Mutex<Option<&'static str>>,
    /// The authorities that it names.
    pub(crate) trust: Mutex<String>,
    /// Whether it says to have a public certificate.
    pub(crate) public: Mutex<bool>,
    pub(crate) book: Book,
    pub(crate) desk: Desk,
}

/// A running controller; it ends with the test.
pub(crate) struct Controller {
    pub(crate) script: Arc<Script>,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    /// What the listener shows to who calls next.
    pub(crate) shown: watch::Sender<Arc<ServerConfig>>,
    _serving: JoinSet<()>,
}

impl Controller {
    /// A controller with one task, and a person who is signed in to it.
    pub(crate) async fn known(task: Task) -> (Sandbox, Self) {
        let sandbox = Sandbox::new();
        let controller = Self::start(&sandbox.path("store.git"), task).await;
        sandbox.context(&controller.url(), &controller.script.token);
        (sandbox, controller)
    }

    /// A controller with one task, and a store in this directory.
    pub(crate) async fn start(store: &Path, task: Task) -> Self {
        let made = Command::new("git").args(["init", "-q", "--bare"]).arg(store).status().unwrap();
        assert!(made.success());
        let authority = Authority::fresh();
        let script = Arc::new(Script {
            task: watch::Sender::new(task),
            log: Mutex::default(),
            frames: Mutex::default(),
            complete: Mutex::new(true),
            no_log: Mutex::default(),
            breaks: Mutex::default(),
            lost_answers: Mutex::default(),
            created: Mutex::default(),
            ensured: Mutex::default(),
            packs: Mutex::default(),
            store: store.to_owned(),
            known_project: Mutex::default(),
            token: authority.token(),
            refused: Mutex::default(),
            elsewhere: Mutex::default(),
            trust: Mutex::new(bundle(&[&authority])),
            public: Mutex::default(),
            book: Book::default(),
            desk: Desk::default(),
        });
        let check = {
            let script = Arc::clone(&script);
            move |request: Request<()>| script.check(request)
        };
        let routes = Routes::new(InterceptedService::new(TasksServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(LogsServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(ProjectsServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(ExecutorsServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(IdentityServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(PairingsServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(SystemServer::from_arc(Arc::clone(&script)), check.clone()))
            .add_service(InterceptedService::new(GitServer::from_arc(Arc::clone(&script)), check));
        let shown = watch::Sender::new(authority.controller());
        let (address, serving) = listen(shown.subscribe(), routes).await;
        Self { script, address, authority, shown, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Script {
    /// Lets in who shows the token.
    fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(why) = *self.elsewhere.lock().unwrap() {
            return Err(Status::unimplemented(why));
        }
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let shown = shown.strip_prefix("Bearer ").unwrap_or_default();
        if shown == self.token {
            return Ok(request);
        }
        let why = self.refused.lock().unwrap().get(shown).copied();
        Err(Status::unauthenticated(why.unwrap_or("the token is not one of this controller")))
    }
}

pub(crate) type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Tasks for Script {
    type WatchTaskStream = Answers<WatchTaskResponse>;

    async fn create_task(&self, request: Request<CreateTaskRequest>) -> Answer<CreateTaskResponse> {
        self.created.lock().unwrap().push(request.into_inner());
        let mut lost = self.lost_answers.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Status::unavailable("The database is away."));
        }
        Ok(Response::new(CreateTaskResponse { task: Some(self.task.borrow().clone()) }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<GetTaskResponse> {
        let task = self.task.borrow().clone();
        let wanted = request.into_inner().task;
        if wanted != task.number.to_string() && wanted != task.uuid {
            return Err(Status::not_found(format!("There is no task {wanted}.")));
        }
        Ok(Response::new(GetTaskResponse { task: Some(task) }))
    }

    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let tasks = vec![self.task.borrow().clone()];
        Ok(Response::new(ListTasksResponse { tasks, ..ListTasksResponse::default() }))
    }

    async fn watch_task(&self, _: Request<WatchTaskRequest>) -> Answer<Self::WatchTaskStream> {
        let changes = WatchStream::new(self.task.subscribe()).map(|task| Ok(WatchTaskResponse { task: Some(task) }));
        Ok(Response::new(Box::pin(changes)))
    }

    async fn stop_task(&self, _: Request<StopTaskRequest>) -> Answer<StopTaskResponse> {
        Err(Status::failed_precondition("Task 17 is completed and cannot be stopped."))
    }

    async fn retry_task(&self, _: Request<RetryTaskRequest>) -> Answer<RetryTaskResponse> {
        Ok(Response::new(RetryTaskResponse { task: Some(self.task.borrow().clone()) }))
    }

    async fn describe_task(&self, _: Request<DescribeTaskRequest>) -> Answer<DescribeTaskResponse> {
        Ok(Response::new(DescribeTaskResponse { task: Some(self.task.borrow().clone()) }))
    }
}

#[tonic::async_trait]
impl Logs for Script {
    type ReadLogStream = Answers<ReadLogResponse>;

    async fn read_log(&self, request: Request<ReadLogRequest>) -> Answer<Self::ReadLogStream> {
        let request = request.into_inner();
        if let Some(status) = self.no_log.lock().unwrap().clone() {
            return Err(status);
        }
        let log = self.log.lock().unwrap().clone();
        let frames = self.frames.lock().unwrap().clone();
        let from = usize::try_from(request.from_offset).unwrap().min(log.len());
        let cut = self.breaks.lock().unwrap().pop_front();
        let until = cut.map_or(log.len(), |cut| (from + cut).min(log.len()));
        // Chunks begin below what was asked for, as a sealed segment may.
        let mut answers: Vec<_> = log[..until]
            .chunks(1000)
            .enumerate()
            .map(|(index, data)| ((index * 1000), data))
            .filter(|(offset, data)| offset + data.len() > from)
            .map(|(offset, data)| {
                let chunk = LogChunk { offset: offset as u64, data: data.to_vec().into(), frames: frames.clone() };
                Ok(ReadLogResponse { part: Some(LogPart::Chunk(chunk)), attempt: 1 })
            })
            .collect();
        if cut.is_some() {
            answers.push(Err(Status::unavailable("The controller is going away.")));
        } else {
            let end = LogEnd { length: log.len() as u64, complete: *self.complete.lock().unwrap() };
            answers.push(Ok(ReadLogResponse { part: Some(LogPart::End(end)), attempt: 1 }));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }
}

#[tonic::async_trait]
impl Projects for Script {
    async fn ensure_project(&self, request: Request<EnsureProjectRequest>) -> Answer<EnsureProjectResponse> {
        let request = request.into_inner();
        let project = Project {
            uuid: PROJECT.into(),
            name: request.name.clone(),
            root_commit: request.root_commit.clone(),
            remote: request.remote.clone(),
            git_path: format!("/git/{PROJECT}.git"),
            ..Project::default()
        };
        let created = !std::mem::replace(&mut *self.known_project.lock().unwrap(), true);
        self.ensured.lock().unwrap().push(request);
        Ok(Response::new(EnsureProjectResponse { project: Some(project), created, restored: false }))
    }

    async fn list_projects(&self, _: Request<ListProjectsRequest>) -> Answer<ListProjectsResponse> {
        Ok(Response::new(ListProjectsResponse::default()))
    }

    async fn remove_project(&self, _: Request<RemoveProjectRequest>) -> Answer<RemoveProjectResponse> {
        Err(Status::not_found("There is no such project."))
    }
}

#[tonic::async_trait]
impl Git for Script {
    type DiffStream = Answers<DiffResponse>;

    async fn find_commits(&self, request: Request<FindCommitsRequest>) -> Answer<FindCommitsResponse> {
        if !*self.known_project.lock().unwrap() {
            return Err(Status::not_found("There is no such project."));
        }
        let has = |commit: &String| {
            let commit = format!("{commit}^{{commit}}");
            Command::new("git")
                .arg("-C")
                .arg(&self.store)
                .args(["cat-file", "-e", &commit])
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        let present = request.into_inner().commits.into_iter().filter(has).collect();
        Ok(Response::new(FindCommitsResponse { present }))
    }

    async fn send_pack(&self, request: Request<Streaming<SendPackRequest>>) -> Answer<SendPackResponse> {
        let mut stream = request.into_inner();
        let mut tip = String::new();
        let mut pack = Vec::new();
        while let Some(SendPackRequest { part }) = stream.message().await? {
            match part {
                Some(PackPart::Header(header)) => tip = header.tip,
                Some(PackPart::Data(data)) => pack.extend_from_slice(&data),
                None => {}
            }
        }
        let path = self.store.join("incoming.pack");
        std::fs::write(&path, &pack).unwrap();
        let git = |args: &[&str], input: Stdio| {
            let status = Command::new("git")
                .arg("-C")
                .arg(&self.store)
                .args(args)
                .stdin(input)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "git {args:?}");
        };
        let input = std::fs::File::open(&path).unwrap();
        git(&["index-pack", "--stdin", "--fix-thin", "--strict"], input.into());
        // Everything that the tip needs is here now.
        git(&["rev-list", "--objects", "--quiet", &tip], Stdio::null());
        self.packs.lock().unwrap().push(pack.len());
        Ok(Response::new(SendPackResponse { objects: 0 }))
    }

    async fn diff(&self, _: Request<DiffRequest>) -> Answer<Self::DiffStream> {
        Err(Status::failed_precondition("Task 17 has published no commit."))
    }
}

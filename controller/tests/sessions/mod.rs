//! The executor protocol over in-memory streams, with a scripted executor and a real Postgres.

mod adopt;
mod control;
mod directories;
pub(crate) mod executor;
mod fences;
mod leases;
mod locks;
mod logs;
mod lost;
mod milestones;
mod placement;
mod publish;
mod restored;
mod seats;
mod space;
mod workspace;

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use sculpt_controller::{
    background::place,
    blobs::Blobs,
    bus::Bus,
    dispatch::Dispatch,
    git::{GitSettings, Repositories},
    grpc::logs::LogsApi,
    session::{ExecutorApi, Sessions, control::Context, who::Who},
    store::Store,
};
use sculpt_proto::{
    executor::v1::executor_service_client::ExecutorServiceClient, id::ClusterId, v1::logs_client::LogsClient,
};
use tokio::task::JoinSet;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{
    Request,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server, Uri},
};

use crate::harness::{self, Authorised, Fresh};

/// A controller without listeners and without duties.
pub(crate) struct Stack {
    pub(crate) store: Store,
    pub(crate) dispatch: Dispatch,
    pub(crate) sessions: Sessions,
    pub(crate) cluster: ClusterId,
    pub(crate) blobs: Blobs,
    pub(crate) stop: CancellationToken,
    pub(crate) repositories: Repositories,
    tracker: TaskTracker,
    /// Ended when dropped.
    servers: JoinSet<()>,
    pub(crate) directory: tempfile::TempDir,
    fresh: Fresh,
    /// Ends what goes on by itself, when dropped.
    _stops: DropGuard,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::over(harness::database().await, Blobs::over(Arc::new(object_store::memory::InMemory::new()))).await
    }

    /// The same database and its present copy, each with a controller of its own.
    pub(crate) async fn backup(self) -> (Self, Self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.store.close().await;
        let copy = self.fresh.copy().await;
        let blobs = self.blobs.clone();
        (Self::over(self.fresh, blobs.clone()).await, Self::over(copy, blobs).await)
    }

    async fn over(fresh: Fresh, blobs: Blobs) -> Self {
        let store = Store::new(&fresh.database, 8);
        let directory = tempfile::tempdir().unwrap();
        let repositories =
            Repositories::new(store.clone(), blobs.clone(), GitSettings::below(directory.path())).unwrap();
        let cluster = store.cluster().await.unwrap();
        let stop = CancellationToken::new();
        Self {
            dispatch: Dispatch::new(store.clone(), Bus::new()),
            store,
            sessions: Sessions::new(),
            cluster,
            blobs,
            repositories,
            tracker: TaskTracker::new(),
            servers: JoinSet::new(),
            directory,
            fresh,
            _stops: stop.clone().drop_guard(),
            stop,
        }
    }

    /// A connection to the executors' service.
    pub(crate) async fn executor_client(&mut self) -> ExecutorServiceClient<Authorised> {
        let context = Context {
            book: self.dispatch.clone(),
            sessions: self.sessions.clone(),
            cluster: self.cluster,
            authority: None,
            shutdown: self.stop.clone(),
        };
        let api = ExecutorApi::new(context, self.blobs.clone(), self.repositories.clone(), self.tracker.clone());
        // Whoever is at the other end is who they say: what proves it is tried over real listeners.
        let shown = InterceptedService::new(api.into_service(), |mut request: Request<()>| {
            request.extensions_mut().insert(Who::unasked());
            Ok(request)
        });
        let router = Server::builder().add_service(shown);
        ExecutorServiceClient::new(harness::authorised(self.connect(router).await, "of nobody"))
    }

    /// A connection to the people's service of logs.
    pub(crate) async fn logs_client(&mut self) -> LogsClient<Channel> {
        let (store, bus) = (self.store.clone(), self.dispatch.bus().clone());
        let api = LogsApi::new(store, bus, self.blobs.clone(), self.stop.clone());
        let ada = harness::admin(&self.store).await;
        let shown = InterceptedService::new(api.into_service(), move |mut request: Request<()>| {
            request.extensions_mut().insert(ada.clone());
            Ok(request)
        });
        let router = Server::builder().add_service(shown);
        LogsClient::new(self.connect(router).await)
    }

    /// Places what can be placed now.
    pub(crate) async fn place(&self) -> usize {
        place::place_all(&self.dispatch, self.cluster, &self.sessions.held()).await.unwrap().count
    }

    /// The one value that a statement gives.
    pub(crate) async fn value<T>(&self, sql: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(sql).fetch_one(&mut *self.store.read().await.unwrap()).await.unwrap()
    }

    /// Runs a statement.
    pub(crate) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut *self.store.read().await.unwrap()).await.unwrap();
    }

    async fn connect(&mut self, router: tonic::transport::server::Router) -> Channel {
        let (near, far) = tokio::io::duplex(64 << 10);
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
        self.servers.spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        let mut near = Some(near);
        let connector = tower::service_fn(move |_: Uri| {
            let near = near.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("it connects once"));
            std::future::ready(near)
        });
        Endpoint::from_static("http://memory").connect_with_connector(connector).await.unwrap()
    }
}

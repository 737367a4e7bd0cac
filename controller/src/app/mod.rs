//! The wiring: build, spawn, drain.

mod data_dir;
mod signals;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sculpt_proto::id::ClusterId;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, service::Routes};
use tonic_health::{
    pb::health_server::{self, HealthServer},
    server::{HealthReporter, HealthService},
};

pub use self::data_dir::{DataDir, DataDirError};
pub(crate) use self::signals::account;
use crate::{
    access::{self, Gate},
    background,
    blobs::Blobs,
    bus::Bus,
    config::{Config, DatabaseSetting},
    dispatch::Dispatch,
    git::Repositories,
    grpc::{About, Api, logs::LogsApi},
    pki::{Authority, Keeper, Pki, Shown, SshAuthorities},
    postgres::{Postgres, Settings},
    room::Room,
    session::{
        ExecutorApi, Present, Sessions, control,
        enrolment::EnrolmentApi,
        who::{self, Door},
    },
    store::{Database, Store, let_serve, migrate},
    web::{
        deadline, git_http,
        guesses::{self, Guesses},
        is_grpc,
        listen::{self, Limits},
    },
};

/// Longest wait for calls and sessions to end, out of the 5 s that a shutdown may take.
const DRAIN: Duration = Duration::from_millis(2500);

/// Longest wait for connections to the database to be handed back.
const CLOSE: Duration = Duration::from_millis(300);

/// Open files that are enough for full listeners and everything beside them.
const DESCRIPTORS: u64 = 16_384;

/// Connections to the database: of a private one nearly all that it takes. And those that tend its tables.
const CONNECTIONS_BUILT_IN: u32 = 48;
const CONNECTIONS_OF_OWNER: u32 = 2;
const CONNECTIONS_SHARED: u32 = 24;

/// Certificates of the trusted authorities, below the data directory; nothing secret.
const TRUST: &str = "trust.pem";

/// Runs the controller until it is told to end.
pub fn run(config: Config) -> anyhow::Result<()> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let served = runtime.block_on(async {
        let told = signals::ending(config.lifeline)?;
        let Some(controller) = Controller::start(config, &told).await? else { return Ok(()) };
        println!("{}", controller.ready());
        told.cancelled().await;
        tracing::info!("shutting down");
        controller.stop().await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

/// Makes room for as many connections as the listeners take, as far as the system lets us: a shell's soft limit of 1,024
/// would be used up by one flood, and nothing would be left for the database.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wished = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|now| now < wished)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wished), ..limit })
    {
        tracing::warn!(%error, wished, "cannot raise the limit of open files");
    }
}

/// `error` with its causes, each said once.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A controller that serves.
#[derive(Debug)]
pub struct Controller {
    data_dir: DataDir,
    ready: serde_json::Value,
    user: SocketAddr,
    executor: SocketAddr,
    store: Store,
    postgres: Option<Postgres>,
    ending: CancellationToken,
    tracker: TaskTracker,
}

/// Where the database is and whose it is.
struct Base {
    /// As who serves.
    database: Database,
    /// As who owns the tables.
    owner: Database,
    /// The private server, if it is ours.
    postgres: Option<Postgres>,
    /// For people.
    version: String,
}

/// What is served, before anybody is.
struct Parts {
    dispatch: Dispatch,
    /// With the rights of who owns the tables.
    tables: Store,
    access: access::Authority,
    blobs: Blobs,
    repositories: Repositories,
    sessions: Sessions,
    health: HealthReporter,
    room: Room,
    cluster: ClusterId,
    ending: CancellationToken,
    tracker: TaskTracker,
}

impl Controller {
    /// Starts everything; `None` when `told` to end before that was done.
    pub async fn start(config: Config, told: &CancellationToken) -> anyhow::Result<Option<Self>> {
        // First what can be refused at once; the kernel lets callers wait until there is somebody to answer.
        let user_listener = listen::bind(config.listen).await?;
        let executor_listener = listen::bind(config.executor_listen).await?;
        let (user, executor) = (user_listener.local_addr()?, executor_listener.local_addr()?);
        let data_dir = DataDir::take(&config.data_dir)?;
        let (keeper, pki) = Keeper::open(config.tls.clone())?;
        // Made with the others, so that what is put away of them is whole; pairing uses them.
        SshAuthorities::open(&config.tls.authority)?;
        let pin = config.tls.public.is_none().then(|| pki.authority.borrow().pin());
        let base = tokio::select! {
            base = base(&config, &data_dir) => base?,
            () = told.cancelled() => return Ok(None),
        };
        let connections = if base.postgres.is_some() { CONNECTIONS_BUILT_IN } else { CONNECTIONS_SHARED };
        let store = Store::new(&base.database, connections);
        let built = tokio::select! {
            built = build(&config, &data_dir, &base, &store, &pki, executor) => built.map(Some),
            () = told.cancelled() => Ok(None),
        };
        let (parts, user_routes) = match built {
            Ok(Some(parts)) => parts,
            unbuilt => {
                end_database(&store, base.postgres).await;
                return unbuilt.map(|_| None);
            }
        };
        access::first_admin(&store, &data_dir.join("tokens/user"), pin, &signals::account())
            .await
            .context("make the first admin")?;
        let ready = json!({
            "ready": true,
            "user_url": format!("https://{user}"),
            "executor_url": format!("https://{executor}"),
            "trust": data_dir.join(TRUST),
            "cluster_id": parts.cluster,
            "postgres": base.version,
        });
        let mut announced = ready.clone();
        announced["pid"] = std::process::id().into();
        let (ending, tracker) = (parts.ending.clone(), parts.tracker.clone());
        duties(&parts, &config, base.postgres.is_none());
        let timely = user_routes.layer(middleware::from_fn(deadline::bounded));
        let guesses = Guesses::default();
        let people = middleware::from_fn_with_state(Gate::new(parts.access.clone(), guesses.clone()), access::enter);
        spawn(&parts, user_listener, pki.people, timely.fallback(nothing_here).layer(people));
        let counted = middleware::from_fn_with_state(guesses, guesses::counted);
        let executors = executor_routes(&parts, pki.authority.clone(), config.certificate_life).layer(counted);
        spawn(&parts, executor_listener, pki.executors, executors);
        keep_trust(&data_dir.join(TRUST), &pki.authority.borrow()).context("write down whom to trust")?;
        parts.tracker.spawn(trust_file(data_dir.join(TRUST), pki.authority));
        parts.tracker.spawn(keeper.run(parts.ending.clone()));
        data_dir.announce(&announced)?;
        Ok(Some(Self { data_dir, ready, user, executor, store, postgres: base.postgres, ending, tracker }))
    }

    /// The line that says that it serves.
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    /// Where people and tools call.
    pub fn user_address(&self) -> SocketAddr {
        self.user
    }

    /// Where executors call.
    pub fn executor_address(&self) -> SocketAddr {
        self.executor
    }

    /// Its database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ends sessions and streams, waits for calls, then ends the private database.
    pub async fn stop(self) {
        self.ending.cancel();
        self.tracker.close();
        if timeout(DRAIN, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "calls or duties have not ended in time and are cut");
        }
        self.data_dir.retract();
        end_database(&self.store, self.postgres).await;
    }
}

async fn end_database(store: &Store, postgres: Option<Postgres>) {
    if timeout(CLOSE, store.close()).await.is_err() {
        tracing::debug!("connections to the database are still in use");
    }
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
}

/// The database that the settings name, reached.
async fn base(config: &Config, data_dir: &DataDir) -> anyhow::Result<Base> {
    match &config.database {
        DatabaseSetting::BuiltIn => {
            let postgres = Postgres::start(&data_dir.join("postgres"), Settings::default()).await?;
            let version = format!("{} (built-in)", postgres.version());
            let (database, owner) = (postgres.service(), postgres.database().clone());
            Ok(Base { database, owner, postgres: Some(postgres), version })
        }
        DatabaseSetting::Url { service, owner } => {
            let database = Database::at_url(service).context("the database URL is not one")?;
            let owner = owner.as_deref().map(Database::at_url).transpose();
            let owner = owner.context("the maintenance database URL is not one")?.unwrap_or_else(|| database.clone());
            let version = database.version().await.with_context(|| {
                format!(
                    "cannot use the database at {database}, which --database-url, DATABASE_URL or the config file names. \
                     See that its server runs and takes this user and password, then start again; without a URL sculpt \
                     runs a Postgres of its own"
                )
            })?;
            Ok(Base { database, owner, postgres: None, version: version.1 })
        }
    }
}

async fn build(
    config: &Config,
    data_dir: &DataDir,
    base: &Base,
    store: &Store,
    pki: &Pki,
    executors: SocketAddr,
) -> anyhow::Result<(Parts, Router)> {
    migrate(&base.owner).await?;
    let_serve(&base.owner, &base.database).await?;
    if let Some(power) = store.power_over_record().await.context("ask what the database's role may do")? {
        tracing::warn!(
            "the database's role {power}, so it could change the audit record; give a role of its own with --database-url, \
             and the owner of the tables with --maintenance-database-url"
        );
    }
    let tables = Store::new(&base.owner, CONNECTIONS_OF_OWNER);
    background::maintenance::once(&tables, config.event_days)
        .await
        .context("make the partitions of the journal and of logs")?;
    let cluster = store.cluster().await.context("read the cluster's id")?;
    let room = Room::default();
    let blobs = Blobs::at_directory(&data_dir.join("blobs")).context("open the blob store")?.within(room.clone());
    let repositories = Repositories::new(store.clone(), blobs.clone(), config.git.clone())
        .context("prepare the caches of repositories")?;
    let bus = Bus::new();
    let parts = Parts {
        tables,
        access: access::Authority::new(store.clone(), bus.clone()),
        dispatch: Dispatch::new(store.clone(), bus),
        blobs,
        repositories,
        sessions: Sessions::new(),
        health: HealthReporter::new(),
        room: room.clone(),
        cluster,
        ending: CancellationToken::new(),
        tracker: TaskTracker::new(),
    };
    let about = About {
        cluster,
        postgres: base.version.clone(),
        event_days: config.event_days,
        log_retention: config.log_retention,
        room,
        data_dir: config.data_dir.clone(),
        git: config.git.program.clone(),
        authority: pki.authority.clone(),
        public: config.tls.public.is_some(),
        executor_url: executor_url(config, executors),
    };
    let routes = user_routes(&parts, about).context("prepare reflection")?;
    Ok((parts, routes))
}

/// Where executors dial as far as we know: what was set, else the first name that was given, else where we listen.
fn executor_url(config: &Config, bound: SocketAddr) -> String {
    if let Some(url) = &config.executor_url {
        return url.clone();
    }
    let host = match (config.tls.names.given(), bound.ip()) {
        (Some(name), ip) if !ip.is_loopback() => name,
        (_, ip) if ip.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        (_, ip) => return format!("https://{}", SocketAddr::new(ip, bound.port())),
    };
    format!("https://{host}:{}", bound.port())
}

/// Spawns what nobody calls.
fn duties(parts: &Parts, config: &Config, shared: bool) {
    let Parts { dispatch, tables, access, blobs, repositories, sessions, health, room, cluster, ending, tracker } =
        parts;
    let (store, stop) = (|| dispatch.store().clone(), || ending.clone());
    tracker.spawn(background::maintenance::run(tables.clone(), config.event_days, stop()));
    tracker.spawn(background::health::run(store(), health.clone(), stop()));
    tracker.spawn(background::place::run(dispatch.clone(), sessions.clone(), *cluster, room.clone(), stop()));
    tracker.spawn(background::history::run(store(), sessions.clone(), stop()));
    tracker.spawn(background::liveness::run(dispatch.clone(), stop()));
    tracker.spawn(background::space::run(config.data_dir.clone(), config.disk_budget, room.clone(), stop()));
    tracker.spawn(background::retention::run(store(), config.log_retention, stop()));
    tracker.spawn(background::seal::run(store(), blobs.clone(), !shared, stop()));
    tracker.spawn(background::compact::run(store(), repositories.clone(), stop()));
    tracker.spawn(background::notary::run(store(), dispatch.bus().clone(), stop()));
    tracker.spawn(background::last_use::run(access.clone(), stop()));
    tracker.spawn(background::dead_blobs::run(store(), blobs.clone(), stop()));
    if shared {
        // Only then can there be another replica.
        tracker.spawn(background::bridge::run(store(), dispatch.bus().clone(), stop()));
    }
}

fn user_routes(parts: &Parts, about: About) -> Result<Router, tonic_reflection::server::Error> {
    let Parts { dispatch, blobs, repositories, sessions, ending, health, .. } = parts;
    let mut routes = Routes::builder();
    let api = Api::new(dispatch.clone(), repositories.clone(), sessions.clone(), about, ending.clone());
    api.routes(&mut routes);
    let (store, bus) = (dispatch.store().clone(), dispatch.bus().clone());
    routes.add_service(LogsApi::new(store, bus, blobs.clone(), ending.clone()).into_service());
    routes.add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())));
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(sculpt_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        // The executors' service is served on their own listener.
        crate::grpc::SERVICES
            .into_iter()
            .chain([health_server::SERVICE_NAME])
            .fold(builder, |builder, service| builder.with_service_name(service))
    };
    routes.add_service(reflection().build_v1()?);
    // What most clients still speak.
    routes.add_service(reflection().build_v1alpha()?);
    Ok(routes.routes().into_axum_router().merge(git_http::routes(repositories.clone())))
}

fn executor_routes(parts: &Parts, authority: watch::Receiver<Arc<Authority>>, life: Duration) -> Router {
    let (store, cluster) = (parts.dispatch.store().clone(), parts.cluster);
    let present = Present::default();
    let (bus, ending) = (parts.dispatch.bus().clone(), parts.ending.clone());
    parts.tracker.spawn(background::evict::run(store.clone(), present.clone(), bus.clone(), ending));
    let door = middleware::from_fn_with_state(Door::new(store.clone(), cluster, present), who::enter);
    let context = control::Context {
        book: parts.dispatch.clone(),
        sessions: parts.sessions.clone(),
        cluster: parts.cluster,
        shutdown: parts.ending.clone(),
    };
    let repositories = parts.repositories.clone();
    let api = ExecutorApi::new(context, parts.blobs.clone(), repositories.clone(), parts.tracker.clone());
    let enrolment = EnrolmentApi { store, bus, authority, cluster, life };
    let services = Routes::new(api.into_service()).add_service(enrolment.into_service()).into_axum_router();
    let git = git_http::routes_of_executors(repositories, parts.dispatch.store().clone());
    services.merge(git).fallback(nothing_here).layer(door)
}

/// What a call to something that is not served gets: tonic would answer a browser with a success.
async fn nothing_here(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return Status::unimplemented(format!("this controller does not serve {}", request.uri().path())).into_http();
    }
    (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
}

/// Keeps the file of trusted authorities, for people on this machine, as the authority has it.
async fn trust_file(path: PathBuf, mut authority: watch::Receiver<Arc<Authority>>) {
    while authority.changed().await.is_ok() {
        let kept = keep_trust(&path, &authority.borrow_and_update());
        if let Err(error) = kept {
            tracing::error!(%error, path = %path.display(), "the trusted authorities are not written down");
        }
    }
}

fn keep_trust(path: &Path, authority: &Authority) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, authority.trust().to_pem())?;
    fs::rename(&fresh, path)
}

fn spawn(parts: &Parts, listener: TcpListener, tls: Shown, router: Router) {
    let tracker = parts.tracker.clone();
    parts.tracker.spawn(listen::serve(listener, tls, router, Limits::default(), parts.ending.clone(), tracker));
}

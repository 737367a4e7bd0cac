//! The wiring: build, spawn, drain.

mod closed;
mod data_dir;
mod routes;
mod signals;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, middleware};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sculpt_proto::id::ClusterId;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::server::HealthReporter;

pub use self::data_dir::{DataDir, DataDirError};
use self::routes::{executor_routes, executor_url, nothing_here, user_routes, user_url};
pub(crate) use self::signals::account;
use crate::{
    access::{self, Gate},
    background,
    blobs::Blobs,
    bus::Bus,
    config::{Config, DatabaseSetting},
    dispatch::Dispatch,
    git::Repositories,
    grpc::About,
    pki::{Authority, Keeper, Pki, Shown, SshAuthorities},
    postgres::{Postgres, Settings},
    relay::Relay,
    room::Room,
    session::{Present, Sessions},
    store::{Database, Store, let_serve, migrate},
    web::{
        deadline,
        doors::{self, OtherListener},
        guesses::{self, Guesses},
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
    closed::from_now_on();
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
    present: Present,
    relay: Relay,
    ssh: Arc<SshAuthorities>,
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
        // Made with the others, so that what is put away of them is whole.
        let ssh = Arc::new(SshAuthorities::open(&config.tls.authority)?);
        let pin = config.tls.public.is_none().then(|| pki.authority.borrow().pin());
        let base = tokio::select! {
            base = base(&config, &data_dir) => base?,
            () = told.cancelled() => return Ok(None),
        };
        let connections = if base.postgres.is_some() { CONNECTIONS_BUILT_IN } else { CONNECTIONS_SHARED };
        let store = Store::new(&base.database, connections);
        let prepared = async {
            let (parts, user_routes) = build(&config, &data_dir, &base, &store, &pki, ssh, executor).await?;
            access::first_admin(&store, &data_dir.join("tokens/user"), pin, &signals::account())
                .await
                .context("make the first admin")?;
            keep_trust(&data_dir.join(TRUST), &pki.authority.borrow()).context("write down whom to trust")?;
            let ready = json!({
                "ready": true,
                "user_url": user_url(&config, user),
                "executor_url": executor_url(&config, executor),
                "trust": data_dir.join(TRUST),
                "cluster_id": parts.cluster,
                "postgres": base.version,
            });
            let mut announced = ready.clone();
            announced["pid"] = std::process::id().into();
            data_dir.announce(&announced)?;
            anyhow::Ok(Some((parts, user_routes, ready)))
        };
        let prepared = tokio::select! {
            prepared = prepared => prepared,
            () = told.cancelled() => Ok(None),
        };
        // The database does not outlive a start that came to nothing, and nothing below can fail.
        let (parts, user_routes, ready) = match prepared {
            Ok(Some(prepared)) => prepared,
            unprepared => {
                end_database(&store, base.postgres).await;
                return unprepared.map(|_| None);
            }
        };
        let (ending, tracker) = (parts.ending.clone(), parts.tracker.clone());
        duties(&parts, &config, base.postgres.is_none());
        let timely = user_routes.layer(middleware::from_fn(deadline::bounded));
        let guesses = Guesses::default();
        let people = middleware::from_fn_with_state(Gate::new(parts.access.clone(), guesses.clone()), access::enter);
        let elsewhere = |other| middleware::from_fn_with_state(other, doors::shown);
        let people = timely.fallback(nothing_here).layer(people);
        let other = OtherListener::of_executors(&executor_url(&config, executor), guesses.clone());
        spawn(&parts, user_listener, pki.people, people.layer(elsewhere(other)));
        let guesses = guesses.elsewhere();
        let counted = middleware::from_fn_with_state(guesses.clone(), guesses::counted);
        let executors = executor_routes(&parts, pki.authority.clone(), config.certificate_life);
        let other = OtherListener::of_people(&user_url(&config, user), guesses);
        let executors = executors.layer(counted).layer(elsewhere(other));
        spawn(&parts, executor_listener, pki.executors, executors);
        parts.tracker.spawn(trust_file(data_dir.join(TRUST), pki.authority));
        parts.tracker.spawn(keeper.run(parts.ending.clone()));
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
    ssh: Arc<SshAuthorities>,
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
        present: Present::default(),
        relay: Relay::default(),
        ssh,
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
        public: pki.public.clone(),
        executor_url: executor_url(config, executors),
    };
    let routes = user_routes(&parts, about, config.tunnels_look).context("prepare reflection")?;
    Ok((parts, routes))
}

/// Spawns what nobody calls.
fn duties(parts: &Parts, config: &Config, shared: bool) {
    let Parts { dispatch, tables, access, blobs, repositories, sessions, present, .. } = parts;
    let Parts { health, room, cluster, ending, tracker, .. } = parts;
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
    tracker.spawn(background::notary::run(tables.clone(), dispatch.bus().clone(), stop()));
    tracker.spawn(background::last_use::run(access.clone(), stop()));
    tracker.spawn(background::evict::run(store(), present.clone(), dispatch.bus().clone(), stop()));
    let (ssh, bus) = (parts.ssh.clone(), dispatch.bus().clone());
    tracker.spawn(background::guests::run(store(), sessions.clone(), ssh, bus, config.guests_poll, stop()));
    tracker.spawn(background::dead_blobs::run(store(), blobs.clone(), stop()));
    if shared {
        // Only then can there be another replica.
        tracker.spawn(background::bridge::run(store(), dispatch.bus().clone(), stop()));
    }
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

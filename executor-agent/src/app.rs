//! The wiring: settings in, connections and attempts out, and an end that touches no agent.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use sculpt_proto::{
    executor::v1::JoinResponse,
    id::{ClusterId, ExecutorId},
};
use sculpt_tls::Subject;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    attempts::{Attempts, Basis, Context},
    cgroup,
    config::{Separate, Settings},
    connect::{ConnectError, Dialer},
    disk::write_durably,
    gc, host,
    identity::{self, CredentialError, Standing},
    layout::{Layout, LayoutError},
    logs::Logs,
    sandbox::Separation,
    session::{Control, Fatal},
    space, ssh, stage, workspace,
};

/// How long the executor's own tasks may take to end.
const DRAIN: Duration = Duration::from_secs(4);

/// The executor cannot run, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The controller's address.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What proves who we are.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// It joined as somebody else.
    #[error("{0}")]
    Stranger(String),
    /// It has joined nowhere that it could dial.
    #[error("this executor does not know where its controller is; name it with --controller")]
    Nowhere,
    /// It should keep attempts apart and cannot.
    #[error("attempts cannot be kept from this executor and from each other: {0}; without --separate they run as you")]
    Unseparated(String),
    /// The session ended for good.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// Another executor works on the data directory.
    #[error("another executor (pid {pid}) works on {path}; end it first, or use another --data-dir")]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Its pid, as it wrote it.
        pid: String,
    },
    /// Something of the system.
    #[error("could not {attempt}: {source}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl AppError {
    /// Whether the controller does not allow it, as long as nobody changes that.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Fatal(Fatal::Rejected { barred: true, .. }))
    }

    fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}

/// Who this executor is; in `executor.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Made once per data directory.
    pub executor_id: ExecutorId,
    /// The cluster that it joined.
    pub cluster_id: Option<ClusterId>,
    /// Where that cluster's controllers listen for executors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// The name that it joined under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pool that its token has put it into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The labels that its token has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Claimed {
    /// What is in it.
    pub layout: Layout,
    /// Whose it is.
    pub identity: Identity,
    _lock: fs::File,
}

impl Claimed {
    /// Takes the data directory, made when it is missing, as long as no other executor has it.
    pub fn open(data_dir: &Path, shared: bool) -> Result<Self, AppError> {
        let layout = Layout::open(data_dir, shared)?;
        let lock = lock(&layout)?;
        let identity =
            Identity::load(&layout).map_err(AppError::io(format!("read {}", layout.identity().display())))?;
        Ok(Self { layout, identity, _lock: lock })
    }

    /// Whether a certificate of `subject` is for this executor.
    pub fn is_meant(&self, subject: Subject) -> Result<(), AppError> {
        let Identity { executor_id, cluster_id, .. } = self.identity;
        if subject.executor != executor_id {
            let text = format!("the controller certified executor {}, and this is {executor_id}", subject.executor);
            return Err(AppError::Stranger(text));
        }
        if let Some(other) = cluster_id.filter(|cluster| *cluster != subject.cluster) {
            let text = format!(
                "this executor belongs to cluster {other}, and the controller is of cluster {}; `sculpt-executor rebind` \
                 lets it forget the old one",
                subject.cluster
            );
            return Err(AppError::Stranger(text));
        }
        Ok(())
    }

    /// Writes down that the executor has joined as `subject` at the controller `url`, with this answer.
    pub fn joined(&self, subject: Subject, url: &str, answer: JoinResponse) -> Result<(), AppError> {
        let joined = Identity {
            executor_id: self.identity.executor_id,
            cluster_id: Some(subject.cluster),
            controller: Some(url.to_owned()),
            name: Some(answer.name),
            pool: Some(answer.pool),
            labels: Some(answer.labels.into_iter().collect()),
        };
        joined.write(&self.layout).map_err(AppError::io(format!("write {}", self.layout.identity().display())))
    }
}

impl Identity {
    /// That of the executor in `data_dir`, if there is one.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, AppError> {
        let path = data_dir.join(Layout::IDENTITY);
        let failed = AppError::io(format!("read {}", path.display()));
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(io::Error::other).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads it, made when there is none.
    pub fn load(layout: &Layout) -> io::Result<Self> {
        match fs::read(layout.identity()) {
            Ok(json) => serde_json::from_slice(&json).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let executor_id = ExecutorId::fresh();
                let identity =
                    Self { executor_id, cluster_id: None, controller: None, name: None, pool: None, labels: None };
                identity.write(layout)?;
                Ok(identity)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes it durably.
    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        write_durably(&layout.identity(), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }
}

/// Forgets the cluster that the executor of this data directory belongs to, and nothing else; returns which that was.
pub fn rebind(data_dir: &Path) -> Result<Option<ClusterId>, AppError> {
    let identity = data_dir.join(Layout::IDENTITY);
    // A directory that was mistyped is not made.
    fs::metadata(&identity).map_err(AppError::io(format!("find an executor at {}", identity.display())))?;
    let Claimed { layout, identity, _lock } = Claimed::open(data_dir, false)?;
    let cluster = identity.cluster_id;
    let forgotten = Identity { cluster_id: None, controller: None, ..identity };
    forgotten.write(&layout).map_err(AppError::io(format!("write {}", layout.identity().display())))?;
    layout.tidy();
    Ok(cluster)
}

/// Runs until a signal, until the lifeline is cut, or until the executor must not go on. `program` is this binary.
pub async fn run(settings: Settings, program: &Path) -> Result<(), AppError> {
    let wanted = settings.separate != Separate::Never;
    let accounts = wanted && host::is_root();
    let Claimed { layout, identity, _lock } = Claimed::open(&settings.data_dir, accounts)?;
    let keyring = layout.keyring()?;
    let controller = settings.controller.as_ref().or(identity.controller.as_ref()).ok_or(AppError::Nowhere);
    let credentials = keyring.load()?;
    let dialer = Dialer::new(controller?, &credentials)?;
    let program =
        reachable(program, &layout, accounts).map_err(AppError::io("put this program where accounts can run it"))?;
    cgroup::step_aside();
    let counting = cgroup::Cgroup::probe();
    let separation = Separation::find(wanted, &program).await;
    let shares_memory = stage::shares_memory();
    separation.leaves(shares_memory).into_iter().for_each(|what| warn!("{what}"));
    settings.overruled.iter().for_each(|vain| warn!("{vain}"));
    match (&separation, settings.separate) {
        (Separation::Nothing(why), Separate::Always) => return Err(AppError::Unseparated(why.clone())),
        (Separation::Nothing(why), Separate::WhereItCan) => {
            warn!(why, "attempts are not separated; only this executor's owner is served");
        }
        _ => {}
    }
    let boot = host::boot_id().map_err(AppError::io("read the boot id"))?;
    let executor = identity.executor_id;
    let basis = Basis { settings, layout, executor, boot, program, dialer, separation, shares_memory, counting };
    let (context, ends) = Context::new(basis);
    let context = Arc::new(context);
    let cancel = context.cancel.clone();
    // Registered before anything is told to be ready.
    let ending = ending(context.settings.lifeline).map_err(AppError::io("listen for signals"))?;
    space::begin(&context);
    let attempts = Attempts::new(Arc::clone(&context));
    attempts.adopt().map_err(AppError::io("read the attempts on disk"))?;
    let (shared, cluster) = (Arc::clone(&context), identity.cluster_id);
    let standing = Standing::of(keyring.clone());
    let (control, ready) = Control::new(shared, attempts.clone(), ends.news, ends.link, ends.lease, cluster);
    let control = control.telling(standing.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(identity::renew(keyring, context.dialer.clone(), standing, cancel.clone()));
    tasks.spawn(Logs::new(Arc::clone(&context), attempts.clone()).run());
    tasks.spawn(space::run(Arc::clone(&context), attempts.clone()));
    tasks.spawn(ssh::run(Arc::clone(&context), attempts.clone(), ends.people));
    tasks.spawn(gc::run(Arc::clone(&context), attempts.clone(), ends.questions));
    let compacted = Arc::clone(&context);
    tasks.spawn(async move {
        workspace::compact::run(&compacted.layout.stores(), compacted.cancel.clone()).await;
    });
    let announced = Arc::clone(&context);
    tasks.spawn(async move {
        if ready.await.is_ok() {
            announce(&announced);
        }
    });
    let mut control = tokio::spawn(control.run());
    let ended = tokio::select! {
        ended = &mut control => Some(ended),
        () = ending => None,
    };
    cancel.cancel();
    drain(tasks, &attempts).await;
    context.layout.tidy();
    let ended = match ended {
        Some(ended) => ended,
        None => tokio::time::timeout(DRAIN, control).await.unwrap_or(Ok(Ok(()))),
    };
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(AppError::io("keep the session")(io::Error::other(error))),
    }
}

fn announce(context: &Context) {
    use std::io::Write as _;
    let line = serde_json::json!({
        "ready": true,
        "executor_id": context.executor.to_string(),
        "name": context.settings.name,
    });
    // Whoever started us may not be listening any more.
    let _unheard = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
}

async fn drain(mut tasks: JoinSet<()>, attempts: &Attempts) {
    let all = async {
        while tasks.join_next().await.is_some() {}
        attempts.drained().await;
    };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        warn!("some of the executor's tasks did not end in time; agents are not touched");
    }
    info!("the executor ends; agents go on");
}

/// One executor per data directory; the lock goes with the process.
fn lock(layout: &Layout) -> Result<fs::File, AppError> {
    use std::io::{Read as _, Seek as _, Write as _};
    let path = layout.lock();
    let fail = |source| AppError::io(format!("lock {}", path.display()))(source);
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(fail)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(fail)?;
        let data = path.parent().unwrap_or(&path).to_owned();
        return Err(AppError::Locked { path: data, pid: pid.trim().to_owned() });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(file)
}

/// Accounts of attempts run this program too (views, stages), and cannot read below, say, root's home.
fn reachable(program: &Path, layout: &Layout, accounts: bool) -> io::Result<PathBuf> {
    if !accounts {
        return Ok(program.to_owned());
    }
    let directory = layout.data().join("bin");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    let copy = tempfile::NamedTempFile::new_in(&directory)?;
    fs::copy(program, copy.path())?;
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755))?;
    let target = directory.join("sculpt-executor");
    // Never opened for writing once it runs: a busy text file could not be replaced otherwise.
    copy.into_temp_path().persist(&target).map_err(|error| error.error)?;
    Ok(target)
}

/// Resolves at SIGTERM, SIGINT, or the end of standard input.
fn ending(lifeline: bool) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cut = CancellationToken::new();
    if lifeline {
        let cut = cut.clone();
        // A blocking read on the runtime would hold up its end.
        std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            let _closed = io::copy(&mut io::stdin().lock(), &mut io::sink());
            cut.cancel();
        })?;
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = cut.cancelled() => {}
        }
    })
}

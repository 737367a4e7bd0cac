//! `sculpt up`: controller, built-in Postgres and one executor on this machine, in the foreground.

mod child;
mod context;
mod enrol;
mod lock;
mod ports;
mod supervise;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use child::sibling;
pub(crate) use context::{data_of, running, start_command};

use crate::{args::UpArgs, config::xdg, exit::Exit, failure::Failure, output::note};

const ATTEMPTED: &str = "start the controller and the executor";

/// How long parts of an earlier `sculpt up` may take to end.
const PREDECESSORS: Duration = Duration::from_secs(15);

/// Where everything of one installation stands.
pub(crate) struct Places {
    pub(crate) data: PathBuf,
}

impl Places {
    /// The data directory when none is named: `/var/lib/sculpt` for root, else below `$XDG_DATA_HOME`.
    pub(crate) fn default_data() -> Result<PathBuf, Failure> {
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/sculpt"));
        }
        let base = xdg("XDG_DATA_HOME", ".local/share").map_err(|error| crate::client::unusable(&error))?;
        Ok(base.join("sculpt"))
    }

    /// Makes the data directory: for its owner only, unless other accounts must pass through to their workspaces.
    fn prepare(data: &Path, separate: bool) -> Result<Self, Failure> {
        let broken = |error: io::Error| {
            Failure::new(Exit::Failed, format!("use the data directory {}", data.display()), error.to_string())
                .next("name another one with --data-dir")
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(broken)?;
        let data = data.canonicalize().map_err(broken)?;
        let mode = fs::metadata(&data).map_err(broken)?.permissions().mode() & 0o777;
        // Accounts are made by root alone; an ordinary user's sandbox is shown what it needs.
        let accounts = separate && rustix::process::geteuid().is_root();
        let wanted = if accounts { 0o711 } else { mode & 0o711 | 0o700 };
        if mode != wanted {
            fs::set_permissions(&data, fs::Permissions::from_mode(wanted)).map_err(broken)?;
        }
        let places = Self { data };
        fs::create_dir_all(places.logs()).map_err(broken)?;
        fs::set_permissions(places.logs(), fs::Permissions::from_mode(0o700)).map_err(broken)?;
        Ok(places)
    }

    fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    pub(crate) fn controller(&self) -> PathBuf {
        self.data.join("controller")
    }

    pub(crate) fn executor(&self) -> PathBuf {
        self.data.join("executor")
    }
}

/// Runs until Ctrl-C or SIGTERM.
pub(crate) async fn run(args: UpArgs) -> Result<Exit, Failure> {
    refuse(&args)?;
    let data = match &args.data_dir {
        Some(data) => data.clone(),
        None => Places::default_data()?,
    };
    let places = Places::prepare(&data, args.separate)?;
    let _lock = lock::take(&places.data)?;
    wait_for_predecessors(&places).await?;
    supervise::run(&places, &args).await
}

fn refuse(args: &UpArgs) -> Result<(), Failure> {
    let refuse = |why: &str, next: &str| Err(Failure::new(Exit::BadInput, ATTEMPTED, why).next(next));
    if let Some(listen) = args.listen.filter(|listen| !listen.ip().is_loopback()) {
        let why = format!("{listen} is not a loopback address, and `sculpt up` serves this machine alone");
        return refuse(&why, "use --listen 127.0.0.1:PORT; `sculpt-controller serve --listen` serves other machines");
    }
    if args.separate && !rustix::process::geteuid().is_root() && !on_path("bwrap") {
        return refuse(
            "bwrap is not in PATH, and without it only root can keep attempts apart",
            "apt install bubblewrap, run it as root, or leave --separate away",
        );
    }
    if !on_path("git") {
        return refuse("git is not in PATH, and both parts need it", "apt install git");
    }
    if !on_path("tmux") {
        note("tmux is not in PATH: tasks run, but nobody can attach to their terminals (apt install tmux)");
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Parts of a `sculpt up` that was killed end by themselves within seconds.
async fn wait_for_predecessors(places: &Places) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + PREDECESSORS;
    let mut said = false;
    for (name, folder) in [("controller", places.controller()), ("executor", places.executor())] {
        let file = folder.join("lock");
        while let Some(pid) = lock::holder(&file) {
            if !std::mem::replace(&mut said, true) {
                note("parts of an earlier `sculpt up` are still ending; waiting for them");
            }
            if tokio::time::Instant::now() > deadline {
                let why = format!("another {name} (pid {pid}) works on {}", places.data.display());
                return Err(
                    Failure::new(Exit::Conflict, ATTEMPTED, why).next("end it first, or use another --data-dir")
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The address with its port, as a URL.
fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// What `look` finds, once it does: a child that another test starts holds this process's locks and ports until its own
/// program begins.
#[cfg(test)]
fn once<T>(look: impl Fn() -> Option<T>) -> T {
    let begin = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "it is never so");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

//! A controller with its own Postgres and an executor: started, harmed, started again, and ended.

mod starting;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    DEADLINE, Options, Service,
    checker::{Cut, Ledger, Mark, Promise, Secret, Seen, Shared},
    checks,
    enrolment::Enrolled,
    options::Ground,
    service::tail,
    shell::PLANTED,
};

/// How long our programs may take to end.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Addresses that stay the same when the controller is started again.
#[derive(Clone, Debug)]
struct Ports {
    user: String,
    executor: String,
}

/// A whole stack with its own directory, HOME and database. Call [`Stack::finish`] at the end of a test.
#[derive(Debug)]
pub struct Stack {
    pub(super) ground: Ground,
    up: Option<Service>,
    controller: Option<Service>,
    executor: Option<Service>,
    ports: Option<Ports>,
    executor_dials: Option<String>,
    users_dial: Option<String>,
    host: Option<String>,
    user_listen: String,
    executor_listen: String,
    executor_program: Option<PathBuf>,
    executor_via: Vec<String>,
    controller_via: Vec<String>,
    pub(super) names: AtomicUsize,
    pub(super) promised: Shared,
    /// The database, when it is not the built-in one.
    pub(super) database: Option<String>,
    cuts: BTreeMap<u64, Cut>,
    pub(super) enrolled: Enrolled,
    pub(super) seen: Seen,
    finished: bool,
    kept: bool,
}

impl Stack {
    /// Everything made ready, nothing started.
    pub(super) fn new(ground: Ground) -> Self {
        Self {
            ground,
            up: None,
            controller: None,
            executor: None,
            ports: None,
            executor_dials: None,
            users_dial: None,
            host: None,
            user_listen: "127.0.0.1:0".to_owned(),
            executor_listen: "127.0.0.1:0".to_owned(),
            executor_program: None,
            executor_via: Vec::new(),
            controller_via: Vec::new(),
            names: AtomicUsize::new(0),
            promised: Shared::default(),
            database: None,
            cuts: BTreeMap::new(),
            enrolled: Enrolled::default(),
            seen: Seen::default(),
            finished: false,
            kept: std::env::var_os("SCULPT_TEST_KEEP").is_some(),
        }
    }

    /// `sculpt up`, ready.
    pub async fn up() -> Result<Self> {
        Options::default().up().await
    }

    /// Controller and executor as processes of their own, ready.
    pub async fn parts() -> Result<Self> {
        Options::default().parts().await
    }

    /// A stack that is not the default one.
    pub fn options() -> Options {
        Options::default()
    }

    // ---- Places ----

    /// HOME of the person.
    pub fn home(&self) -> PathBuf {
        self.ground.root.path().join("home")
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.ground.data
    }

    /// The directory that holds everything of this stack.
    pub fn root(&self) -> &Path {
        self.ground.root.path()
    }

    /// The token of the first admin.
    pub fn token(&self) -> Result<String> {
        let path = self.token_file();
        Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    fn token_file(&self) -> PathBuf {
        self.ground.data.join("controller/tokens/user")
    }

    /// URL of the API.
    pub fn url(&self) -> Result<String> {
        let text = fs::read(self.ground.data.join("controller/controller.json")).context("read controller.json")?;
        let state: Value = serde_json::from_slice(&text).context("read controller.json")?;
        Ok(state["user_url"].as_str().context("user_url in controller.json")?.to_owned())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.ground.root.path().join(format!("{name}.log"))
    }

    /// The executor's data directory.
    pub fn executor_data(&self) -> PathBuf {
        self.ground.data.join("executor")
    }

    /// Its directory stays where it is when it is dropped, for people to look at.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    // ---- For the checker ----

    /// Whether an executor runs.
    pub fn has_executor(&self) -> bool {
        self.up.is_some() || self.executor.is_some()
    }

    /// A call past the CLI was answered well: its effect must last.
    pub fn promised(&self, promise: Promise) {
        self.promised.note(|ledger| ledger.promised(promise));
    }

    /// What was promised so far.
    pub fn ledger(&self) -> Ledger {
        self.promised.copy()
    }

    /// What was promised after `mark` has been lost on purpose.
    pub fn loses_since(&self, mark: &Mark) {
        self.promised.note(|ledger| ledger.rewind(mark));
    }

    /// So much of what the agents of `task` wrote may be missing in its logs, for what was done to them.
    pub fn may_lack(&mut self, task: &str, cut: Cut) -> Result<()> {
        self.cuts.insert(task.parse().with_context(|| format!("the number of a task, not {task}"))?, cut);
        Ok(())
    }

    pub(super) fn cuts(&self) -> &BTreeMap<u64, Cut> {
        &self.cuts
    }

    /// One more token that must turn up nowhere, made past the harness.
    pub fn token_made(&self, token: &str) -> Result<()> {
        self.enrolled.token_made(token)
    }

    /// One more data directory of an executor, which is searched for secrets and whose own must turn up nowhere.
    pub fn executor_made(&self, data: &Path) {
        self.enrolled.executor_made(data);
    }

    /// The data directories of all executors that this stack had.
    pub(super) fn executors(&self) -> Vec<PathBuf> {
        std::iter::once(self.executor_data()).chain(self.enrolled.directories()).collect()
    }

    /// Everything that must turn up nowhere else.
    pub(super) fn secrets(&self) -> Result<Vec<Secret>> {
        let mut all = vec![Secret::variable(format!("${PLANTED}"), &self.ground.planted)];
        all.extend(self.enrolled.tokens());
        if let Ok(token) = self.token() {
            all.push(Secret::token("the first admin's token", &token)?.at_home(self.token_file()));
        }
        let authority = self.data().join("controller/authority");
        let authorities =
            ["tls.pem", "tls-next.pem", "ssh-users.key", "ssh-hosts.key"].map(|name| authority.join(name));
        let executors = self.executors().into_iter().map(|data| data.join("identity/key.pem"));
        for file in authorities.into_iter().chain(executors) {
            all.extend(Secret::key(&file)?);
        }
        Ok(all)
    }

    // ---- The end ----

    /// Ends everything and fails when the world is not as clean as it should be: a task that has not ended, a process,
    /// a socket, or a workspace left over.
    pub async fn finish(mut self) -> Result<()> {
        if self.up.is_some() || self.controller.is_some() {
            checks::no_open_task(&self).await?;
            self.check().await?;
        }
        if self.up.is_some() || self.executor.is_some() {
            checks::tidied(self.ground.root.path(), &self.ground.data, &self.traces()).await?;
        }
        if let Some(up) = self.up.take() {
            let status = up.end(Signal::INT, SHUTDOWN).await?;
            ensure!(status.success() || status.code() == Some(130), "sculpt up ended with {status}");
        }
        for service in [self.executor.take(), self.controller.take()].into_iter().flatten() {
            let status = service.end(Signal::TERM, SHUTDOWN).await?;
            ensure!(status.success(), "a part ended with {status}");
        }
        checks::nothing_left(self.ground.root.path(), &self.ground.data, &self.traces()).await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Stack {
    /// Whatever happened, nothing of the stack lives on.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for name in ["up", "controller", "executor"] {
            let log = self.log(name);
            if log.exists() {
                eprintln!("{}", tail(&log));
            }
        }
        drop((self.up.take(), self.executor.take(), self.controller.take()));
        // A process may start another one while it is being killed.
        let deadline = std::time::Instant::now() + DEADLINE;
        while std::time::Instant::now() < deadline {
            let left = self.traces().processes();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|found| found.signal(Signal::KILL));
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its fifth line names the directory of Postgres's socket, which as root is not in ours.
        let pid_file = fs::read_to_string(self.ground.data.join("controller/postgres/postmaster.pid"));
        if let Some(sockets) = pid_file.iter().flat_map(|text| text.lines()).nth(4).filter(|path| !path.is_empty()) {
            let _ = fs::remove_dir_all(sockets);
        }
        for group in checks::cgroups_of(&self.traces().attempts()).unwrap_or_default() {
            for leaf in ["agent", "view", "shim", "."] {
                let _ = fs::remove_dir(group.join(leaf).components().as_path());
            }
        }
        if self.kept {
            self.ground.root.disable_cleanup(true);
            eprintln!("kept {}", self.ground.root.path().display());
        }
    }
}

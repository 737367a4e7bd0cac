//! A controller with its own Postgres, an executor, and the shell of a person who uses them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{Semaphore, SemaphorePermit},
};

use super::{Cli, Counter, DEADLINE, Repo, Service, checks, processes, service::tail};

/// How many stacks live at once, whatever number of tests the runner starts: a stack is five processes and an initdb.
static STACKS: Semaphore = Semaphore::const_new(3);

/// How long our programs may take to end.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// What a stack is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    slots: u32,
    settings: String,
    data_dir: PathBuf,
    environment: Vec<(String, String)>,
    ordinary: bool,
    separate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 4,
            settings: String::new(),
            data_dir: "data".into(),
            environment: Vec::new(),
            ordinary: false,
            separate: false,
        }
    }
}

impl Options {
    /// With this many slots.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// With these settings (TOML) of the executor.
    pub fn settings(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.settings);
        self
    }

    /// With this data directory, relative to the stack's own directory.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = path.into();
        self
    }

    /// With this variable in the person's shell, in which everything is started.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As an ordinary user, also when the tests run as root.
    pub fn ordinary(mut self) -> Self {
        self.ordinary = true;
        self
    }

    /// With an account of its own for each attempt.
    pub fn separate(mut self) -> Self {
        self.separate = true;
        self
    }

    /// Starts it as `sculpt up`.
    pub async fn up(self) -> Result<Stack> {
        let mut stack = self.empty().await?;
        stack.start_up().await?;
        Ok(stack)
    }

    /// Starts controller and executor apart.
    pub async fn parts(self) -> Result<Stack> {
        let mut stack = self.empty().await?;
        stack.start_controller().await?;
        stack.start_executor().await?;
        Ok(stack)
    }

    /// Everything made ready, nothing started.
    pub async fn empty(self) -> Result<Stack> {
        let permit = STACKS.acquire().await?;
        // Everybody may pass: as root, the built-in Postgres runs under another account.
        let root = tempfile::Builder::new()
            .prefix("sct-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .context("make the stack's directory")?;
        let data = root.path().join(&self.data_dir);
        for directory in [&root.path().join("home"), &root.path().join("run"), &data] {
            fs::create_dir_all(directory).context("make the stack's directories")?;
        }
        fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o700))?;
        let settings = format!("slots = {}\n{}", self.slots, self.settings);
        fs::write(data.join("executor.toml"), settings).context("write the executor's settings")?;
        let mut bin = programs()?;
        let account = (self.ordinary && rustix::process::geteuid().is_root()).then_some(NOBODY);
        if let Some(account) = account {
            bin = programs_for(account, &bin, root.path())?;
        }
        Ok(Stack {
            root,
            data,
            bin,
            account,
            separate: self.separate,
            environment: self.environment,
            up: None,
            controller: None,
            executor: None,
            ports: None,
            executor_dials: None,
            names: AtomicUsize::new(0),
            finished: false,
            _permit: permit,
        })
    }
}

/// Account that owns nothing, on every Linux.
const NOBODY: u32 = 65534;

const PROGRAMS: [&str; 3] = ["sculpt", "sculpt-controller", "sculpt-executor"];

/// Makes `root` the account's, with copies of the programs in it: the checkout may be out of its reach.
fn programs_for(account: u32, bin: &Path, root: &Path) -> Result<PathBuf> {
    let own = root.join("bin");
    fs::create_dir(&own).context("make a directory for the programs")?;
    for name in PROGRAMS {
        let (from, to) = (bin.join(name), own.join(name));
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).context("copy the programs")?;
    }
    for directory in fs::read_dir(root)?.chain(fs::read_dir(root.join("data"))?) {
        let directory = directory?.path();
        if directory != own {
            std::os::unix::fs::chown(&directory, Some(account), Some(account))?;
        }
    }
    Ok(own)
}

/// Directory of the three programs: the one above the test binary's.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the test binary")?;
    let bin = own.ancestors().nth(2).context("the test binary is in target/PROFILE/deps")?.to_owned();
    for name in PROGRAMS {
        ensure!(bin.join(name).exists(), "{name} is not in {}: run `cargo build --workspace --bins`", bin.display());
    }
    Ok(bin)
}

/// Addresses that stay the same when the controller is started again.
#[derive(Clone, Debug)]
struct Ports {
    user: String,
    executor: String,
}

/// A whole stack with its own directory, HOME and database. Call [`Stack::finish`] at the end of a test.
#[derive(Debug)]
pub struct Stack {
    root: TempDir,
    data: PathBuf,
    bin: PathBuf,
    account: Option<u32>,
    separate: bool,
    environment: Vec<(String, String)>,
    up: Option<Service>,
    controller: Option<Service>,
    executor: Option<Service>,
    ports: Option<Ports>,
    executor_dials: Option<String>,
    names: AtomicUsize,
    finished: bool,
    _permit: SemaphorePermit<'static>,
}

impl Stack {
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

    // ---- Processes ----

    /// Starts `sculpt up` and waits until it is ready.
    pub async fn start_up(&mut self) -> Result<()> {
        let mut command = self.command("sculpt");
        command.arg("up").arg("--data-dir").arg(&self.data).args(["--listen", "127.0.0.1:0"]);
        if self.separate {
            command.arg("--separate");
        }
        let (up, _) = Service::start("sculpt up", command, self.log("up"), |line| line.starts_with("ready")).await?;
        self.up = Some(up);
        Ok(())
    }

    /// The running `sculpt up`.
    pub fn upper(&mut self) -> Result<Service> {
        self.up.take().context("sculpt up is not running")
    }

    /// Starts the controller, on the ports it had before.
    pub async fn start_controller(&mut self) -> Result<()> {
        let any = || "127.0.0.1:0".to_owned();
        let (user, executor) =
            self.ports.as_ref().map_or_else(|| (any(), any()), |ports| (ports.user.clone(), ports.executor.clone()));
        let mut command = self.command("sculpt-controller");
        command.arg("serve").arg("--data-dir").arg(self.data.join("controller"));
        command.args(["--listen", &user, "--executor-listen", &executor]);
        let (controller, line) = Service::start("controller", command, self.log("controller"), is_ready).await?;
        self.controller = Some(controller);
        let ready: Value = serde_json::from_str(&line).context("read the controller's ready line")?;
        let address = |field: &str| {
            let url = ready[field].as_str().with_context(|| format!("{field} in {line}"))?;
            Ok::<_, anyhow::Error>(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
        };
        self.ports = Some(Ports { user: address("user_url")?, executor: address("executor_url")? });
        Ok(())
    }

    /// Starts the executor.
    pub async fn start_executor(&mut self) -> Result<()> {
        let url = match &self.executor_dials {
            Some(url) => url.clone(),
            None => format!("http://{}", self.executor_address()?),
        };
        let mut command = self.command("sculpt-executor");
        command
            .arg("run")
            .arg("--data-dir")
            .arg(self.data.join("executor"))
            .args(["--controller", &url])
            .arg("--token-file")
            .arg(self.data.join("controller/tokens/executor"))
            .args(["--name", "worker"])
            .arg("--config")
            .arg(self.data.join("executor.toml"));
        let (executor, _) = Service::start("executor", command, self.log("executor"), is_ready).await?;
        self.executor = Some(executor);
        Ok(())
    }

    /// Address on which the controller listens for executors.
    pub fn executor_address(&self) -> Result<String> {
        Ok(self.ports.as_ref().context("the controller was never started")?.executor.clone())
    }

    /// From the next start on the executor dials `url`, for example a fault proxy's.
    pub fn executor_dials(&mut self, url: String) {
        self.executor_dials = Some(url);
    }

    /// The running controller; whoever takes it ends it.
    pub fn controller(&mut self) -> Result<Service> {
        self.controller.take().context("the controller is not running")
    }

    /// The running executor; whoever takes it ends it.
    pub fn executor(&mut self) -> Result<Service> {
        self.executor.take().context("the executor is not running")
    }

    /// What the processes of this stack are known by.
    pub fn traces(&self) -> processes::Traces {
        processes::Traces::new(self.root.path(), &self.data)
    }

    /// The living processes of this stack whose name or arguments hold `text`.
    pub fn processes(&self, text: &str) -> Vec<processes::Found> {
        let all = self.traces().processes();
        all.into_iter().filter(|found| found.name.contains(text) || found.command.contains(text)).collect()
    }

    // ---- The person's shell ----

    /// `sculpt ARGUMENTS`, as in the person's shell.
    pub fn sculpt<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cli {
        let mut command = self.command("sculpt");
        // Apart from `sculpt up` nobody writes the CLI's context.
        if let (None, Some(ports)) = (&self.up, &self.ports) {
            command.env("SCULPT_URL", format!("http://{}", ports.user));
            if let Ok(token) = self.token("user") {
                command.env("SCULPT_TOKEN", token);
            }
        }
        Cli::new(command, arguments)
    }

    /// Any other program, as in the person's shell.
    pub fn shell<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Cli {
        let mut command = Command::new(program);
        self.isolate(&mut command);
        Cli::new(command, arguments)
    }

    /// A new repository with one commit, in a folder of its own.
    pub fn repo(&self) -> Result<Repo> {
        let repo = self.empty_repo("project")?;
        repo.commit("README.md", "A project.\n")?;
        Ok(repo)
    }

    /// A repository without a commit whose folder has this name.
    pub fn empty_repo(&self, name: &str) -> Result<Repo> {
        Repo::init(self.fresh("repos").join(name), &self.home())
    }

    /// An agent that prints numbered lines until it is told to stop.
    pub fn counter(&self) -> Result<Counter> {
        Counter::new(self.fresh("counters"))
    }

    /// A path of this stack that nothing else uses.
    pub fn fresh(&self, kind: &str) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        self.root.path().join(kind).join(number.to_string())
    }

    /// `sculpt run -q -d ARGUMENTS` in `directory`; gives the task's number.
    pub async fn detached<A: AsRef<OsStr>>(
        &self,
        directory: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let all = ["run", "-q", "-d"].map(Into::into).into_iter();
        let all = all.chain(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let output = self.sculpt(all).dir(directory).run().await?.done()?;
        let number = output.text();
        ensure!(number.parse::<u64>().is_ok(), "run -q prints the number alone, not {number:?}");
        Ok(number)
    }

    /// `sculpt show TASK -o json`.
    pub async fn show(&self, task: &str) -> Result<Value> {
        self.sculpt(["show", task, "-o", "json"]).run().await?.done()?.json()
    }

    /// `sculpt logs TASK` as it is piped.
    pub async fn logs(&self, task: &str) -> Result<Vec<u8>> {
        Ok(self.sculpt(["logs", task]).run().await?.done()?.stdout)
    }

    /// Waits with `sculpt wait` and fails unless that exits 0.
    pub async fn done(&self, task: &str) -> Result<Value> {
        self.sculpt(["wait", task]).run().await?.done()?;
        self.show(task).await
    }

    // ---- Places ----

    /// HOME of the person.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory that holds everything of this stack.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A token of the controller: `user` or `executor`.
    pub fn token(&self, whose: &str) -> Result<String> {
        let path = self.data.join("controller/tokens").join(whose);
        Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    /// URL of the API.
    pub fn url(&self) -> Result<String> {
        let text = fs::read(self.data.join("controller/controller.json")).context("read controller.json")?;
        let state: Value = serde_json::from_slice(&text).context("read controller.json")?;
        Ok(state["user_url"].as_str().context("user_url in controller.json")?.to_owned())
    }

    /// One of our programs, in the person's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        self.isolate(&mut command);
        command
    }

    fn isolate(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["SCULPT_", "XDG_", "GIT_", "CARGO_", "PG"].iter().any(|prefix| text.starts_with(prefix));
            if foreign || text == "DATABASE_URL" {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(self.root.path())
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.root.path().join("run"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LANG", "C.UTF-8")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(account) = self.account {
            command.uid(account).gid(account);
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root.path().join(format!("{name}.log"))
    }

    // ---- The end ----

    /// Ends everything and fails when the world is not as clean as it should be: a task that has not ended, a process,
    /// a socket, or a workspace left over.
    pub async fn finish(mut self) -> Result<()> {
        if self.up.is_some() || self.controller.is_some() {
            checks::no_open_task(&self).await?;
        }
        if let Some(up) = self.up.take() {
            let status = up.end(Signal::INT, SHUTDOWN).await?;
            ensure!(status.success() || status.code() == Some(130), "sculpt up ended with {status}");
        }
        for service in [self.executor.take(), self.controller.take()].into_iter().flatten() {
            let status = service.end(Signal::TERM, SHUTDOWN).await?;
            ensure!(status.success(), "a part ended with {status}");
        }
        checks::nothing_left(self.root.path(), &self.data, &self.traces()).await?;
        self.finished = true;
        Ok(())
    }
}

fn is_ready(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line["ready"] == true)
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
        for group in checks::cgroups_of(&self.traces().attempts()).unwrap_or_default() {
            for leaf in ["agent", "view", "shim", "."] {
                let _ = fs::remove_dir(group.join(leaf).components().as_path());
            }
        }
        if std::env::var_os("SCULPT_TEST_KEEP").is_some() {
            self.root.disable_cleanup(true);
            eprintln!("kept {}", self.root.path().display());
        }
    }
}

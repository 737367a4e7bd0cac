//! An executor as a process, with everything that it starts gone at the end.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sculpt_executor::cgroup::Cgroup;
use sculpt_proto::{
    executor::v1::AttemptSpec,
    v1::{self, Requester, TaskSpec, task_spec},
};

use crate::controller::Controller;

/// A machine: a directory, a controller, and at most one executor.
pub(crate) struct Host {
    pub(crate) root: tempfile::TempDir,
    pub(crate) controller: Controller,
    pub(crate) executor: Option<Child>,
    /// Below the directory of the executor, to make its path long.
    pub(crate) deep: String,
    /// What the executor is started by.
    pub(crate) via: Vec<&'static str>,
    /// Added to the executor's environment.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    arguments: Vec<String>,
    config: String,
}

impl Host {
    /// A controller with an empty set of repositories; no executor yet.
    pub(crate) async fn new() -> Self {
        Self::with("", &[]).await
    }

    pub(crate) async fn with(config: &str, arguments: &[&str]) -> Self {
        let root = tempfile::Builder::new().prefix("sculpt-x").tempdir().unwrap();
        let repositories = root.path().join("repositories");
        fs::create_dir(&repositories).unwrap();
        let controller = Controller::start(&repositories).await;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let config = config.to_owned();
        let (deep, via, environment) = (String::new(), Vec::new(), Vec::new());
        Self { root, controller, executor: None, deep, via, environment, arguments, config }
    }

    /// With accounts for attempts; none without the rights to make them.
    pub(crate) async fn separated(config: &str) -> Option<Self> {
        if !sculpt_executor::host::is_root() {
            return None;
        }
        let host = Self::with(config, &["--separate"]).await;
        fs::set_permissions(host.root.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Some(host)
    }

    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.path().join("repositories")
    }

    pub(crate) fn data(&self) -> PathBuf {
        let data = self.root.path().join("executor");
        if self.deep.is_empty() { data } else { data.join(&self.deep) }
    }

    /// An executor that is to run; it has joined.
    pub(crate) fn command(&self) -> Command {
        if !self.data().join("identity/certificate.pem").exists() {
            self.join();
        }
        let config = self.root.path().join("executor.toml");
        fs::write(&config, &self.config).unwrap();
        let mut command = self.program("run");
        command
            .args(["--slots", "4", "--controller", &self.controller.url()])
            .arg("--config")
            .arg(config)
            // Unless a test is about it.
            .arg("--separate=false")
            .args(&self.arguments)
            .stderr(fs::OpenOptions::new().create(true).append(true).open(self.root.path().join("log")).unwrap());
        command
    }

    /// The program with this verb on the executor's directory.
    pub(crate) fn program(&self, verb: &str) -> Command {
        let mut words = self.via.iter().copied().chain([env!("CARGO_BIN_EXE_sculpt-executor")]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args([verb, "--data-dir"])
            .arg(self.data())
            .env("DATABASE_URL", "postgres://other")
            .env("SCULPT_EXECUTOR_LOG", "sculpt_executor=debug")
            .env("HOME", self.root.path())
            .env("XDG_RUNTIME_DIR", self.root.path())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Joins the controller with a fresh token.
    pub(crate) fn join(&self) {
        let joined = self.join_with(&self.controller.token(), &self.controller.url(), &["--name", "host"]);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    }

    /// What becomes of an attempt to join at `url`.
    pub(crate) fn join_with(&self, token: &str, url: &str, arguments: &[&str]) -> Output {
        self.joining(token, url).args(arguments).output().unwrap()
    }

    /// The command that joins at `url`.
    pub(crate) fn joining(&self, token: &str, url: &str) -> Command {
        let file = self.root.path().join("token");
        fs::write(&file, token).unwrap();
        let mut command = self.program("join");
        command.arg(url).arg("--token-file").arg(file);
        command
    }

    /// What the executor says of itself, and its exit code.
    pub(crate) fn status(&self) -> (String, i32) {
        let said = self.program("status").output().unwrap();
        (String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned(), said.status.code().unwrap())
    }

    /// Starts the executor and waits until it says that it is ready.
    pub(crate) async fn start(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        self.executor = Some(child);
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(Duration::from_secs(30), line).await;
        let line = line.unwrap_or_else(|_| panic!("not ready: {}", self.log())).unwrap().unwrap();
        assert!(line.starts_with(r#"{"ready":true"#), "{line:?}: {}", self.log());
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.executor.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as an administrator does.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.executor.take() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            assert!(child.wait().unwrap().success(), "{}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }

    /// A spec without a repository.
    pub(crate) fn spec(&self, work: task_spec::Work) -> AttemptSpec {
        let id = || uuid::Uuid::now_v7().to_string();
        AttemptSpec {
            cluster_id: self.controller.memory().cluster.clone(),
            attempt_id: id(),
            task_id: id(),
            task_number: 17,
            number: 1,
            task: Some(TaskSpec {
                work: Some(work),
                requester: Some(Requester { name: "Ann Example".into(), email: "ann@example.org".into() }),
                ..TaskSpec::default()
            }),
            title: "A title".into(),
            ..AttemptSpec::default()
        }
    }

    /// A shell command without a repository or terminal.
    pub(crate) fn shell(&self, script: &str) -> AttemptSpec {
        let argv = ["sh", "-c", script].map(|argument| argument.as_bytes().to_vec()).to_vec();
        self.spec(task_spec::Work::Command(v1::Command { argv }))
    }

    /// The same on a base commit of `project.git`.
    pub(crate) fn on_base(&self, mut spec: AttemptSpec, base: &str) -> AttemptSpec {
        spec.project_id = uuid::Uuid::now_v7().to_string();
        spec.project_name = "project".into();
        spec.branch = "sculpt/17-title".into();
        spec.git_path = "/git/project.git".into();
        spec.task.as_mut().unwrap().base = base.to_owned();
        spec
    }

    /// Those of attempts that were not released.
    fn remove_cgroups(&self) {
        for entry in fs::read_dir(self.data().join("attempts")).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                Cgroup::find(id).remove();
            }
        }
    }

    pub(crate) fn workspace(&self, attempt: &str) -> PathBuf {
        self.data().join("workspaces").join(attempt)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the executor's log:\n{}", self.log());
        }
        if let Some(mut child) = self.executor.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = left_over(self.root.path());
            if left.is_empty() {
                self.remove_cgroups();
                return;
            }
            assert!(Instant::now() < deadline || std::thread::panicking(), "left over: {left:?}");
            for pid in left {
                let _gone = kill_process(pid, Signal::KILL);
            }
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An account that a test has made; removed at its end.
pub(crate) struct Account(pub(crate) String);

impl Drop for Account {
    fn drop(&mut self) {
        let _absent = Command::new("/usr/sbin/userdel").arg(&self.0).output();
    }
}

/// Processes that have to do with this directory: by their arguments, environment, or working directory.
fn left_over(root: &Path) -> Vec<Pid> {
    let root = root.as_os_str().as_encoded_bytes();
    let mentions = |path: PathBuf| {
        let mut content = Vec::new();
        let read = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut content));
        read.is_ok() && content.windows(root.len()).any(|window| window == root)
    };
    let process = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let ours = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
        (!ours && (mentions(entry.path().join("cmdline")) || mentions(entry.path().join("environ")))).then_some(())?;
        Pid::from_raw(pid)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(process).collect()
}

//! An attempt of one test: its directories, its shim, and the promise that nothing of it is left.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sculpt_executor::{
    cgroup::{Cgroup, Leaf, Limits},
    shim::{self, Client, ExitRecord, Launch, Mode, Phase, Status},
    spool::{Reader, Stream},
    tree,
};
use uuid::Uuid;

/// The binary that shims run.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sculpt-executor");
/// After this a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One attempt; everything of it ends with it.
pub(crate) struct Attempt {
    pub(crate) id: Uuid,
    root: tempfile::TempDir,
    pub(crate) launch: Launch,
    client: Option<Client>,
}

impl Attempt {
    /// An attempt that runs `script` with sh.
    pub(crate) fn new(mode: Mode, script: &str) -> Self {
        Self::with_argv(mode, &["sh", "-c", script])
    }

    pub(crate) fn with_argv(mode: Mode, argv: &[&str]) -> Self {
        let id = Uuid::new_v4();
        // Sockets need a short path.
        let root = tempfile::Builder::new().prefix("sculpt-test-").tempdir_in("/tmp").unwrap();
        let path = root.path().to_owned();
        for directory in ["attempt", "work"] {
            std::fs::create_dir(path.join(directory)).unwrap();
        }
        let env = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("TERM", "xterm-256color".into()),
            ("SCULPT_ATTEMPT", id.to_string()),
        ];
        let launch = Launch {
            attempt: id,
            argv: argv.iter().map(|argument| (*argument).into()).collect(),
            env: env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            cwd: path.join("work").into(),
            identity: None,
            mode,
            stdin: None,
            timeout: None,
            lease: None,
            grace: Duration::from_secs(1),
            cgroup: Cgroup::default(),
            quiet: None,
            control_socket: path.join("s/control"),
            view_socket: path.join("s/view"),
            boot_id: None,
            processes: None,
            goes_first: false,
            sandbox: None,
        };
        Self { id, root, launch, client: None }
    }

    /// With a cgroup, where one can be made.
    pub(crate) fn in_cgroup(mut self) -> Self {
        self.launch.cgroup = Cgroup::prepare(self.id, Limits::default());
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.path().join("attempt")
    }

    pub(crate) async fn start(&mut self) -> Client {
        let client = shim::start(Path::new(PROGRAM), &self.directory(), &self.launch).await.unwrap();
        self.client = Some(client.clone());
        client
    }

    /// Starts it and waits for its end.
    pub(crate) async fn run(&mut self) -> ExitRecord {
        let client = self.start().await;
        ended(&client).await
    }

    /// The whole log, of one stream or of all.
    pub(crate) fn log(&self, stream: Option<Stream>) -> Vec<u8> {
        let mut reader = Reader::open(&self.directory().join(shim::files::SPOOL), 0).unwrap();
        let mut log = Vec::new();
        while let Some(chunk) = reader.read(1 << 20).unwrap() {
            let mut rest = chunk.data.as_slice();
            for frame in chunk.frames {
                let (data, after) = rest.split_at(frame.length as usize);
                rest = after;
                if stream.is_none_or(|wanted| wanted == frame.stream) {
                    log.extend_from_slice(data);
                }
            }
            assert!(rest.is_empty());
        }
        log
    }

    /// Waits until the log contains `text`.
    pub(crate) async fn says(&self, client: &Client, text: &str) {
        let mut news = client.subscribe().await.unwrap();
        let seen = async {
            while !String::from_utf8_lossy(&self.log(None)).contains(text) {
                let progress = news.next().await.unwrap().expect("the shim is there");
                assert!(!matches!(progress.phase, Phase::Ended(_)), "{:?}", String::from_utf8_lossy(&self.log(None)));
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the agent says it");
    }

    /// A number that the agent writes into a file of its working directory.
    pub(crate) async fn number(&self, file: &str) -> u32 {
        let path = self.work().join(file);
        eventually(|| std::fs::read_to_string(&path).ok()?.trim().parse().ok()).await
    }

    pub(crate) async fn status(&self) -> Status {
        self.client.as_ref().unwrap().status().await.unwrap()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // As after a failed test: whatever carries its name goes, then its shim.
        self.launch.cgroup.kill(Leaf::Agent);
        for mark in [tree::Mark::Agent, tree::Mark::Guest] {
            assert!(tree::kill(|| tree::carriers(mark, self.id)), "processes of the attempt are left");
        }
        let lock = std::fs::read(self.directory().join(shim::files::LOCK)).unwrap_or_default();
        if let Ok(shim) = serde_json::from_slice::<tree::ProcessId>(&lock) {
            assert!(tree::kill(|| Vec::from_iter(Some(shim).filter(|shim| shim.is_alive()))), "its shim is left");
        }
        let begun = Instant::now();
        while !self.launch.cgroup.remove() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits for the end of a shim's agent.
pub(crate) async fn ended(client: &Client) -> ExitRecord {
    let mut news = client.subscribe().await.unwrap();
    let end = async {
        loop {
            if let Phase::Ended(record) = news.next().await.unwrap().expect("the shim tells of the end").phase {
                return record;
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the agent ends")
}

/// The value that `look` gives as soon as it gives one.
pub(crate) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Environment for tmux.
pub(crate) fn plain_env() -> BTreeMap<sculpt_executor::text::ByteText, sculpt_executor::text::ByteText> {
    [("PATH", std::env::var("PATH").unwrap()), ("HOME", "/tmp".into())]
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

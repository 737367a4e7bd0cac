//! How a stack is to be, and the ground it stands on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Stack;

/// How many stacks live at once, whatever number of tests the runner starts: a stack is five processes and an initdb.
static STACKS: Semaphore = Semaphore::const_new(3);

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
        stack.ground.has_programs()?;
        stack.start_up().await?;
        Ok(stack)
    }

    /// Starts controller and executor apart.
    pub async fn parts(self) -> Result<Stack> {
        let mut stack = self.empty().await?;
        stack.ground.has_programs()?;
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
        for directory in [&root.path().join("home"), &root.path().join("run"), &root.path().join("written"), &data] {
            fs::create_dir_all(directory).context("make the stack's directories")?;
        }
        fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o700))?;
        // Agents write there, also those that run under accounts of their own.
        fs::set_permissions(root.path().join("written"), fs::Permissions::from_mode(0o1777))?;
        // What a scenario leaves is to be gone at its end, unless it is about what is kept.
        let keep = if self.settings.contains("keep_workspaces") { "" } else { "keep_workspaces = '0s'\n" };
        let settings = format!("slots = {}\n{keep}{}", self.slots, self.settings);
        fs::write(data.join("executor.toml"), settings).context("write the executor's settings")?;
        let mut bin = programs()?;
        let account = (self.ordinary && rustix::process::geteuid().is_root()).then_some(NOBODY);
        if let Some(account) = account {
            bin = programs_for(account, &bin, root.path())?;
        }
        let Self { environment, separate, .. } = self;
        let planted = format!("planted-{}", uuid::Uuid::new_v4().simple());
        Ok(Stack::new(Ground { root, data, bin, account, separate, environment, planted, _permit: permit }))
    }
}

/// What a stack stands on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) root: TempDir,
    pub(super) data: PathBuf,
    pub(super) bin: PathBuf,
    /// Everything runs under this account, if not under the tests' own.
    pub(super) account: Option<u32>,
    pub(super) separate: bool,
    pub(super) environment: Vec<(String, String)>,
    /// Value of a variable in the shell, which must turn up nowhere else.
    pub(super) planted: String,
    _permit: SemaphorePermit<'static>,
}

impl Ground {
    /// Fails when the programs were not built.
    fn has_programs(&self) -> Result<()> {
        let missing = PROGRAMS.into_iter().find(|name| !self.bin.join(name).exists());
        missing.map_or(Ok(()), |name| bail!("{name} is not in {}: run `make build`", self.bin.display()))
    }
}

impl Drop for Ground {
    /// The accounts that a separating executor made here go with it: those whose home is below our directory.
    fn drop(&mut self) {
        if !self.separate {
            return;
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        for fields in accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
            if let [name, .., home, _shell] = fields.as_slice()
                && Path::new(home).starts_with(self.root.path())
                && let Err(error) = Command::new("/usr/sbin/userdel").arg(name).output()
            {
                eprintln!("the account {name} is left over: {error}");
            }
        }
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

/// Names the directory of the three programs where it is not the one above the test binary's.
const PROGRAMS_VARIABLE: &str = "SCULPT_TEST_PROGRAMS";

/// Directory of the three programs.
pub fn programs() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAMS_VARIABLE) {
        return Ok(named.into());
    }
    let own = std::env::current_exe().context("find the test binary")?;
    let bin = own.ancestors().nth(2).context("the test binary is in target/PROFILE/deps")?.to_owned();
    Ok(bin)
}

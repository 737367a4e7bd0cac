//! The last step before an agent or a tool runs: a re-executed process that sets up what only the process itself can
//! (session, controlling terminal, cgroup, user, signal dispositions) and becomes the program by exec.

mod ahead;
mod apart;
mod refused;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{
        fs::{OpenOptionsExt as _, fchown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use rustix::{
    process::{
        Gid, Resource, Rlimit, Signal, Uid, getrlimit, ioctl_tiocsctty, set_parent_process_death_signal, setrlimit,
        setsid,
    },
    stdio::{dup2_stdin, stdin, stdout},
    termios::isatty,
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use serde::{Deserialize, Serialize};

pub use ahead::{ahead, command_ahead, main_ahead};
pub use apart::shares_memory;

use crate::{
    cgroup, descriptors,
    sandbox::{self, Envelope, Inside, Sandbox},
    shim,
    text::ByteText,
};

/// The account that a program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids; nothing of the caller's is kept.
    pub groups: Vec<u32>,
}

/// How a program is to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// Program and arguments; the program is looked up in the PATH of `env` when it has no slash.
    pub argv: Vec<ByteText>,
    /// The whole environment; absent: what the stage itself was started with.
    pub env: Option<BTreeMap<ByteText, ByteText>>,
    /// Working directory; absent: that of the caller.
    pub cwd: Option<PathBuf>,
    /// Absent: the caller's account.
    pub identity: Option<Identity>,
    /// `cgroup.procs` files to enter.
    pub cgroups: Vec<PathBuf>,
    /// How many processes its account may have; absent: as many as the caller's.
    pub processes: Option<u64>,
    /// It is what the kernel ends first when the host has no memory left.
    pub goes_first: bool,
    /// A session of its own; its controlling terminal is the first of stdin and stdout that is a terminal.
    pub session: bool,
    /// It is killed when the process (exactly: the thread) that started it dies.
    pub dies_with_parent: bool,
    /// What is put around it. Absent: nothing.
    pub sandbox: Option<Sandbox>,
    /// The living sandbox that it runs in. Absent: none.
    pub inside: Option<Inside>,
}

/// A stage that did not get to its program.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Error {
    /// What was attempted.
    pub attempt: String,
    /// Why it failed.
    pub source: io::Error,
}

impl Stage {
    /// A command that runs this stage through `program`, the executor's own binary. Set its stdio, then spawn it.
    /// The stage is seen in the process list: where `env` may hold a secret, it goes by [`command_by_stdin`].
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("stage").arg("--inline").arg(serde_json::to_string(self).unwrap_or_default());
        command.envs(descriptors::environment());
        command
    }
}

/// A command that runs the stage which is written to its stdin as JSON; the program's own stdin is empty. What an agent may
/// have a say in is no environment for a process that is still the executor's account: it would load what it is told to.
pub fn command_by_stdin(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("stage").arg("--stdin").env_clear().envs(descriptors::environment());
    command
}

/// Exit code of a stage that failed, as a shell has it for a command that it cannot run.
pub const FAILED: u8 = 127;

/// Entry of `sculpt-executor stage --inline JSON`; returns only when it fails. Call it before any thread is started.
pub fn main_inline(json: &str) -> Error {
    close_inherited_descriptors();
    match serde_json::from_str::<Stage>(json) {
        Ok(stage) => stage.exec(),
        Err(error) => failed("read the stage", error.into()),
    }
}

/// Entry of `sculpt-executor stage --stdin`; returns only when it fails. Call it before any thread is started.
pub fn main_stdin() -> Error {
    close_inherited_descriptors();
    let read = || -> io::Result<Stage> {
        let stage = serde_json::from_reader(io::stdin().lock())?;
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(stage)
    };
    match read() {
        Ok(stage) => stage.exec(),
        Err(error) => failed("read the stage", error),
    }
}

/// Entry of `sculpt-executor stage --inside NUMBER`, the last step in a sandbox: becomes what the descriptor of this number
/// holds. Returns only when it fails. Call it before any thread is started.
pub fn main_inside(handed: i32, words: Option<i32>) -> Error {
    let (stage, words) = match sandbox::inner(handed, words) {
        Ok(read) => read,
        Err(error) => return error,
    };
    let error = give_up().map_or_else(|error| error, |()| stage.exec());
    tell(words, &error);
    error
}

/// Entry of `sculpt-executor stage --launch ATTEMPT_DIR`, used by the shim, because an agent's environment must not
/// rule a process that is still the executor's account. Returns only when it fails, and notes why in the attempt's
/// directory. Call it before any thread is started.
pub fn main_launch(attempt_dir: &Path) -> Error {
    close_inherited_descriptors();
    let open = |name: &str| {
        let path = attempt_dir.join(name);
        private_file(&path).map_err(|error| failed(format!("write {}", path.display()), error))
    };
    // Opened while this process may still write there; the program does not get it.
    let words = match open(shim::files::STAGE) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let launch = match shim::Launch::read(attempt_dir) {
        Ok(launch) => launch,
        Err(error) => return failed("read what is to be run", error),
    };
    let mut envelope = Envelope::default();
    if launch.sandbox.is_some() {
        let enclosed = open(shim::files::SANDBOX).and_then(|note| {
            let words = words.try_clone().map_err(|error| failed("keep a file open", error))?;
            // The last step opens it anew, under the agent's account; its directory stays closed to that.
            let owner = launch.identity.as_ref().map(|identity| (identity.uid, identity.gid)).unzip();
            fchown(&words, owner.0, owner.1).map_err(|error| failed("give a file away", error))?;
            Ok(Envelope { note: Some(note), words: Some(words) })
        });
        envelope = match enclosed {
            Ok(envelope) => envelope,
            Err(error) => return error,
        };
    }
    let error = Stage::from(launch).exec_with(&envelope);
    tell(Some(words), &error);
    error
}

/// The exit code tells of the failure even when this text does not get through.
fn tell(words: Option<File>, error: &Error) {
    let _ = words.map(|mut file| file.write_all(error.to_string().as_bytes()));
}

impl From<shim::Launch> for Stage {
    fn from(launch: shim::Launch) -> Self {
        Self {
            argv: launch.argv,
            env: Some(launch.env),
            cwd: Some(launch.cwd.as_path().to_owned()),
            identity: launch.identity,
            cgroups: launch.cgroup.procs_files(cgroup::Leaf::Agent),
            processes: launch.processes,
            goes_first: launch.goes_first,
            session: true,
            dies_with_parent: true,
            sandbox: launch.sandbox,
            inside: None,
        }
    }
}

impl Stage {
    /// Becomes the program.
    fn exec(self) -> Error {
        self.exec_with(&Envelope::default())
    }

    fn exec_with(self, envelope: &Envelope) -> Error {
        if let Err(error) = self.enter() {
            return error;
        }
        if let Some(sandbox) = &self.sandbox {
            let attempt = self.env.as_ref().and_then(|env| env.get(&ByteText::from("SCULPT_ATTEMPT")));
            return sandbox::wrap(sandbox, &self.inner(), attempt.map(ByteText::as_os_str), envelope);
        }
        if let Some(inside) = &self.inside {
            match sandbox::join(inside, &self.inner()) {
                Ok(code) => std::process::exit(code.into()),
                Err(error) => return error,
            }
        }
        let Some((program, arguments)) = self.argv.split_first() else {
            return failed("run an empty command", io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program.as_os_str());
        command.args(arguments.iter().map(ByteText::as_os_str)).env_remove(descriptors::VARIABLE);
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str())));
        }
        failed(format!("run {:?}", program.as_os_str()), command.exec())
    }

    /// What is left to do in the sandbox.
    fn inner(&self) -> Self {
        Self {
            argv: self.argv.clone(),
            env: Some(self.env.clone().unwrap_or_default()),
            cwd: self.cwd.clone(),
            processes: self.processes,
            session: self.session,
            dies_with_parent: self.dies_with_parent,
            ..Self::default()
        }
    }

    fn enter(&self) -> Result<(), Error> {
        for file in &self.cgroups {
            fs::write(file, "0").map_err(|error| failed(format!("enter {}", file.display()), error))?;
        }
        if self.goes_first {
            fs::write("/proc/self/oom_score_adj", "1000").map_err(|error| failed("let it go first", error))?;
        }
        let here = self.sandbox.is_none() && self.inside.is_none();
        if self.session {
            setsid().map_err(|error| failed("begin a session", error.into()))?;
            if here {
                take_terminal().map_err(|error| failed("take the terminal", error.into()))?;
            }
        }
        if self.identity.is_some() || !here {
            // Before the change of account, which may have as many keys as it is let.
            apart::leave_keys();
        }
        if let Some(identity) = &self.identity {
            apart::leave_shared_memory().map_err(|error| failed("leave what processes share", error))?;
            identity.assume()?;
        }
        if !here {
            return Ok(());
        }
        if let Some(processes) = self.processes {
            let most = getrlimit(Resource::Nproc).maximum.map_or(processes, |most| most.min(processes));
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(Resource::Nproc, limit).map_err(|error| failed("limit its processes", error.into()))?;
        }
        if let Some(cwd) = &self.cwd {
            std::env::set_current_dir(cwd).map_err(|error| failed(format!("go to {}", cwd.display()), error))?;
        }
        if self.dies_with_parent {
            // After the change of account, which would clear it.
            let set = set_parent_process_death_signal(Some(Signal::KILL));
            set.map_err(|error| failed("tie its life to its parent", error.into()))?;
        }
        reset_signals().map_err(|error| failed("reset the signals", error))
    }
}

impl Identity {
    /// Gives up this process's account for good, and with it every other: a program of another attempt's account that is
    /// marked to run as that runs as this one. The process has one thread.
    fn assume(&self) -> Result<(), Error> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let changed = set_thread_groups(&groups)
            .and_then(|()| set_thread_gid(Gid::from_raw(self.gid)))
            .and_then(|()| set_thread_uid(Uid::from_raw(self.uid)));
        changed.map_err(|error| failed(format!("become account {}", self.uid), error.into()))?;
        give_up()
    }
}

/// Gives up for good what nothing in an attempt has: a right by another account's program, and the kernel's keys.
pub(crate) fn give_up() -> Result<(), Error> {
    refused::give_up().map_err(|error| failed("give up new privileges and the kernel's keys (seccomp)", error))
}

/// Why [`give_up`] cannot be done on this host.
pub(crate) fn cannot_give_up() -> Option<io::Error> {
    refused::cannot()
}

fn take_terminal() -> rustix::io::Result<()> {
    for descriptor in [stdin(), stdout()] {
        if isatty(descriptor) {
            return ioctl_tiocsctty(descriptor);
        }
    }
    Ok(())
}

/// A program started from a background job inherits ignored signals. What is caught is set to its default by exec,
/// so catching them undoes that.
pub(crate) fn reset_signals() -> io::Result<()> {
    use signal_hook::consts::signal as s;
    let signals = [
        s::SIGHUP,
        s::SIGINT,
        s::SIGQUIT,
        s::SIGTERM,
        s::SIGALRM,
        s::SIGCHLD,
        s::SIGCONT,
        s::SIGTSTP,
        s::SIGTTIN,
        s::SIGTTOU,
        s::SIGUSR1,
        s::SIGUSR2,
        s::SIGWINCH,
        s::SIGPIPE,
        s::SIGURG,
        s::SIGIO,
        s::SIGPROF,
        s::SIGVTALRM,
        s::SIGXCPU,
        s::SIGXFSZ,
        s::SIGSYS,
        s::SIGTRAP,
        s::SIGABRT,
        s::SIGBUS,
    ];
    let never_read = Arc::<AtomicBool>::default();
    signals.iter().try_for_each(|signal| signal_hook::flag::register(*signal, Arc::clone(&never_read)).map(drop))
}

/// Closes what a careless ancestor left open: a lock or a pipe that an agent would hold for hours.
/// Call it before this process has opened anything.
pub(crate) fn close_inherited_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The directory's own descriptor is among them and closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Makes an empty file that only its owner can read.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(0o600).open(path)
}

pub(crate) fn failed(attempt: impl Into<String>, source: io::Error) -> Error {
    Error { attempt: attempt.into(), source }
}

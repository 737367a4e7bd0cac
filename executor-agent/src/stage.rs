//! The last step before an agent or a tool runs: a re-executed process that sets up what only the process itself can
//! (session, controlling terminal, cgroup, user, signal dispositions) and becomes the program by exec.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use rustix::{
    process::{
        Gid, Resource, Rlimit, Signal, Uid, getrlimit, ioctl_tiocsctty, set_parent_process_death_signal, setrlimit,
        setsid,
    },
    stdio::{stdin, stdout},
    termios::isatty,
    thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid},
};
use serde::{Deserialize, Serialize};

use crate::{cgroup, shim, text::ByteText};

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
    /// A session of its own; its controlling terminal is the first of stdin and stdout that is a terminal.
    pub session: bool,
    /// It is killed when the process (exactly: the thread) that started it dies.
    pub dies_with_parent: bool,
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
    /// The stage is seen in the process list: a secret belongs into the command's environment, not into `env`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("stage").arg("--inline").arg(serde_json::to_string(self).unwrap_or_default());
        command
    }
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

/// Entry of `sculpt-executor stage --launch ATTEMPT_DIR`, used by the shim, because an agent's environment must not
/// rule a process that is still the executor's account. Returns only when it fails, and notes why in the attempt's
/// directory. Call it before any thread is started.
pub fn main_launch(attempt_dir: &Path) -> Error {
    close_inherited_descriptors();
    let note = attempt_dir.join(shim::files::STAGE);
    // Opened while this process may still write there; exec closes it.
    let mut note = match private_file(&note) {
        Ok(file) => file,
        Err(error) => return failed(format!("write {}", note.display()), error),
    };
    let error = match shim::Launch::read(attempt_dir) {
        Ok(launch) => Stage::from(launch).exec(),
        Err(error) => failed("read what is to be run", error),
    };
    // The exit code tells of the failure even when this text does not get through.
    let _ = note.write_all(error.to_string().as_bytes());
    error
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
            session: true,
            dies_with_parent: true,
        }
    }
}

impl Stage {
    /// Becomes the program.
    fn exec(self) -> Error {
        let Some((program, arguments)) = self.argv.split_first() else {
            return failed("run an empty command", io::ErrorKind::InvalidInput.into());
        };
        if let Err(error) = self.enter() {
            return error;
        }
        let mut command = Command::new(program.as_os_str());
        command.args(arguments.iter().map(ByteText::as_os_str));
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str())));
        }
        failed(format!("run {:?}", program.as_os_str()), command.exec())
    }

    fn enter(&self) -> Result<(), Error> {
        for file in &self.cgroups {
            fs::write(file, "0").map_err(|error| failed(format!("enter {}", file.display()), error))?;
        }
        if self.session {
            setsid().map_err(|error| failed("begin a session", error.into()))?;
            take_terminal().map_err(|error| failed("take the terminal", error.into()))?;
        }
        if let Some(identity) = &self.identity {
            identity.assume()?;
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
            .and_then(|()| set_thread_uid(Uid::from_raw(self.uid)))
            .and_then(|()| set_no_new_privs(true));
        changed.map_err(|error| failed(format!("become account {}", self.uid), error.into()))
    }
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

fn failed(attempt: impl Into<String>, source: io::Error) -> Error {
    Error { attempt: attempt.into(), source }
}

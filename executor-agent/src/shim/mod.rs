//! The small process that owns an attempt's agent: its terminal or pipes, its process tree, its recording and the
//! record of its end. It survives the executor and everything else.

mod agent;
mod backlog;
mod baton;
mod bury;
mod claim;
mod client;
mod control;
mod door;
mod ending;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod home;
mod keyboard;
mod keystrokes;
mod kin;
mod launch;
mod lease;
mod listen;
mod milestones;
mod pump;
mod record;
mod repaint;
mod screen;
mod shared;
mod start;
mod strings;
mod supervisor;
mod terminal;
pub mod view;
mod views;
mod wire;

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{getpid, set_child_subreaper, setsid};

pub use baton::Why;
pub use bury::{Remains, bury};
pub use claim::{is_locked, signal, take_back};
pub use client::{Client, ClientError, Subscription};
pub use keyboard::said;
pub use launch::{Launch, Mode};
pub use lease::Lease;
pub use milestones::{SOCKET, TOOL, milestones, say, say_socket};
pub use record::{EndedBy, ExitRecord, Outcome};
pub use start::{Liveness, StartError, exit_record, probe, start};
pub use wire::{Delivery, Phase, Progress, Said, Status};

use self::supervisor::Supervisor;
use crate::{cgroup::Leaf, stage};

/// Names of the files in an attempt's directory that the shim reads and writes.
pub mod files {
    /// What to run: a [`super::Launch`].
    pub const LAUNCH: &str = "launch.json";
    /// The recording.
    pub const SPOOL: &str = "spool";
    /// How it ended: a [`super::ExitRecord`].
    pub const EXIT: &str = "exit.json";
    /// Held by the living shim; says which process that is.
    pub const LOCK: &str = "shim.lock";
    /// What the shim itself had to say.
    pub const LOG: &str = "shim.log";
    /// Which sessions the agent's processes are in, where no cgroup holds them together.
    pub const KIN: &str = "kin.json";
    /// Why the agent's program could not be run.
    pub const STAGE: &str = "stage.err";
    /// Which messages to the agent were typed, or were being typed.
    pub const SAID: &str = "said.jsonl";
    /// What was said within of how far the task has come, a line each.
    pub const MILESTONES: &str = "milestones";
    /// What bubblewrap notes about the agent's sandbox.
    pub const SANDBOX: &str = "sandbox.json";
}

/// A shim that could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Error {
    /// What was attempted.
    pub attempt: String,
    /// Why it failed.
    pub source: std::io::Error,
}

/// Entry of `sculpt-executor shim run ATTEMPT_DIR`: returns when the agent has ended, the shim has been released and
/// nobody is attached. Call it before any thread is started.
pub fn main(attempt_dir: &Path) -> Result<(), Error> {
    let failed = |attempt: &str| {
        let attempt = attempt.to_owned();
        move |source| Error { attempt, source }
    };
    stage::close_inherited_descriptors();
    let attempt_dir = fs::canonicalize(attempt_dir).map_err(failed("find the attempt's directory"))?;
    let mut lock = claim::take(&attempt_dir).map_err(failed("lock the attempt; does a shim run it already?"))?;
    let launch = Launch::read(&attempt_dir).map_err(failed("read what is to be run"))?;
    claim::sign(&mut lock).map_err(failed("say who runs the attempt"))?;
    for name in [files::EXIT, files::SPOOL] {
        if attempt_dir.join(name).exists() {
            return Err(failed("run an attempt twice")(io::ErrorKind::AlreadyExists.into()));
        }
    }
    // A leader of a process group cannot begin a session, but then it has one of its own already or nearly so.
    let _ = setsid();
    std::env::set_current_dir("/").map_err(failed("go to /"))?;
    for file in launch.cgroup.procs_files(Leaf::Shim) {
        // Outside the executor's service if it can be; without that it works as well until the service is stopped.
        let _ = fs::write(file, "0");
    }
    set_child_subreaper(Some(getpid())).map_err(|error| failed("become a subreaper")(error.into()))?;
    Supervisor::start(&attempt_dir, launch)?.run()
}

/// A lock whose holder cannot leave a half-done change behind: a panic elsewhere is no reason to stop recording.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

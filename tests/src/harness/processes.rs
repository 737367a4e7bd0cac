//! The processes of one stack, found in `/proc` by its directory.

use std::{fmt, os::unix::ffi::OsStrExt, path::Path};

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};

/// A living process; its start time tells it from a later one with the same number.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Its short name, as the kernel has it.
    pub name: String,
    /// Its arguments, joined by spaces.
    pub command: String,
    /// Its parent's number.
    pub parent: i32,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.pid, self.name, self.command)
    }
}

impl Found {
    /// Sends `signal`; that the process has gone meanwhile is no error.
    pub fn signal(&self, signal: Signal) {
        if alive(self.pid) == Some(self.started)
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Start time of the process `pid`, unless it is gone or a zombie.
pub fn alive(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    (stat.state != 'Z' && stat.state != 'X').then_some(stat.starttime)
}

/// Every living process that works in `root` or names it in its arguments or environment.
pub fn of(root: &Path) -> Vec<Found> {
    let own = std::process::id();
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    all.filter_map(Result::ok)
        .filter(|process| process.pid.cast_unsigned() != own)
        .filter_map(|process| inspect(&process, root))
        .collect()
}

fn inspect(process: &Process, root: &Path) -> Option<Found> {
    let stat = process.stat().ok()?;
    if matches!(stat.state, 'Z' | 'X') {
        return None;
    }
    let command = process.cmdline().unwrap_or_default().join(" ");
    let needle = root.as_os_str().as_bytes();
    let names = |text: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    let belongs = process.cwd().is_ok_and(|cwd| cwd.starts_with(root))
        || names(command.as_bytes())
        || process.environ().is_ok_and(|all| all.values().any(|value| names(value.as_bytes())));
    belongs.then_some(Found { pid: stat.pid, started: stat.starttime, name: stat.comm, command, parent: stat.ppid })
}

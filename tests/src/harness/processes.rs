//! The processes of one stack, found in `/proc`.

use std::{
    fmt, fs, iter,
    path::{Path, PathBuf},
};

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
    /// Its arguments and its environment, each ended by a NUL; empty once it is gone.
    pub(super) fn memory(&self) -> [Vec<u8>; 2] {
        ["cmdline", "environ"].map(|file| fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default())
    }

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

/// Where the processes of a stack betray themselves.
#[derive(Clone, Debug)]
pub struct Traces {
    root: PathBuf,
    attempts: PathBuf,
}

impl Traces {
    /// Traces of the stack in `root` whose data directory is `data`.
    pub fn new(root: &Path, data: &Path) -> Self {
        Self { root: root.to_owned(), attempts: data.join("executor/attempts") }
    }

    /// Uuids of the attempts that the executor has on disk.
    pub fn attempts(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.attempts) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // Processes are killed by these: any other file's name would fit the whole machine.
        names.filter(|name| name.parse::<uuid::Uuid>().is_ok()).collect()
    }

    /// Every living process that works in the stack's directory, names it or an attempt in its arguments or
    /// environment, or is in an attempt's cgroup.
    pub fn processes(&self) -> Vec<Found> {
        let own = std::process::id();
        let needles: Vec<_> = iter::once(self.root.to_string_lossy().into_owned()).chain(self.attempts()).collect();
        let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
        all.filter_map(Result::ok)
            .filter(|process| process.pid.cast_unsigned() != own)
            .filter_map(|process| self.inspect(&process, &needles))
            .collect()
    }

    /// Every living process that belongs to one of these attempts, with the attempt: by its environment, arguments,
    /// working directory or cgroup.
    pub fn of_attempts(&self) -> Vec<(String, Found)> {
        let attempts = self.attempts();
        let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
        let belongs = |process: &Process, id: &str| {
            process.environ().is_ok_and(|all| all.values().any(|value| value.to_string_lossy().contains(id)))
                || process.cmdline().unwrap_or_default().iter().any(|argument| argument.contains(id))
                || process.cwd().is_ok_and(|cwd| cwd.to_string_lossy().contains(id))
                || process.cgroups().is_ok_and(|groups| groups.into_iter().any(|group| group.pathname.contains(id)))
        };
        all.filter_map(Result::ok)
            .filter_map(|process| {
                let id = attempts.iter().find(|id| belongs(&process, id))?;
                self.inspect(&process, std::slice::from_ref(id)).map(|found| (id.clone(), found))
            })
            .collect()
    }

    fn inspect(&self, process: &Process, needles: &[String]) -> Option<Found> {
        let stat = process.stat().ok()?;
        if matches!(stat.state, 'Z' | 'X') {
            return None;
        }
        let command = process.cmdline().unwrap_or_default().join(" ");
        let names = |text: &str| needles.iter().any(|needle| text.contains(needle.as_str()));
        let belongs = process.cwd().is_ok_and(|cwd| cwd.starts_with(&self.root))
            || names(&command)
            || process.environ().is_ok_and(|all| all.values().any(|value| names(&value.to_string_lossy())))
            || process.cgroups().is_ok_and(|groups| groups.into_iter().any(|group| names(&group.pathname)));
        belongs.then_some(Found { pid: stat.pid, started: stat.starttime, name: stat.comm, command, parent: stat.ppid })
    }
}

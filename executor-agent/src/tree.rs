//! Process trees: who descends from whom, and ending all of them.

use std::{
    collections::HashSet,
    fs,
    io::Read as _,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How often a dying tree is looked at.
const LOOK: Duration = Duration::from_millis(15);
/// How long killed processes may take to go: one in uninterruptible sleep takes as long as its disk.
const KILLED_GOES: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: u32,
    /// Start in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start: u64,
}

impl ProcessId {
    /// The process that has `pid` now; none when there is none or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        read_stat(pid).filter(|stat| !stat.is_dead()).map(|stat| stat.id)
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends `signal` to this very process; no error when it is gone.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // The descriptor pins the process before it is compared, so that a reused pid is never hit.
        let Ok(pinned) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_alive() {
            let _gone_is_fine = pidfd_send_signal(&pinned, signal);
        }
    }
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
struct Stat {
    id: ProcessId,
    parent: u32,
    state: u8,
    threads: u32,
}

impl Stat {
    fn is_dead(&self) -> bool {
        // A process whose first thread has ended looks like a zombie, but the others run on.
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

fn read_stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, parentheses and newlines too.
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&text[after_name..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // State is field 3, the number of threads 20 and the start 22; two are taken.
    let threads = fields.nth(20 - 5)?.parse().ok()?;
    let start = fields.nth(22 - 21)?.parse().ok()?;
    Some(Stat { id: ProcessId { pid, start }, parent, state, threads })
}

fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(read_stat).collect()
}

/// Living processes that carry `SCULPT_ATTEMPT=<attempt>` in their environment, without the caller. Processes whose
/// environment the caller may not read are not seen.
pub fn carriers(attempt: Uuid) -> Vec<ProcessId> {
    let needle = format!("SCULPT_ATTEMPT={attempt}");
    let own = std::process::id();
    let carries = |stat: &Stat| {
        let mut environment = Vec::new();
        // The kernel gives what stood there at exec; a hostile one can be long, so only its first MiB is read.
        let read = fs::File::open(format!("/proc/{}/environ", stat.id.pid))
            .and_then(|file| file.take(1 << 20).read_to_end(&mut environment));
        read.is_ok() && environment.split(|byte| *byte == 0).any(|entry| entry == needle.as_bytes())
    };
    let living = all().into_iter().filter(|stat| stat.id.pid != own && !stat.is_dead());
    living.filter(carries).map(|stat| stat.id).collect()
}

/// Living descendants of `pid`, without itself.
pub fn descendants(pid: u32) -> Vec<ProcessId> {
    let all = all();
    let mut family = HashSet::from([pid]);
    loop {
        let before = family.len();
        family.extend(
            all.iter().filter(|stat| family.contains(&stat.parent)).map(|stat| stat.id.pid).collect::<Vec<_>>(),
        );
        if family.len() == before {
            break;
        }
    }
    all.into_iter()
        .filter(|stat| stat.id.pid != pid && family.contains(&stat.id.pid) && !stat.is_dead())
        .map(|stat| stat.id)
        .collect()
}

/// Ends what `list` gives, again and again until it gives nothing: TERM, `grace`, KILL. True when nothing is left.
pub fn end(list: impl Fn() -> Vec<ProcessId>, grace: Duration) -> bool {
    let mut asked = HashSet::new();
    let begun = Instant::now();
    while begun.elapsed() < grace {
        let living = list();
        if living.is_empty() {
            return true;
        }
        for process in living {
            if asked.insert(process) {
                process.signal(Signal::TERM);
                // A stopped process takes the signal only when it goes on.
                process.signal(Signal::CONT);
            }
        }
        thread::sleep(LOOK);
    }
    kill(list)
}

/// Kills what `list` gives until it gives nothing. Everything is stopped first, so that nothing can fork away.
pub fn kill(list: impl Fn() -> Vec<ProcessId>) -> bool {
    let begun = Instant::now();
    loop {
        let mut seen = HashSet::new();
        loop {
            let fresh: Vec<_> = list().into_iter().filter(|process| seen.insert(*process)).collect();
            if fresh.is_empty() || begun.elapsed() > KILLED_GOES {
                break;
            }
            fresh.iter().for_each(|process| process.signal(Signal::STOP));
        }
        if seen.is_empty() {
            return true;
        }
        seen.iter().for_each(|process| process.signal(Signal::KILL));
        if begun.elapsed() > KILLED_GOES {
            return list().is_empty();
        }
        thread::sleep(LOOK);
    }
}

/// Stops (`Signal::STOP`) or continues everything that `list` gives, until nothing new appears.
pub fn signal_all(list: impl Fn() -> Vec<ProcessId>, signal: Signal) {
    let mut seen = HashSet::new();
    loop {
        let fresh: Vec<_> = list().into_iter().filter(|process| seen.insert(*process)).collect();
        if fresh.is_empty() {
            return;
        }
        fresh.iter().for_each(|process| process.signal(signal));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_tree_that_ignores_term_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; (trap '' TERM; sleep 1000 & echo x; wait) & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.is_alive());
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        assert!(!descendants(child.id()).is_empty());
        let list = || {
            let mut all = descendants(id.pid);
            all.extend(ProcessId::of(id.pid).filter(|now| *now == id));
            all
        };
        assert!(end(list, Duration::from_millis(50)));
        assert!(!id.is_alive(), "a zombie is not alive");
        child.wait().unwrap();
    }

    #[test]
    fn carriers_of_an_attempt_are_found() {
        let attempt = Uuid::new_v4();
        let mut child = Command::new("sleep").arg("1000").env("SCULPT_ATTEMPT", attempt.to_string()).spawn().unwrap();
        let found = carriers(attempt);
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [child.id()]);
        assert!(carriers(Uuid::new_v4()).is_empty());
        assert!(end(|| carriers(attempt), Duration::from_secs(5)));
        child.wait().unwrap();
    }
}

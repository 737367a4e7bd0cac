//! Process trees: who descends from whom, and ending all of them.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
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

    /// Whether it is alive and has nothing of another account than `uid`.
    pub fn is_of_account(self, uid: u32) -> bool {
        let accounts = accounts(self.pid);
        !accounts.is_empty() && accounts.iter().all(|has| *has == uid) && self.is_alive()
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

/// A session that processes of a tree are in. Unlike a parent, a session outlives the death of those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// Its id: the pid of the process that began it.
    pub id: u32,
    /// Start of that process in clock ticks since boot; when it had ended already, that of the member that was seen.
    pub start: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
struct Stat {
    id: ProcessId,
    parent: u32,
    session: u32,
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
    // State is field 3, the session 6, the number of threads 20 and the start 22.
    let session = fields.nth(6 - 5)?.parse().ok()?;
    let threads = fields.nth(20 - 7)?.parse().ok()?;
    let start = fields.nth(22 - 21)?.parse().ok()?;
    Some(Stat { id: ProcessId { pid, start }, parent, session, state, threads })
}

fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(read_stat).collect()
}

/// User ids that any living process has, be it only as its effective or saved one.
pub fn busy_accounts() -> BTreeSet<u32> {
    all().into_iter().filter(|stat| !stat.is_dead()).flat_map(|stat| accounts(stat.id.pid)).collect()
}

/// Living processes that have anything of the account `uid`, without the caller.
pub fn of_account(uid: u32) -> Vec<ProcessId> {
    let own = std::process::id();
    let living = all().into_iter().filter(|stat| stat.id.pid != own && !stat.is_dead());
    living.map(|stat| stat.id).filter(|id| accounts(id.pid).contains(&uid)).collect()
}

/// Real, effective, saved and file system user id.
fn accounts(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|uid| uid.parse().ok()).collect()
}

/// In the environment of what runs for an attempt: by it that is found wherever it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The agent's own, swept at its end.
    Agent,
    /// That of people beside it, who may look on a while longer.
    Guest,
}

impl Mark {
    /// The variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "SCULPT_ATTEMPT",
            Self::Guest => "SCULPT_BESIDE",
        }
    }
}

/// Living processes that carry this mark of the attempt in their environment, without the caller. Processes whose environment
/// the caller may not read are not seen.
pub fn carriers(mark: Mark, attempt: Uuid) -> Vec<ProcessId> {
    let needle = format!("{}={attempt}", mark.name());
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

/// Living processes whose arguments end with these, without the caller.
pub fn with_arguments(last: &[&OsStr]) -> Vec<ProcessId> {
    let own = std::process::id();
    let matches = |stat: &Stat| {
        let line = fs::read(format!("/proc/{}/cmdline", stat.id.pid)).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0).collect();
        let last = last.iter().map(|argument| argument.as_bytes());
        arguments.len() > last.len() && arguments.iter().rev().copied().zip(last.rev()).all(|(is, wanted)| is == wanted)
    };
    let living = all().into_iter().filter(|stat| stat.id.pid != own && !stat.is_dead());
    living.filter(matches).map(|stat| stat.id).collect()
}

/// Living processes in these sessions, without the caller.
pub fn members(sessions: &[Session]) -> Vec<ProcessId> {
    let own = std::process::id();
    // A leader with another start than was seen leads a later session with the same id.
    let same = |session: &&Session| read_stat(session.id).is_none_or(|leader| leader.id.start == session.start);
    let sessions: Vec<&Session> = sessions.iter().filter(same).collect();
    let belongs =
        |stat: &Stat| sessions.iter().any(|session| stat.session == session.id && stat.id.start >= session.start);
    let living = all().into_iter().filter(|stat| stat.id.pid != own && !stat.is_dead());
    living.filter(belongs).map(|stat| stat.id).collect()
}

/// The sessions that living descendants of `pid` are in, without its own.
pub fn sessions_below(pid: u32) -> BTreeSet<Session> {
    let Some(own) = read_stat(pid).map(|stat| stat.session) else { return BTreeSet::new() };
    let stats = cheap_family(pid).into_iter().filter(|stat| !stat.is_dead() && stat.session != own);
    stats
        .map(|stat| {
            let start = if stat.session == stat.id.pid { Some(stat.id.start) } else { None };
            let start = start.or_else(|| read_stat(stat.session).map(|leader| leader.id.start));
            Session { id: stat.session, start: start.unwrap_or(stat.id.start) }
        })
        .collect()
}

/// Living descendants of `pid`, without itself.
pub fn descendants(pid: u32) -> Vec<ProcessId> {
    family(pid).into_iter().filter(|stat| !stat.is_dead()).map(|stat| stat.id).collect()
}

/// Whether anything living descends from `pid`. Cheap; of a tree that changes meanwhile only its first child is certain.
pub fn has_descendants(pid: u32) -> bool {
    cheap_family(pid).iter().any(|stat| !stat.is_dead())
}

/// What [`family`] finds, where that is to be had for less than a look at all processes.
fn cheap_family(pid: u32) -> Vec<Stat> {
    family_by_children(pid).unwrap_or_else(|| family(pid))
}

/// The same from what the kernel notes about children: much cheaper on a busy host, but it may miss some of a tree
/// that changes meanwhile. None where the kernel does not note it.
fn family_by_children(pid: u32) -> Option<Vec<Stat>> {
    let mut found: Vec<Stat> = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = match fs::read_to_string(thread.path().join("children")) {
                Ok(children) => children,
                Err(_) if parent == pid => return None,
                Err(_) => continue,
            };
            let pids: Vec<u32> = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            found.extend(pids.iter().filter_map(|pid| read_stat(*pid)));
            next.extend(pids);
        }
    }
    Some(found)
}

/// The program in a sandbox that `pid` waits for: the first child of its only child, which was there before anything that
/// the sandbox's first process has taken in.
pub fn enclosed(pid: u32) -> Option<u32> {
    first_child_pid(first_child_pid(pid)?)
}

/// The child of `pid` that it had first, if it lives.
pub fn first_child(pid: u32) -> Option<ProcessId> {
    first_child_pid(pid).and_then(ProcessId::of)
}

fn first_child_pid(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}

/// Descendants of `pid`, without itself, dead ones too.
fn family(pid: u32) -> Vec<Stat> {
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
    all.into_iter().filter(|stat| stat.id.pid != pid && family.contains(&stat.id.pid)).collect()
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
        assert!(!descendants(child.id()).is_empty() && has_descendants(child.id()));
        let list = || {
            let mut all = descendants(id.pid);
            all.extend(ProcessId::of(id.pid).filter(|now| *now == id));
            all
        };
        assert!(end(list, Duration::from_millis(50)));
        assert!(!id.is_alive(), "a zombie is not alive");
        assert!(!has_descendants(child.id()), "nothing is left of it");
        child.wait().unwrap();
    }

    #[test]
    fn carriers_of_an_attempt_are_found() {
        let attempt = Uuid::new_v4();
        let mut child = Command::new("sleep").arg("1000").env("SCULPT_ATTEMPT", attempt.to_string()).spawn().unwrap();
        // A program that has just begun shows no environment for a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut found = carriers(Mark::Agent, attempt);
        while found.is_empty() && Instant::now() < deadline {
            thread::yield_now();
            found = carriers(Mark::Agent, attempt);
        }
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [child.id()]);
        assert!(carriers(Mark::Agent, Uuid::new_v4()).is_empty() && carriers(Mark::Guest, attempt).is_empty());
        assert!(end(|| carriers(Mark::Agent, attempt), Duration::from_secs(5)));
        child.wait().unwrap();
    }

    #[test]
    fn a_session_is_known_by_its_leaders_start() {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", "sleep 1000 & echo x; wait"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let leader = ProcessId::of(child.id()).unwrap();
        let session = Session { id: leader.pid, start: leader.start };
        assert!(sessions_below(std::process::id()).contains(&session));
        assert_eq!(members(&[session]).len(), 2);
        let other = Session { start: leader.start - 1, ..session };
        assert!(members(&[other]).is_empty(), "its id was given to another process since");
        assert!(kill(|| members(&[session])));
        child.wait().unwrap();
    }
}

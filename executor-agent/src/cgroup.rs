//! A cgroup per attempt, with leaves for the agent, its view and its shim, in whatever hierarchies this host offers.

mod places;

use std::{
    fs, io,
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Access, AtFlags, CWD, Stat, access, unlinkat};
use sculpt_walk::{Place, Then, Visitor, open_directory, walk};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::places::step_aside;
use self::places::{CONTROLLERS, Controller, Hierarchy, hierarchies};

/// Directory that holds everything of ours, in the highest cgroup that lets us make it.
const ROOM: &str = "sculpt";
/// How long the kernel may take to freeze a tree.
const FREEZE: Duration = Duration::from_secs(2);

/// The leaves of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The agent's tree: frozen, limited, killed.
    Agent,
    /// tmux and people's shells: only killed.
    View,
    /// The shim, so that it is outside the executor's service.
    Shim,
}

impl Leaf {
    const ALL: [Self; 3] = [Self::Agent, Self::View, Self::Shim];

    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::View => "view",
            Self::Shim => "shim",
        }
    }
}

/// What an attempt may use; absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Number of tasks (threads and processes).
    pub pids: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

/// By which version of cgroups the use of an attempt is counted, so that it ends at its limits; none: by no cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// Its memory.
    pub memory: Option<Version>,
    /// Its processes.
    pub pids: Option<Version>,
    /// Its processor time.
    pub cpu: Option<Version>,
}

/// A version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

/// The cgroup directories of one attempt; empty where none could be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// In the v2 hierarchy: freezes and kills.
    pub unified: Option<PathBuf>,
    /// In v1 hierarchies, one each for memory, pids and cpu: limits.
    pub limits: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates what can be created for `attempt` on this host; as an ordinary user that is what was delegated. Blocks briefly.
    pub fn prepare(attempt: Uuid, limits: Limits) -> Self {
        let Ok(hierarchies) = hierarchies() else { return Self::default() };
        let name = attempt.to_string();
        let unified = hierarchies.unified.and_then(|it| it.down().find_map(|base| unified(&base, &name, limits)));
        let limits = hierarchies.v1.into_iter().filter_map(|(controller, hierarchy)| {
            let own = |base: PathBuf| {
                let own = base.join(ROOM).join(&name);
                fs::create_dir_all(own.join(Leaf::Agent.name())).is_ok().then_some(own)
            };
            let own = hierarchy.down().find_map(own)?;
            limit_v1(controller, &own.join(Leaf::Agent.name()), limits);
            Some(own)
        });
        Self { unified, limits: limits.collect() }
    }

    /// What stands on this host for `attempt`; nothing is made.
    pub fn find(attempt: Uuid) -> Self {
        let Ok(hierarchies) = hierarchies() else { return Self::default() };
        let name = attempt.to_string();
        let own = |hierarchy: Hierarchy| {
            let mut all = hierarchy.down().map(|base| base.join(ROOM).join(&name));
            all.find(|own| own.is_dir())
        };
        let limits = hierarchies.v1.into_iter().filter_map(|(_, hierarchy)| own(hierarchy));
        Self { unified: hierarchies.unified.and_then(own), limits: limits.collect() }
    }

    /// Whether there is a hierarchy that can freeze and kill.
    pub fn can_kill(&self) -> bool {
        self.unified.as_ref().is_some_and(|own| own.join(Leaf::Agent.name()).join("cgroup.kill").exists())
    }

    /// The `cgroup.procs` files through which a process enters `leaf`.
    pub fn procs_files(&self, leaf: Leaf) -> Vec<PathBuf> {
        let own = self.unified.iter().chain(self.limits.iter().filter(|_| leaf == Leaf::Agent));
        own.map(|own| own.join(leaf.name()).join("cgroup.procs")).collect()
    }

    /// Living processes in `leaf` of the v2 hierarchy. Zombies are left out.
    pub fn members(&self, leaf: Leaf) -> Vec<u32> {
        let Some(own) = &self.unified else { return Vec::new() };
        let Ok(text) = fs::read_to_string(own.join(leaf.name()).join("cgroup.procs")) else { return Vec::new() };
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.filter(|pid| crate::tree::ProcessId::of(*pid).is_some()).collect()
    }

    /// Freezes or thaws the agent's tree; false when there is no hierarchy that can.
    pub fn freeze(&self, frozen: bool) -> bool {
        let Some(own) = &self.unified else { return false };
        let leaf = own.join(Leaf::Agent.name());
        if fs::write(leaf.join("cgroup.freeze"), if frozen { "1" } else { "0" }).is_err() {
            return false;
        }
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let begun = Instant::now();
        while begun.elapsed() < FREEZE {
            let events = fs::read_to_string(leaf.join("cgroup.events")).unwrap_or_default();
            if events.lines().any(|line| line == wanted) {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Kills everything in `leaf` at once; false when there is no hierarchy that can.
    pub fn kill(&self, leaf: Leaf) -> bool {
        let Some(own) = &self.unified else { return false };
        fs::write(own.join(leaf.name()).join("cgroup.kill"), "1").is_ok()
    }

    /// Whether the kernel killed a process of the agent for lack of memory.
    pub fn out_of_memory(&self) -> bool {
        let v2 = self.unified.iter().map(|own| own.join(Leaf::Agent.name()).join("memory.events"));
        let v1 = self.limits.iter().map(|own| own.join(Leaf::Agent.name()).join("memory.oom_control"));
        v2.chain(v1).filter_map(|path| fs::read_to_string(path).ok()).any(|text| counted(&text, "oom_kill "))
    }

    /// What of the agent can be limited.
    pub fn counting(&self) -> Counting {
        let has = |own: &PathBuf, file: &str| own.join(Leaf::Agent.name()).join(file).exists();
        let by = |v2: &str, v1: &str| {
            let unified = self.unified.iter().any(|own| has(own, v2)).then_some(Version::V2);
            unified.or_else(|| self.limits.iter().any(|own| has(own, v1)).then_some(Version::V1))
        };
        Counting {
            memory: by("memory.max", "memory.limit_in_bytes"),
            pids: by("pids.max", "pids.max"),
            cpu: by("cpu.max", "cpu.cfs_quota_us"),
        }
    }

    /// What of an agent could be limited on this host now. Blocks briefly.
    pub fn probe() -> Counting {
        let probe = Self::prepare(Uuid::new_v4(), Limits::default());
        let counting = probe.counting();
        probe.remove();
        counting
    }

    /// Whether the agent was refused a process because it had as many as it may.
    pub fn out_of_processes(&self) -> bool {
        let events = self.all().map(|own| own.join(Leaf::Agent.name()).join("pids.events"));
        events.filter_map(|path| fs::read_to_string(path).ok()).any(|text| counted(&text, "max "))
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.unified.iter().chain(&self.limits)
    }

    /// Removes the directories; a leaf with processes stays. False when one does.
    pub fn remove(&self) -> bool {
        self.all().filter(|own| !remove(own)).count() == 0
    }
}

/// Whether the line that begins with `event` counts any.
fn counted(events: &str, event: &str) -> bool {
    events.lines().find_map(|line| line.strip_prefix(event)).is_some_and(|count| count.trim() != "0")
}

fn remove(own: &Path) -> bool {
    let leaves = Leaf::ALL.iter().map(|leaf| own.join(leaf.name()));
    let gone = |path: &Path| match fs::remove_dir(path) {
        Ok(()) => true,
        // What runs containers makes cgroups in its own.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && nested(path) => {
            let emptied = open_directory(CWD, path).and_then(|leaf| walk(leaf, &mut Nested));
            emptied.is_ok() && fs::remove_dir(path).is_ok()
        }
        // What the system does not let be removed is held by nobody.
        Err(error) => error.kind() != io::ErrorKind::ResourceBusy,
    };
    leaves.filter(|leaf| !gone(leaf)).count() == 0 && gone(own)
}

fn nested(path: &Path) -> bool {
    // A directory has a link from its parent, one from itself, and one from each directory in it.
    fs::metadata(path).is_ok_and(|found| found.nlink() > 2)
}

/// Removes the cgroups in a cgroup; their files go with them.
struct Nested;

impl Visitor for Nested {
    fn enter(&mut self, _directory: BorrowedFd<'_>, _found: &Stat) -> io::Result<()> {
        Ok(())
    }

    fn pass(&mut self, _place: Place<'_>, _found: &Stat) -> io::Result<()> {
        Ok(())
    }

    fn leave(&mut self, place: Place<'_>, _rounds: u32) -> io::Result<Then> {
        unlinkat(place.parent, place.name, AtFlags::REMOVEDIR)?;
        Ok(Then::On)
    }
}

fn make(path: &Path) -> Option<PathBuf> {
    match fs::create_dir(path) {
        Ok(()) => Some(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(path.to_owned()),
        Err(_) => None,
    }
}

/// The cgroup `name` and its leaves in the room below `base` of the v2 hierarchy; none where that cannot be used.
fn unified(base: &Path, name: &str, limits: Limits) -> Option<PathBuf> {
    // A process gets from one cgroup to another only by who may write to what is above both.
    access(base.join("cgroup.procs"), Access::WRITE_OK).ok()?;
    let room = make(&base.join(ROOM))?;
    // Controllers are passed down where the kernel lets us; freezing and killing needs none.
    delegate(base);
    delegate(&room);
    let own = make(&room.join(name))?;
    delegate(&own);
    Leaf::ALL.iter().try_for_each(|leaf| make(&own.join(leaf.name())).map(drop))?;
    limit_v2(&own.join(Leaf::Agent.name()), limits);
    Some(own)
}

fn delegate(cgroup: &Path) {
    for controller in CONTROLLERS {
        let _where_it_can = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn limit_v2(leaf: &Path, limits: Limits) {
    let cpu = limits.cpu_millis.map(|millis| format!("{} 100000", millis.saturating_mul(100)));
    let files = [
        ("memory.max", limits.memory.map(|b| b.to_string())),
        ("pids.max", limits.pids.map(|n| n.to_string())),
        ("cpu.max", cpu),
    ];
    write_limits(leaf, files);
}

fn limit_v1(controller: Controller, leaf: &Path, limits: Limits) {
    let file = match controller {
        Controller::Memory => ("memory.limit_in_bytes", limits.memory.map(|b| b.to_string())),
        Controller::Pids => ("pids.max", limits.pids.map(|n| n.to_string())),
        Controller::Cpu => ("cpu.cfs_quota_us", limits.cpu_millis.map(|millis| millis.saturating_mul(100).to_string())),
    };
    write_limits(leaf, [file]);
}

fn write_limits<const N: usize>(leaf: &Path, files: [(&str, Option<String>); N]) {
    for (name, value) in files {
        if let Some(value) = value
            && let Err(error) = fs::write(leaf.join(name), &value)
            && leaf.join(name).exists()
        {
            tracing::warn!(path = %leaf.join(name).display(), value, %error, "a limit could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_is_removed() {
        let cgroup = Cgroup::prepare(Uuid::new_v4(), Limits { pids: Some(100), ..Limits::default() });
        assert!(cgroup.members(Leaf::Agent).is_empty());
        assert!(cgroup.procs_files(Leaf::Agent).iter().all(|path| path.exists()));
        assert!(!cgroup.out_of_memory());
        assert!(cgroup.remove());
    }

    #[test]
    fn a_cgroup_stays_as_long_as_a_process_is_in_it() {
        let cgroup = Cgroup::prepare(Uuid::new_v4(), Limits::default());
        let files = cgroup.procs_files(Leaf::Agent);
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        for file in &files {
            fs::write(file, child.id().to_string()).unwrap();
        }
        // Where no cgroup can be made, nothing stays.
        assert_eq!(cgroup.remove(), files.is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(cgroup.remove());
        assert!(cgroup.all().all(|own| !own.exists()));
    }

    #[test]
    fn cgroups_that_an_agent_has_made_are_removed_with_its_own() {
        let cgroup = Cgroup::prepare(Uuid::new_v4(), Limits::default());
        for own in cgroup.all() {
            fs::create_dir_all(own.join(Leaf::Agent.name()).join("container/init")).unwrap();
            fs::create_dir(own.join(Leaf::Agent.name()).join("another")).unwrap();
        }
        assert!(cgroup.remove());
        assert!(cgroup.all().all(|own| !own.exists()));
    }
}

//! Who sees to it that an attempt does not use more than it may.

use std::{env, path::Path};

use sculpt_proto::v1::Counters;

use super::Attempts;
use crate::{
    cgroup::{Cgroup, Counting, Limits, Version},
    host,
    sandbox::Separation,
};

/// How many processes the attempt's account may have: where no cgroup counts them, the account does, or its namesake in the
/// sandbox.
pub(super) fn of_account(limits: &Limits, cgroup: &Cgroup, separated: bool) -> Option<u64> {
    limits.pids.filter(|_| separated && cgroup.counting().pids.is_none())
}

/// What the pool allows, where this executor's own settings are not tighter.
pub(super) fn tighter(own: Limits, pool: Limits) -> Limits {
    let least = |own: Option<u64>, pool: Option<u64>| own.into_iter().chain(pool).min();
    Limits {
        memory: least(own.memory, pool.memory),
        pids: least(own.pids, pool.pids),
        cpu_millis: least(own.cpu_millis, pool.cpu_millis),
    }
}

/// Whether nothing but the host's own end of memory holds the agent back, though something should.
pub(super) fn goes_first(limits: &Limits, cgroup: &Cgroup) -> bool {
    limits.memory.is_some() && cgroup.counting().memory.is_none()
}

/// What people have to know of an attempt whose pool limits what nothing counts here.
pub(super) fn unmet(pool: &Limits, cgroup: &Cgroup, separated: bool) -> Option<String> {
    let missing = missing(pool, cgroup.counting(), separated);
    let names = listed(missing.into_iter().map(|(what, _)| what))?;
    Some(format!("its pool limits {names}, and this executor cannot: {}", Host::this().lacking()))
}

/// Who this executor is to its host, which decides what can be done where nothing is counted.
#[derive(Clone, Copy, Debug)]
struct Host {
    root: bool,
    /// A manager of this account's own units runs.
    units: bool,
}

impl Host {
    fn this() -> Self {
        let runtime = env::var_os("XDG_RUNTIME_DIR");
        let units = runtime.is_some_and(|runtime| Path::new(&runtime).join("systemd/private").exists());
        Self { root: host::is_root(), units }
    }

    /// Why nothing is counted, and what would change that.
    fn lacking(self) -> &'static str {
        match self {
            Self { root: true, .. } => {
                "it can make no cgroups that count them (its host or container has none, or keeps them from it)"
            }
            Self { units: false, .. } => {
                "it can make no cgroups that count them (as an ordinary user it needs a unit with Delegate=yes)"
            }
            Self { units: true, .. } => {
                "it can make no cgroups that count them (as an ordinary user it needs a unit with Delegate=yes; here \
                 `systemd-run --user --scope -p Delegate=yes sculpt-executor run` makes one)"
            }
        }
    }
}

impl Attempts {
    /// What people have to know when something should be limited, and nothing here can.
    pub(crate) fn unlimited(&self) -> Option<String> {
        let (limits, counting) = (&self.context.settings.limits, self.context.counting);
        words(limits, counting, self.context.separation.separates(), Host::this())
    }
}

/// By what attempts are held to limits here, for people.
pub(crate) fn counters(counting: Counting, separation: &Separation) -> Counters {
    told(counting, separation, Host::this())
}

fn told(counting: Counting, separation: &Separation, host: Host) -> Counters {
    let by = |version: Option<Version>| match (version, host.root) {
        (Some(Version::V1), true) => "cgroup v1",
        (Some(Version::V1), false) => "delegated cgroup v1",
        (Some(Version::V2), true) => "cgroup v2",
        (Some(Version::V2), false) => "delegated cgroup v2",
        (None, _) => "",
    };
    let processes = match (counting.pids, separation) {
        (None, Separation::Accounts { .. }) => "the attempt's account",
        (None, Separation::Bubblewrap(_)) => "the sandbox's own count of its account",
        (counted, _) => by(counted),
    };
    let (memory, cpu) = (by(counting.memory), by(counting.cpu));
    let lacks = [memory, processes, cpu].contains(&"");
    Counters {
        memory: memory.to_owned(),
        processes: processes.to_owned(),
        cpu: cpu.to_owned(),
        lacking: if lacks { host.lacking().to_owned() } else { String::new() },
    }
}

/// What this executor should limit and cannot, in words.
fn words(limits: &Limits, counting: Counting, separated: bool, host: Host) -> Option<String> {
    let missing = missing(limits, counting, separated);
    let names = listed(missing.iter().map(|(what, _)| *what))?;
    let accepts = listed(missing.iter().map(|(_, accepts)| *accepts))?;
    Some(format!("this executor does not limit {names} of attempts: {}; {accepts} accepts that", host.lacking()))
}

/// What is limited and not counted, and the setting that asks for no limit.
fn missing(limits: &Limits, counting: Counting, separated: bool) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("processes", "pids_limit = 0", limits.pids.is_some() && counting.pids.is_none() && !separated),
        ("memory", "an absent memory_limit", limits.memory.is_some() && counting.memory.is_none()),
        ("processor time", "an absent cpu_limit", limits.cpu_millis.is_some() && counting.cpu.is_none()),
    ];
    all.into_iter().filter_map(|(what, accepts, missing)| missing.then_some((what, accepts))).collect()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDINARY: Host = Host { root: false, units: false };

    #[test]
    fn the_tighter_limit_holds() {
        let limits = |memory, pids, cpu_millis| Limits { memory, pids, cpu_millis };
        let own = limits(Some(8), Some(5), None);
        assert_eq!(tighter(own, limits(Some(4), Some(9), Some(500))), limits(Some(4), Some(5), Some(500)));
        assert_eq!(tighter(own, Limits::default()), own);
    }

    #[test]
    fn what_cannot_be_limited_is_named() {
        let all = Limits { pids: Some(1), memory: Some(1), cpu_millis: Some(1) };
        let names = |limits: &Limits, [pids, memory, cpu]: [bool; 3], separated| {
            let by = |counted: bool| counted.then_some(Version::V2);
            let counting = Counting { pids: by(pids), memory: by(memory), cpu: by(cpu) };
            let words = words(limits, counting, separated, ORDINARY).unwrap_or_default();
            ["pids_limit", "memory_limit", "cpu_limit"].map(|name| words.contains(name))
        };
        assert_eq!(names(&all, [true, true, true], false), [false; 3]);
        assert_eq!(names(&all, [false, true, true], false), [true, false, false]);
        assert_eq!(names(&all, [false, true, true], true), [false; 3]);
        assert_eq!(names(&all, [true, false, true], true), [false, true, false]);
        assert_eq!(names(&all, [true, true, false], true), [false, false, true]);
        assert_eq!(names(&all, [false, false, false], false), [true; 3]);
        assert_eq!(names(&Limits::default(), [false, false, false], false), [false; 3]);
    }

    #[test]
    fn by_what_each_limit_holds_is_said() {
        let all = |version| Counting { memory: Some(version), pids: Some(version), cpu: Some(version) };
        let (accounts, bwrap) =
            (Separation::Accounts { bwrap: Err(String::new()) }, Separation::Bubblewrap("/bwrap".into()));
        let nothing = Separation::Nothing("why".to_owned());
        let root = Host { root: true, units: false };
        for (counting, separation, host, [memory, processes, cpu]) in [
            (all(Version::V2), &accounts, root, ["cgroup v2"; 3]),
            (all(Version::V1), &nothing, root, ["cgroup v1"; 3]),
            (all(Version::V2), &bwrap, ORDINARY, ["delegated cgroup v2"; 3]),
            (Counting::default(), &accounts, root, ["", "the attempt's account", ""]),
            (Counting::default(), &bwrap, ORDINARY, ["", "the sandbox's own count of its account", ""]),
            (Counting::default(), &nothing, ORDINARY, [""; 3]),
            (
                Counting { memory: None, ..all(Version::V1) },
                &bwrap,
                ORDINARY,
                ["", "delegated cgroup v1", "delegated cgroup v1"],
            ),
        ] {
            let told = told(counting, separation, host);
            assert_eq!([&told.memory, &told.processes, &told.cpu], [memory, processes, cpu], "{separation:?}");
            assert_eq!(told.lacking.is_empty(), counting.memory.is_some(), "{told:?}");
        }
        let says = |host: Host, word: &str| host.lacking().contains(word);
        assert!(says(Host { units: true, ..ORDINARY }, "systemd-run --user"));
        assert!(says(ORDINARY, "Delegate=yes") && !says(ORDINARY, "systemd-run") && !says(root, "Delegate"));
    }

    #[test]
    fn what_a_pool_limits_and_nothing_counts_is_said() {
        let (pool, none) = (Limits { pids: Some(1), memory: Some(1), cpu_millis: None }, Cgroup::default());
        assert!(unmet(&pool, &none, false).unwrap().starts_with("its pool limits processes and memory, and"));
        assert!(unmet(&pool, &none, true).unwrap().starts_with("its pool limits memory, and"));
        assert_eq!(unmet(&Limits::default(), &none, false), None);
        assert!(goes_first(&pool, &none) && !goes_first(&Limits::default(), &none));
    }
}

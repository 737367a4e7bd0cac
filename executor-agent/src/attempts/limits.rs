//! Who sees to it that an attempt does not use more than it may.

use super::Attempts;
use crate::cgroup::{Cgroup, Limits};

/// How many processes the attempt's account may have: where no cgroup counts them, the account does, or its namesake in the
/// sandbox.
pub(super) fn of_account(limits: &Limits, cgroup: &Cgroup, separated: bool) -> Option<u64> {
    limits.pids.filter(|_| separated && !cgroup.counts_processes())
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
    limits.memory.is_some() && !cgroup.counts_memory()
}

/// What can be counted here.
#[derive(Clone, Copy, Debug)]
struct Counted {
    processes: bool,
    memory: bool,
    cpu: bool,
}

impl Counted {
    fn of(cgroup: &Cgroup, separated: bool) -> Self {
        Self {
            processes: separated || cgroup.counts_processes(),
            memory: cgroup.counts_memory(),
            cpu: cgroup.counts_cpu(),
        }
    }
}

/// What people have to know of an attempt whose pool limits what nothing counts here.
pub(super) fn unmet(pool: &Limits, cgroup: &Cgroup, separated: bool) -> Option<String> {
    let missing = missing(pool, Counted::of(cgroup, separated));
    let names = listed(missing.into_iter().map(|(what, _)| what))?;
    Some(format!("its pool limits {names}, and this executor cannot: {NO_CGROUPS}"))
}

/// Why.
const NO_CGROUPS: &str =
    "it can make no cgroups that count them (as an ordinary user it needs a unit with Delegate=yes)";

impl Attempts {
    /// What people have to know when something should be limited, and nothing here can.
    pub(crate) fn unlimited(&self) -> Option<String> {
        let separated = self.context.separation.separates();
        words(&self.context.settings.limits, Cgroup::probe(|cgroup| Counted::of(cgroup, separated)))
    }
}

/// In words, with what can be counted here.
fn words(limits: &Limits, counted: Counted) -> Option<String> {
    let missing = missing(limits, counted);
    let names = listed(missing.iter().map(|(what, _)| *what))?;
    let accepts = listed(missing.iter().map(|(_, accepts)| *accepts))?;
    Some(format!("this executor does not limit {names} of attempts: {NO_CGROUPS}; {accepts} accepts that"))
}

/// What is limited and not counted, and the setting that asks for no limit.
fn missing(limits: &Limits, counted: Counted) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("processes", "pids_limit = 0", limits.pids.is_some() && !counted.processes),
        ("memory", "an absent memory_limit", limits.memory.is_some() && !counted.memory),
        ("processor time", "an absent cpu_limit", limits.cpu_millis.is_some() && !counted.cpu),
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
        let names = |limits: &Limits, processes, memory, cpu| {
            let words = words(limits, Counted { processes, memory, cpu }).unwrap_or_default();
            ["pids_limit", "memory_limit", "cpu_limit"].map(|name| words.contains(name))
        };
        assert_eq!(names(&all, true, true, true), [false; 3]);
        assert_eq!(names(&all, false, true, true), [true, false, false]);
        assert_eq!(names(&all, true, false, true), [false, true, false]);
        assert_eq!(names(&all, true, true, false), [false, false, true]);
        assert_eq!(names(&all, false, false, false), [true; 3]);
        assert_eq!(names(&Limits::default(), false, false, false), [false; 3]);
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

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

impl Attempts {
    /// What people have to know when something should be limited, and nothing here can.
    pub(crate) fn unlimited(&self) -> Option<String> {
        let settings = &self.context.settings;
        let (processes, memory) = Cgroup::probe(|cgroup| (cgroup.counts_processes(), cgroup.counts_memory()));
        words(&settings.limits, processes || self.context.separation.separates(), memory)
    }
}

/// In words, with what can be counted here.
fn words(limits: &Limits, processes: bool, memory: bool) -> Option<String> {
    let missing = [
        ("pids_limit = 0", limits.pids.is_some() && !processes),
        ("an absent memory_limit", limits.memory.is_some() && !memory),
    ];
    let missing: Vec<&str> = missing.into_iter().filter_map(|(accepts, missing)| missing.then_some(accepts)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "attempts are not limited: this executor can make no cgroups that count what they use; {} accepts that",
            missing.join(" and ")
        )
    })
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
        let all = Limits { pids: Some(1), memory: Some(1), cpu_millis: None };
        let names = |limits: &Limits, processes, memory| {
            let words = words(limits, processes, memory).unwrap_or_default();
            (words.contains("pids_limit"), words.contains("memory_limit"))
        };
        assert_eq!(names(&all, true, true), (false, false));
        assert_eq!(names(&all, false, true), (true, false));
        assert_eq!(names(&all, true, false), (false, true));
        assert_eq!(names(&all, false, false), (true, true));
        assert_eq!(names(&Limits::default(), false, false), (false, false));
    }
}

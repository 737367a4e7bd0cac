//! Who sees to it that an attempt does not use more than it may.

use super::Attempts;
use crate::{
    accounts::Account,
    cgroup::{Cgroup, Limits},
};

/// How many processes the attempt's account may have: where no cgroup counts them, the account does.
pub(super) fn of_account(limits: &Limits, cgroup: &Cgroup, account: Option<&Account>) -> Option<u64> {
    limits.pids.filter(|_| account.is_some() && !cgroup.counts_processes())
}

impl Attempts {
    /// What people have to know when something should be limited, and nothing here can.
    pub(crate) fn unlimited(&self) -> Option<String> {
        let settings = &self.context.settings;
        let (processes, memory) = Cgroup::probe(|cgroup| (cgroup.counts_processes(), cgroup.counts_memory()));
        words(&settings.limits, processes || settings.separate, memory)
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

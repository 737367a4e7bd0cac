//! How an agent's end is brought about.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process_group},
    termios::tcgetpgrp,
};
use uuid::Uuid;

use super::record::EndedBy;
use crate::{
    cgroup::{Cgroup, Leaf},
    tree::{self, Mark, ProcessId},
};

/// What is left after the main process's end gets so long between TERM and KILL.
const REST: Duration = Duration::from_secs(5);
/// How often what does not die is killed again.
const AGAIN: Duration = Duration::from_secs(1);

/// The agent's processes.
pub(super) struct Tree {
    pub(super) attempt: Uuid,
    pub(super) main: u32,
    /// The main process waits for one in a sandbox, which is the agent.
    pub(super) enclosed: bool,
    pub(super) cgroup: Cgroup,
    pub(super) master: Option<Arc<OwnedFd>>,
}

/// An end that somebody wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) by: EndedBy,
    next: Step,
    /// When `next` is due.
    pub(super) at: Instant,
    kill_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Terminate,
    Kill,
}

impl Ending {
    /// Interrupts the agent; [`Self::go_on`] takes the further steps.
    pub(super) fn begin(by: EndedBy, grace: Duration, tree: &Tree) -> Self {
        tree.hold(false);
        tree.interrupt();
        let now = Instant::now();
        // Beyond any agent's patience, and short enough not to overflow.
        let grace = grace.min(Duration::from_secs(86_400));
        Self { by, next: Step::Terminate, at: now + grace / 2, kill_at: now + grace }
    }

    /// Somebody else wants it too, perhaps sooner.
    pub(super) fn hasten(&mut self, grace: Duration) {
        let now = Instant::now();
        self.kill_at = self.kill_at.min(now + grace);
        self.at = self.at.min(if self.next == Step::Kill { self.kill_at } else { now + grace / 2 });
    }

    /// Takes the step that is due, if one is.
    pub(super) fn go_on(&mut self, tree: &Tree) {
        if Instant::now() < self.at {
            return;
        }
        match self.next {
            Step::Terminate => {
                let members = tree.members();
                members.iter().for_each(|process| process.signal(Signal::TERM));
                members.iter().for_each(|process| process.signal(Signal::CONT));
                self.next = Step::Kill;
                self.at = self.kill_at;
            }
            Step::Kill => {
                tree.cgroup.kill(Leaf::Agent);
                tree::kill(|| tree.members());
                self.at = Instant::now() + AGAIN;
            }
        }
    }

    /// How long what is left after the main process's end may take.
    pub(super) fn rest(ending: Option<&Self>) -> Duration {
        ending.map_or(REST, |ending| ending.kill_at.saturating_duration_since(Instant::now()).min(REST))
    }
}

impl Tree {
    /// All living processes of the agent: the shim's descendants, as it is their subreaper, and its cgroup's members.
    fn members(&self) -> Vec<ProcessId> {
        let mut members = tree::descendants(std::process::id());
        for pid in self.cgroup.members(Leaf::Agent) {
            if let Some(process) = ProcessId::of(pid)
                && !members.contains(&process)
            {
                members.push(process);
            }
        }
        members
    }

    /// Freezes or thaws all of it.
    pub(super) fn hold(&self, held: bool) {
        if !self.cgroup.freeze(held) {
            tree::signal_all(|| self.members(), if held { Signal::STOP } else { Signal::CONT });
        }
    }

    /// What Ctrl-C does, and the same for the agent when something else is in the terminal's foreground.
    fn interrupt(&self) {
        let main = if self.enclosed { tree::enclosed(self.main) } else { Some(self.main) };
        let main = main.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let foreground = self.master.as_ref().and_then(|master| tcgetpgrp(&**master).ok());
        for group in main.into_iter().chain(foreground.filter(|group| Some(*group) != main)) {
            // Both may have ended by themselves.
            let _ = kill_process_group(group, Signal::INT);
        }
    }

    /// Ends whatever is left; false when something could not be killed.
    pub(super) fn end(&self, grace: Duration) -> bool {
        self.hold(false);
        tree::end(|| self.members(), grace);
        self.cgroup.kill(Leaf::Agent);
        let gone = tree::kill(|| self.members());
        // Those that got out of both, through a daemon outside, still carry the attempt's name.
        let carriers_gone = tree::end(|| tree::carriers(Mark::Agent, self.attempt), grace);
        gone && carriers_gone
    }
}

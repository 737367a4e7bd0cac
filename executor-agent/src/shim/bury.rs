//! What follows the death of a shim.

use std::path::Path;

use uuid::Uuid;

use super::{claim, files, kin, launch::Launch};
use crate::{
    cgroup::{Cgroup, Leaf},
    damage,
    spool::{self, Recovered},
    tree::{self, Mark, ProcessId},
};

/// What a shim that died has left.
#[derive(Clone, Debug)]
pub struct Remains {
    /// The spool to its last whole frame.
    pub spool: Recovered,
    /// Whether processes of the agent are left that could not be killed.
    pub left_over: bool,
}

/// Ends what is left of the tree of `attempt` and repairs the spool in `attempt_dir`, of which nothing need be left. A
/// shim that lives after all is killed, and one that comes late runs nothing. Blocks for some seconds at most.
pub fn bury(attempt_dir: &Path, attempt: Uuid) -> Result<Remains, spool::Error> {
    let given_up = claim::give_up(attempt_dir);
    // What cannot be read any more is found by its name.
    let launch = Launch::read(attempt_dir).ok();
    let identity = launch.as_ref().and_then(|launch| launch.identity.as_ref());
    let account = identity.map(|identity| identity.uid).filter(|uid| *uid != rustix::process::geteuid().as_raw());
    let cgroup = launch.map_or_else(|| Cgroup::find(attempt), |launch| launch.cgroup);
    // Nobody else has an attempt's account. Who is in its view has it too, and stays where a cgroup tells them apart.
    let account = account.filter(|_| !cgroup.can_kill());
    let sessions = kin::read(attempt_dir);
    let members = || {
        let mut members: Vec<_> = cgroup.members(Leaf::Agent).into_iter().filter_map(ProcessId::of).collect();
        members.extend(tree::carriers(Mark::Agent, attempt));
        members.extend(tree::members(&sessions));
        members.extend(account.map(tree::of_account).unwrap_or_default());
        members
    };
    // A frozen tree is killed as it is; what a signal must reach first is thawed by the kernel.
    cgroup.kill(Leaf::Agent);
    cgroup.freeze(false);
    let left_over = !tree::kill(members);
    match given_up {
        // Somebody may still write what would be repaired here.
        Err(source) if damage::passes(&source) => {
            return Err(spool::Error::Io { attempt: "take over", path: attempt_dir.join(files::LOCK), source });
        }
        // A lock that cannot be read was not taken by a shim either.
        Ok(()) | Err(_) => {}
    }
    Ok(Remains { spool: spool::recover(&attempt_dir.join(files::SPOOL))?, left_over })
}

//! What an executor says of itself.

use sculpt_proto::{
    EXECUTOR_PROTOCOL,
    executor::v1::{self as wire, AgentInfo, Hello},
};

use super::Control;
use crate::{attempts, host, session::roster::Roster};

/// Attempts per piece of the observed set, so that a message stays far below 256 KiB.
const PIECE: usize = 500;

impl<R: Roster> Control<R> {
    pub(super) fn hello(&self) -> Hello {
        let (settings, separation) = (&self.context.settings, &self.context.separation);
        let agents = settings
            .agents
            .keys()
            .map(|name| AgentInfo { name: name.clone(), is_default: settings.default_agent.as_ref() == Some(name) });
        let lasting = separation.leaves(self.context.shares_memory).map(str::to_owned);
        let notes = lasting.into_iter().chain(self.attempts.notes()).collect();
        Hello {
            protocol: EXECUTOR_PROTOCOL,
            executor_id: self.context.executor.to_string(),
            name: settings.name.clone(),
            instance_id: self.instance.clone(),
            boot_id: self.context.boot.clone(),
            cluster_id: self.cluster.map(|id| id.to_string()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: settings.pool.clone(),
            labels: settings.labels.clone().into_iter().collect(),
            slots: settings.slots,
            agents: agents.collect(),
            separates: separation.separates(),
            hostname: host::hostname(),
            notes,
            owner: if separation.separates() { String::new() } else { host::owner() },
            directory_id: self.context.layout.directory_id().to_string(),
            unseparated: separation.reason().unwrap_or_default().to_owned(),
            closes_network: separation.closes_network(),
            separated_by: separation.means().to_owned(),
            ssh_address: Some(settings.ssh.as_ref().map(|direct| direct.advertise.clone()).unwrap_or_default()),
            counters: Some(attempts::counters(self.context.counting, separation)),
        }
    }

    pub(super) fn heartbeat(&self, sequence: u64) -> wire::Heartbeat {
        let standing = self.context.room.standing();
        let closed = standing.closed();
        wire::Heartbeat {
            sequence,
            slots_used: self.attempts.slots_used(),
            accepts_work: closed.is_none(),
            reason: closed.unwrap_or_default(),
            disk_used: standing.space.used,
            disk_budget: standing.space.budget,
        }
    }

    pub(super) fn observed(&self) -> Vec<wire::Observed> {
        let mut attempts = self.attempts.observed();
        for seen in &mut attempts {
            // A damaged spec does not say whose it is, and there is no other cluster that it can be of.
            if let (true, Some(ours)) = (seen.cluster_id.is_empty(), self.cluster) {
                seen.cluster_id = ours.to_string();
            }
            // What it has reported of itself comes first.
            if !seen.attempt_id.parse().is_ok_and(|attempt| self.machine.settled(attempt)) {
                seen.unreadable.clear();
            }
        }
        let mut pieces: Vec<wire::Observed> =
            attempts.chunks(PIECE).map(|piece| wire::Observed { attempts: piece.to_vec(), last: false }).collect();
        match pieces.last_mut() {
            Some(piece) => piece.last = true,
            None => pieces.push(wire::Observed { attempts: Vec::new(), last: true }),
        }
        pieces
    }
}

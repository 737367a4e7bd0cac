//! How full an executor's disk is, as its heartbeats say.

use sculpt_proto::executor::v1::{ControlRequest, control_request};

/// How full an executor's disk is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What it takes.
    pub used: u64,
    /// What it may take; 0 while that is not known.
    pub budget: u64,
}

impl Disk {
    /// Takes the figures of a heartbeat; true when they are others than before by more than people care for. Figures move
    /// with every heartbeat, and each that counts is a write.
    pub(super) fn moves(&mut self, request: &ControlRequest) -> bool {
        let Some(control_request::Part::Heartbeat(beat)) = &request.part else { return false };
        let now = Self { used: beat.disk_used, budget: beat.disk_budget };
        let step = now.budget / 100;
        let far = self.budget.abs_diff(now.budget) > step || self.used.abs_diff(now.used) > step;
        let moves = now.budget > 0 && far;
        if moves {
            *self = now;
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::executor::v1::Heartbeat;

    use super::*;

    fn beat(used: u64, budget: u64) -> ControlRequest {
        let beat = Heartbeat { disk_used: used, disk_budget: budget, ..Heartbeat::default() };
        ControlRequest { part: Some(control_request::Part::Heartbeat(beat)) }
    }

    #[test]
    fn what_moves_by_more_than_a_hundredth_counts() {
        let mut disk = Disk::default();
        for (used, budget, counts) in [
            (0, 0, false),
            (0, 1_000, true),
            (10, 1_000, false),
            (11, 1_000, true),
            (11, 1_005, false),
            (11, 2_000, true),
            (0, 0, false),
            (11, u64::MAX, true),
        ] {
            assert_eq!(disk.moves(&beat(used, budget)), counts, "{used} of {budget}");
        }
        assert!(!disk.moves(&ControlRequest::default()));
    }
}

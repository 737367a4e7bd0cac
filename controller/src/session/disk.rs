//! How full an executor's disk is, as its heartbeats say.

use std::time::Duration;

use sculpt_proto::executor::v1::{ControlRequest, control_request};

/// At most so often figures are written, however they move: each that counts is a write.
const OFTEN: Duration = Duration::from_secs(5);

/// How soon those that hardly moved are.
const SELDOM: Duration = Duration::from_secs(60);

/// How full an executor's disk is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What it takes.
    pub used: u64,
    /// What it may take; 0 while that is not known.
    pub budget: u64,
}

/// What was written last of what the heartbeats of a session say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    written: Option<(Disk, Duration)>,
}

impl Meter {
    /// What is to be written, if `request` is a heartbeat whose figures are worth it `now`, since the session's start.
    pub(super) fn read(&mut self, now: Duration, request: &ControlRequest) -> Option<Disk> {
        let Some(control_request::Part::Heartbeat(beat)) = &request.part else { return None };
        let disk = Disk { used: beat.disk_used, budget: beat.disk_budget };
        let due = disk.budget > 0
            && self.written.is_none_or(|(last, at)| {
                let step = disk.budget / 100;
                let far = last.budget.abs_diff(disk.budget) > step || last.used.abs_diff(disk.used) > step;
                disk != last && now.saturating_sub(at) >= if far { OFTEN } else { SELDOM }
            });
        due.then(|| {
            self.written = Some((disk, now));
            disk
        })
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
    fn figures_are_written_when_they_have_moved_and_not_with_every_heartbeat() {
        let mut meter = Meter::default();
        for (at, used, budget, written) in [
            (0, 0, 0, false),
            (0, 0, 1_000, true),
            // Far, but just written; then far enough apart.
            (1, 500, 1_000, false),
            (4, 900, 1_000, false),
            (5, 900, 1_000, true),
            // Not far: a minute later.
            (15, 905, 1_000, false),
            (64, 910, 1_000, false),
            (65, 910, 1_000, true),
            (300, 910, 1_000, false),
            (301, 910, 2_000, true),
            (400, 0, 0, false),
            (400, 910, u64::MAX, true),
        ] {
            let disk = Disk { used, budget };
            let read = meter.read(Duration::from_secs(at), &beat(used, budget));
            assert_eq!(read, written.then_some(disk), "{used} of {budget} after {at} s");
        }
        assert_eq!(meter.read(Duration::from_secs(999), &ControlRequest::default()), None);
    }

    #[test]
    fn a_flood_of_heartbeats_that_contradict_each_other_is_one_write_each_five_seconds() {
        let mut meter = Meter::default();
        let writes = (0..60_000_u64).filter(|n| {
            meter.read(Duration::from_millis(*n), &beat(if n % 2 == 0 { 1 } else { 999 }, 1_000)).is_some()
        });
        assert_eq!(writes.count(), 12);
    }
}

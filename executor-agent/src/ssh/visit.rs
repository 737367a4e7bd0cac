//! What somebody does on a connection without a terminal, told once for all of it: an editor does dozens of things on one.

use sculpt_pairing::{Pass, Role};
use tokio::sync::OnceCell;

use super::reports::{Presence, Reports};

/// One connection of somebody's.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) reports: Reports,
    without_terminal: OnceCell<Presence>,
}

impl Visit {
    pub(super) fn new(reports: Reports) -> Self {
        Self { reports, without_terminal: OnceCell::new() }
    }

    /// They do something without a terminal. Of all that, the first thing says as what they are there.
    pub(super) async fn begins(&self, pass: &Pass, role: Role) {
        self.without_terminal.get_or_init(|| Presence::begin(pass, role, self.reports.clone())).await;
    }

    /// Their connection is over; `why` is empty when they wanted that.
    pub(super) async fn ends(&self, why: String) {
        if let Some(presence) = self.without_terminal.get() {
            presence.left(why).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use sculpt_pairing::Profile;
    use sculpt_proto::id::{AttemptId, PairingId};

    use super::*;
    use crate::{report::Seat, ssh::reports::Beside};

    #[tokio::test]
    async fn many_things_are_one_visit_and_none_is_no_visit() {
        let (reports, mut told) = Beside::default().reports(8);
        let rights = Profile::Workspace.rights();
        let pass = Pass { pairing: PairingId::fresh(), attempt: AttemptId::fresh(), user: "ada".into(), rights };
        let (visit, idle) = (Visit::new(reports.clone()), Visit::new(reports));
        for role in [Role::Files, Role::Command, Role::Files] {
            visit.begins(&pass, role).await;
        }
        visit.ends("cut".to_owned()).await;
        idle.ends(String::new()).await;
        drop((visit, idle));
        let (_, came) = told.recv().await.unwrap();
        assert!(matches!(came, Seat::Attached { role: Role::Files, .. }), "{came:?}");
        let (_, went) = told.recv().await.unwrap();
        assert!(matches!(&went, Seat::Detached { why, .. } if why == "cut"), "{went:?}");
        assert!(told.recv().await.is_none(), "nothing else is told");
    }
}

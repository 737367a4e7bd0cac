//! A person's seat at the agent's terminal: what they type, and who is told of it.

use std::{path::Path, time::SystemTime};

use sculpt_pairing::{Pass, Right};
use sculpt_proto::id::AttemptId;
use tokio::{sync::mpsc, time::Instant};

use super::{
    blocks::{Blocks, Deed, QUIET, Report, Role},
    keys::{Hands, Keys, Pressed},
};
use crate::tmux::Sits;

/// Where reports of seats go. When it is full, seats wait: what is typed is told before more is typed.
pub type Reports = mpsc::Sender<(AttemptId, Report)>;

/// Somebody who sits there.
#[derive(Debug)]
pub(super) struct Sitting {
    pass: Pass,
    role: Role,
    keys: Keys,
    blocks: Blocks,
    /// When the block that is typed is over, if nothing more comes.
    due: Option<Instant>,
    reports: Reports,
}

/// How somebody with these rights sits, and what their hands may do.
pub(super) fn sits(pass: &Pass, read_only: bool, name: impl FnOnce() -> String) -> (Sits, Hands) {
    match (read_only, pass.rights.has(Right::Shell)) {
        (true, _) => (Sits::ToWatch, Hands::Tied),
        (false, true) => (Sits::Freely, Hands::Free),
        (false, false) => (Sits::ToType(name()), Hands::Typing),
    }
}

impl Sitting {
    /// Somebody sits down.
    pub(super) async fn down(pass: Pass, hands: Hands, reports: Reports) -> Self {
        let role = if hands == Hands::Tied { Role::Observer } else { Role::Driver };
        let sitting = Self { pass, role, keys: Keys::new(hands), blocks: Blocks::default(), due: None, reports };
        sitting.tell(Deed::Attached { role }).await;
        sitting
    }

    /// Whether the terminal takes their size.
    pub(super) fn resizes(&self) -> bool {
        self.role == Role::Driver
    }

    /// Takes what they type.
    pub(super) async fn press(&mut self, data: &[u8], now: SystemTime) -> Pressed {
        let pressed = self.keys.press(data);
        let over = self.blocks.typed(&pressed.passed, now);
        self.told(over.map(Deed::Typed)).await;
        pressed
    }

    /// When to look whether they rest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// They may have typed nothing for a while.
    pub(super) async fn rest(&mut self, now: SystemTime) {
        let over = self.blocks.over(now);
        self.told(over.map(Deed::Typed)).await;
    }

    /// They get up.
    pub(super) async fn up(mut self) {
        if let Some(block) = self.blocks.finish() {
            self.tell(Deed::Typed(block)).await;
        }
        self.tell(Deed::Detached).await;
    }

    async fn told(&mut self, deed: Option<Deed>) {
        self.due = self.blocks.is_open().then(|| Instant::now() + QUIET);
        if let Some(deed) = deed {
            self.tell(deed).await;
        }
    }

    async fn tell(&self, deed: Deed) {
        let report = Report { pairing: self.pass.pairing, user: self.pass.user.clone(), deed };
        // Without anybody who takes them the executor is ending.
        let _ending = self.reports.send((self.pass.attempt, report)).await;
    }
}

/// Whether the host describes the terminal at `place`, as `x/xterm`.
pub(super) fn describes(place: &str) -> bool {
    ["/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo"]
        .iter()
        .any(|directory| Path::new(directory).join(place).exists())
}

#[cfg(test)]
mod tests {
    use sculpt_pairing::{Profile, Rights};
    use sculpt_proto::id::PairingId;

    use super::*;

    fn pass(rights: Rights) -> Pass {
        Pass { pairing: PairingId::fresh(), attempt: AttemptId::fresh(), user: "ada".into(), rights }
    }

    #[test]
    fn only_who_has_a_shell_has_the_commands_of_tmux() {
        let sits = |rights, read_only| sits(&pass(rights), read_only, || "ada".to_owned());
        let [attach, all] = [Profile::Attach, Profile::Workspace].map(Profile::rights);
        assert_eq!(sits(all, false), (Sits::Freely, Hands::Free));
        assert_eq!(sits(all, true), (Sits::ToWatch, Hands::Tied));
        assert_eq!(sits(attach, false), (Sits::ToType("ada".into()), Hands::Typing));
        assert_eq!(sits(attach, true), (Sits::ToWatch, Hands::Tied));
    }

    #[tokio::test]
    async fn what_is_done_at_a_seat_is_told() {
        let (reports, mut told) = mpsc::channel(8);
        let pass = pass(Profile::Attach.rights());
        let now = SystemTime::now();
        let mut sitting = Sitting::down(pass.clone(), Hands::Typing, reports.clone()).await;
        assert!(sitting.resizes() && sitting.due().is_none());
        assert_eq!(sitting.press(b"ls\r", now).await.passed, b"ls\r");
        assert!(sitting.due().is_some());
        sitting.rest(now + QUIET).await;
        assert!(sitting.due().is_none());
        assert!(sitting.press(b"x\x02d", now + QUIET).await.leaves);
        sitting.up().await;
        let watching = Sitting::down(pass.clone(), Hands::Tied, reports).await;
        assert!(!watching.resizes());
        watching.up().await;
        let mut deeds = Vec::new();
        while let Some((attempt, report)) = told.recv().await {
            assert_eq!((attempt, report.pairing, report.user.as_str()), (pass.attempt, pass.pairing, "ada"));
            deeds.push(match report.deed {
                Deed::Attached { role } => format!("{role:?}"),
                Deed::Typed(block) => block.bytes.to_string(),
                Deed::Detached => "gone".to_owned(),
            });
        }
        assert_eq!(deeds, ["Driver", "3", "1", "gone", "Observer", "gone"]);
    }
}

//! A person's seat at the agent's terminal: what they type, and who is told of it.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use sculpt_pairing::{Pass, Right, Role};
use sculpt_proto::id::{AttemptId, SeatId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    blocks::{Block, Blocks, QUIET},
    keys::{Hands, Keys, Pressed},
};
use crate::{
    report::Seat,
    text::ByteText,
    tmux::{Liveness, Sits, View},
};

/// Where reports of seats go. When it is full, who comes or goes waits; what is typed waits for nobody, and is told later.
pub type Reports = mpsc::Sender<(AttemptId, Seat)>;

/// How long a server whose directory is there may take to have its session, too: it listens before it has made one.
const APPEARS: Duration = Duration::from_secs(10);

/// Between two looks for it, each of which runs a program: at first, and at last.
const LOOK: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(500);

/// That somebody is beside an attempt.
#[derive(Debug)]
pub(super) struct Presence {
    seat: SeatId,
    attempt: AttemptId,
    user: String,
    reports: Reports,
}

impl Presence {
    /// Somebody comes.
    pub(super) async fn begin(pass: &Pass, role: Role, reports: Reports) -> Self {
        let presence = Self { seat: SeatId::fresh(), attempt: pass.attempt, user: pass.user.clone(), reports };
        let (seat, user) = (presence.seat, presence.user.clone());
        presence.tell(Seat::Attached { seat, pairing: pass.pairing, user, role }).await;
        presence
    }

    /// They go; `why` is empty when they wanted to.
    pub(super) async fn end(self, why: String) {
        self.tell(Seat::Detached { seat: self.seat, why }).await;
    }

    async fn tell(&self, seat: Seat) {
        // Without anybody who takes them the executor is ending.
        let _ending = self.reports.send((self.attempt, seat)).await;
    }

    fn typed(&self, block: &Block) -> Seat {
        Seat::Typed {
            seat: self.seat,
            user: self.user.clone(),
            bytes: block.bytes,
            took: block.took(),
            content: ByteText(block.content.clone()),
        }
    }
}

/// Somebody who sits at the terminal.
#[derive(Debug)]
pub(super) struct Sitting {
    presence: Presence,
    role: Role,
    keys: Keys,
    blocks: Blocks,
    /// A block that is over, and for which there was no room.
    owed: Option<Block>,
    /// When the block that is typed is over, if nothing more comes, or there may be room.
    due: Option<Instant>,
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
    pub(super) async fn down(pass: &Pass, hands: Hands, reports: Reports) -> Self {
        let role = if hands == Hands::Tied { Role::Observer } else { Role::Driver };
        let presence = Presence::begin(pass, role, reports).await;
        Self { presence, role, keys: Keys::new(hands), blocks: Blocks::default(), owed: None, due: None }
    }

    /// Whether the terminal takes their size.
    pub(super) fn resizes(&self) -> bool {
        self.role == Role::Driver
    }

    /// Takes what they type.
    pub(super) fn press(&mut self, data: &[u8], now: SystemTime) -> Pressed {
        let pressed = self.keys.press(data);
        let over = self.blocks.typed(&pressed.passed, now);
        self.told(over);
        pressed
    }

    /// When to look whether they rest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// They may have typed nothing for a while.
    pub(super) fn rest(&mut self, now: SystemTime) {
        let over = self.blocks.over(now);
        self.told(over);
    }

    /// They get up; `why` is empty when they wanted to.
    pub(super) async fn up(mut self, why: String) {
        if let Some(block) = Block::joined(self.owed.take(), self.blocks.finish()) {
            self.presence.tell(self.presence.typed(&block)).await;
        }
        self.presence.end(why).await;
    }

    /// Tells of a block that is over, if there is room: no key waits for a disk.
    fn told(&mut self, over: Option<Block>) {
        self.owed = Block::joined(self.owed.take(), over);
        if let Some(block) = &self.owed
            && !matches!(
                self.presence.reports.try_send((self.presence.attempt, self.presence.typed(block))),
                Err(mpsc::error::TrySendError::Full(_))
            )
        {
            self.owed = None;
        }
        self.due = (self.blocks.is_open() || self.owed.is_some()).then(|| Instant::now() + QUIET);
    }
}

/// Waits until there is a session to sit at. False when none comes. That there is no socket says nothing: a server that begins
/// removes what another has left, and makes its own.
pub(super) async fn appears(view: &View) -> bool {
    let since = Instant::now();
    while view.alive().await != Liveness::Present {
        let waited = since.elapsed();
        if waited > APPEARS || !view.socket.parent().is_some_and(Path::is_dir) {
            return false;
        }
        sleep(pause(waited)).await;
    }
    true
}

/// How long until the next look, after so long.
fn pause(waited: Duration) -> Duration {
    (waited / 2).clamp(LOOK, SELDOM)
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

    /// What was told, in short.
    fn short(seat: Seat) -> String {
        match seat {
            Seat::Attached { user, role, .. } => format!("{user} {}", role.as_str()),
            Seat::Typed { user, bytes, .. } => format!("{user} {bytes}"),
            Seat::Detached { why, .. } => format!("gone: {why}"),
        }
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
        let mut sitting = Sitting::down(&pass, Hands::Typing, reports.clone()).await;
        assert!(sitting.resizes() && sitting.due().is_none());
        assert_eq!(sitting.press(b"ls\r", now).passed, b"ls\r");
        assert!(sitting.due().is_some());
        sitting.rest(now + QUIET);
        assert!(sitting.due().is_none());
        assert!(sitting.press(b"x\x02d", now + QUIET).leaves);
        sitting.up(String::new()).await;
        let watching = Sitting::down(&pass, Hands::Tied, reports).await;
        assert!(!watching.resizes());
        watching.up("cut".to_owned()).await;
        let mut deeds = Vec::new();
        while let Some((attempt, seat)) = told.recv().await {
            assert_eq!(attempt, pass.attempt);
            deeds.push(short(seat));
        }
        assert_eq!(deeds, ["ada driver", "ada 3", "ada 1", "gone: ", "ada observer", "gone: cut"]);
    }

    #[tokio::test]
    async fn no_key_waits_and_nothing_that_was_typed_is_lost() {
        let (reports, mut told) = mpsc::channel(1);
        let began = SystemTime::now();
        let mut sitting = Sitting::down(&pass(Profile::Attach.rights()), Hands::Typing, reports).await;
        // Nobody takes what is told: there was room for the beginning alone.
        for block in 0..100 {
            assert_eq!(sitting.press(b"ab", began + QUIET * block).passed, b"ab");
        }
        assert!(sitting.due().is_some());
        assert_eq!(short(told.recv().await.unwrap().1), "ada driver");
        sitting.rest(began + QUIET * 100);
        let (_, typed) = told.recv().await.unwrap();
        assert!(matches!(typed, Seat::Typed { bytes: 200, took, .. } if took == QUIET * 99), "{typed:?}");
        assert!(sitting.due().is_none());
    }

    #[test]
    fn a_session_that_is_late_is_looked_for_less_often() {
        let next = |waited: &Duration| Some(*waited + pause(*waited));
        let looks = std::iter::successors(Some(Duration::ZERO), next).take_while(|waited| *waited < APPEARS);
        let looks: Vec<Duration> = looks.collect();
        assert!(looks.len() < 35 && looks[4] < Duration::from_millis(200), "{looks:?}");
    }
}

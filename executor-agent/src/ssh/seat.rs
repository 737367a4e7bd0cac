//! A person's seat at the agent's terminal: what they type, and who is told of it.

use std::{
    future::pending,
    path::Path,
    time::{Duration, SystemTime},
};

use sculpt_pairing::{Pass, Right, Role};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    blocks::QUIET,
    keys::{Hands, Keys, Pressed},
    relay::Line,
    reports::{Presence, Reports},
};
use crate::tmux::{Liveness, Sits, View};

/// How long somebody waits before they are told why.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a server whose directory is there may take to have its session, too: it listens before it has made one.
const APPEARS: Duration = Duration::from_secs(10);

/// Between two looks for it, at first and at last; where a socket stands, a look runs a program. The directory is of the attempt's
/// account, so that to be told of changes in it would let an agent run as many as it likes.
const LOOK: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(500);

/// Somebody who sits at the terminal.
#[derive(Debug)]
pub(super) struct Sitting {
    presence: Presence,
    role: Role,
    keys: Keys,
    /// When the block that is typed is over, if nothing more comes, or there may be room.
    due: Option<Instant>,
    /// Cancelled when they get up, or are made to.
    gets_up: CancellationToken,
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
    /// Somebody sits down, until they get up or are `cut`.
    pub(super) async fn down(pass: &Pass, hands: Hands, reports: Reports, cut: &CancellationToken) -> Self {
        let role = if hands == Hands::Tied { Role::Observer } else { Role::Driver };
        let presence = Presence::begin(pass, role, reports).await;
        Self { presence, role, keys: Keys::new(hands), due: None, gets_up: cut.child_token() }
    }

    /// Whether the terminal takes their size.
    pub(super) fn resizes(&self) -> bool {
        self.role == Role::Driver
    }

    /// Takes what they type.
    pub(super) fn press(&mut self, data: &[u8], now: SystemTime) -> Pressed {
        let pressed = self.keys.press(data);
        if pressed.leaves {
            self.gets_up.cancel();
        }
        let later = self.presence.types(&pressed.passed, now);
        self.look_again(later);
        pressed
    }

    /// Cancelled when they get up, or are made to.
    pub(super) fn gets_up(&self) -> CancellationToken {
        self.gets_up.clone()
    }

    /// When to look whether they rest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// They may have typed nothing for a while.
    pub(super) fn rest(&mut self, now: SystemTime) {
        let later = self.presence.rests(now);
        self.look_again(later);
    }

    /// They get up; `why` is empty when they wanted to.
    pub(super) async fn up(self, why: String) {
        self.presence.end(why).await;
    }

    fn look_again(&mut self, later: bool) {
        self.due = later.then(|| Instant::now() + QUIET);
    }
}

/// Waits for what a full disk may hold up, as it holds up who writes down that somebody comes. None: they are to go.
pub(super) async fn patiently<T>(line: &Line, work: impl Future<Output = T>) -> Option<T> {
    let tell = async {
        sleep(PATIENCE).await;
        line.say("the disk of this host takes nothing, and nobody comes in unnoted; waiting").await;
        pending().await
    };
    tokio::select! {
        biased;
        () = line.cut.cancelled() => None,
        done = work => Some(done),
        never = tell => never,
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
    use sculpt_proto::id::{AttemptId, PairingId};

    use super::*;
    use crate::{report::Seat, ssh::reports::Beside};

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
        let (reports, mut told) = Beside::default().reports(8);
        let pass = pass(Profile::Attach.rights());
        let now = SystemTime::now();
        let mut sitting = Sitting::down(&pass, Hands::Typing, reports.clone(), &CancellationToken::new()).await;
        assert!(sitting.resizes() && sitting.due().is_none());
        assert_eq!(sitting.press(b"ls\r", now).passed, b"ls\r");
        assert!(sitting.due().is_some());
        sitting.rest(now + QUIET);
        assert!(sitting.due().is_none());
        assert!(!sitting.gets_up().is_cancelled() && sitting.press(b"x\x02d", now + QUIET).leaves);
        assert!(sitting.gets_up().is_cancelled());
        sitting.up(String::new()).await;
        let watching = Sitting::down(&pass, Hands::Tied, reports, &CancellationToken::new()).await;
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
        let (reports, mut told) = Beside::default().reports(1);
        let began = SystemTime::now();
        let pass = pass(Profile::Attach.rights());
        let mut sitting = Sitting::down(&pass, Hands::Typing, reports, &CancellationToken::new()).await;
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

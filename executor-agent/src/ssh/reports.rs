//! Who is beside attempts now, and what they do on its way into the attempts' journals. What somebody types is told when they
//! rest; until then it is kept here, where the end of an attempt finds it: the last keys are those one asks about.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::SystemTime,
};

use sculpt_pairing::{Pass, Role};
use sculpt_proto::id::{AttemptId, SeatId};
use tokio::sync::{
    mpsc::{self, Permit, error::TrySendError},
    watch,
};

use super::blocks::{Block, Blocks};
use crate::{report::Seat, text::ByteText};

/// What is known of all who are there.
#[derive(Clone, Debug, Default)]
pub struct Beside(watch::Sender<Known>);

#[derive(Debug, Default)]
struct Known {
    seats: HashMap<SeatId, Seated>,
    /// How many reports of an attempt are on their way.
    unwritten: HashMap<AttemptId, usize>,
}

/// One of them.
#[derive(Debug)]
struct Seated {
    attempt: AttemptId,
    role: Role,
    user: String,
    blocks: Blocks,
    /// A block that is over, and for which there was no room.
    owed: Option<Block>,
}

impl Known {
    fn send(&mut self, attempt: AttemptId, seat: Seat, permit: Permit<'_, (AttemptId, Seat)>) {
        *self.unwritten.entry(attempt).or_default() += 1;
        permit.send((attempt, seat));
    }
}

impl Seated {
    /// What they have typed and nobody was told of, over or not.
    fn finish(&mut self) -> Option<Block> {
        Block::joined(self.owed.take(), self.blocks.finish())
    }

    fn typed(&self, seat: SeatId, block: Block) -> Seat {
        let took = block.took();
        Seat::Typed { seat, user: self.user.clone(), bytes: block.bytes, took, content: ByteText(block.content) }
    }
}

impl Beside {
    /// Where it is told what they do, with room for so many reports, and where these come out.
    pub fn reports(&self, room: usize) -> (Reports, mpsc::Receiver<(AttemptId, Seat)>) {
        let (queue, told) = mpsc::channel(room);
        (Reports { queue, beside: self.clone() }, told)
    }

    /// One report of an attempt is in its journal, or never will be.
    pub fn written(&self, attempt: AttemptId) {
        self.0.send_modify(|known| {
            if let Entry::Occupied(mut left) = known.unwritten.entry(attempt) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
        });
    }

    /// Waits until nothing of an attempt is on its way.
    pub async fn settled(&self, attempt: AttemptId) {
        self.wait(|known| !known.unwritten.contains_key(&attempt)).await;
    }

    /// Waits until nobody is at a terminal beside an attempt.
    pub async fn left(&self, attempt: AttemptId) {
        let looks_on = |seated: &Seated| match seated.role {
            Role::Observer | Role::Driver | Role::Shell => seated.attempt == attempt,
            Role::Command | Role::Files | Role::Ports => false,
        };
        self.wait(|known| !known.seats.values().any(looks_on)).await;
    }

    async fn wait(&self, so: impl FnMut(&Known) -> bool) {
        let mut known = self.0.subscribe();
        // It holds the sender.
        let _open = known.wait_for(so).await;
    }

    /// What is being typed beside an attempt: from here on it is the caller's to write down.
    pub fn typed(&self, attempt: AttemptId) -> Vec<Seat> {
        let mut typed = Vec::new();
        self.0.send_if_modified(|known| {
            for (seat, seated) in known.seats.iter_mut().filter(|(_, seated)| seated.attempt == attempt) {
                typed.extend(seated.finish().map(|block| seated.typed(*seat, block)));
            }
            false
        });
        typed
    }
}

/// Where reports of seats go. When it is full, who comes or goes waits; what is typed waits for nobody, and is told later.
#[derive(Clone, Debug)]
pub struct Reports {
    queue: mpsc::Sender<(AttemptId, Seat)>,
    beside: Beside,
}

/// That somebody is beside an attempt.
#[derive(Debug)]
pub(super) struct Presence {
    seat: SeatId,
    attempt: AttemptId,
    reports: Reports,
}

impl Presence {
    /// Somebody comes.
    pub(super) async fn begin(pass: &Pass, role: Role, reports: Reports) -> Self {
        let (seat, attempt, user) = (SeatId::fresh(), pass.attempt, pass.user.clone());
        let seated = Seated { attempt, role, user: user.clone(), blocks: Blocks::default(), owed: None };
        let attached = Seat::Attached { seat, pairing: pass.pairing, user, role };
        let presence = Self { seat, attempt, reports };
        let room = presence.reports.queue.reserve().await;
        presence.reports.beside.0.send_if_modified(|known| {
            known.seats.insert(seat, seated);
            // Without anybody who takes them the executor is ending.
            if let Ok(room) = room {
                known.send(attempt, attached, room);
            }
            false
        });
        presence
    }

    /// They go; `why` is empty when they wanted to.
    pub(super) async fn end(self, why: String) {
        self.left(why).await;
    }

    /// The same of somebody who is counted as being there for a little longer.
    pub(super) async fn left(&self, why: String) {
        let (seat, attempt, queue) = (self.seat, self.attempt, &self.reports.queue);
        let Ok(room) = queue.reserve().await else { return };
        let mut room = Some(room);
        self.reports.beside.0.send_if_modified(|known| {
            let Some(seated) = known.seats.get_mut(&seat) else { return false };
            let typed = seated.finish().map(|block| seated.typed(seat, block));
            if let Some((typed, room)) = typed.and_then(|typed| Some((typed, room.take()?))) {
                known.send(attempt, typed, room);
            }
            false
        });
        let room = match room {
            Some(room) => Ok(room),
            None => queue.reserve().await,
        };
        if let Ok(room) = room {
            self.reports.beside.0.send_if_modified(|known| {
                known.send(attempt, Seat::Detached { seat, why }, room);
                false
            });
        }
    }

    /// They type. True: there is a block that is to be told later.
    pub(super) fn types(&self, data: &[u8], now: SystemTime) -> bool {
        self.tell(|blocks| blocks.typed(data, now))
    }

    /// They may have typed nothing for a while. True: there is a block that is to be told later.
    pub(super) fn rests(&self, now: SystemTime) -> bool {
        self.tell(|blocks| blocks.over(now))
    }

    /// Tells of a block that is over, if there is room: no key waits for a disk.
    fn tell(&self, over: impl FnOnce(&mut Blocks) -> Option<Block>) -> bool {
        let mut later = false;
        self.reports.beside.0.send_if_modified(|known| {
            let Some(seated) = known.seats.get_mut(&self.seat) else { return false };
            seated.owed = Block::joined(seated.owed.take(), over(&mut seated.blocks));
            if let Some(block) = seated.owed.take() {
                match self.reports.queue.try_reserve() {
                    Ok(room) => {
                        let typed = seated.typed(self.seat, block);
                        later = seated.blocks.is_open();
                        known.send(self.attempt, typed, room);
                        return false;
                    }
                    Err(TrySendError::Full(())) => seated.owed = Some(block),
                    Err(TrySendError::Closed(())) => {}
                }
            }
            later = seated.blocks.is_open() || seated.owed.is_some();
            false
        });
        later
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.reports.beside.0.send_modify(|known| drop(known.seats.remove(&self.seat)));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use sculpt_pairing::Profile;
    use sculpt_proto::id::PairingId;

    use super::*;

    fn pass() -> Pass {
        let (pairing, attempt) = (PairingId::fresh(), AttemptId::fresh());
        Pass { pairing, attempt, user: "ada".into(), rights: Profile::Attach.rights() }
    }

    #[tokio::test]
    async fn the_end_of_an_attempt_finds_what_is_typed_and_waits_for_what_was_told() {
        let (beside, pass) = (Beside::default(), pass());
        let (reports, mut told) = beside.reports(8);
        let here = Presence::begin(&pass, Role::Driver, reports.clone()).await;
        let other = Presence::begin(&self::pass(), Role::Driver, reports).await;
        assert!(here.types(b"/exit\r", SystemTime::now()) && other.types(b"x", SystemTime::now()));
        let typed = beside.typed(pass.attempt);
        assert!(matches!(&typed[..], [Seat::Typed { content, .. }] if content.0 == b"/exit\r"), "{typed:?}");
        assert!(beside.typed(pass.attempt).is_empty(), "it is told once");
        let mut settled = std::pin::pin!(beside.settled(pass.attempt));
        assert!(poll!(&mut settled).is_pending(), "that they came is not written");
        let (attempt, _) = told.recv().await.unwrap();
        beside.written(attempt);
        settled.await;
        here.end(String::new()).await;
        let [_, left] = [told.recv().await.unwrap(), told.recv().await.unwrap()];
        assert!(matches!(left, (_, Seat::Detached { .. })), "{left:?}");
    }

    #[tokio::test]
    async fn it_is_known_when_the_last_one_leaves() {
        let (beside, pass) = (Beside::default(), pass());
        let (reports, _told) = beside.reports(8);
        let [one, two] = [Role::Observer, Role::Shell].map(|role| Presence::begin(&pass, role, reports.clone()));
        let (one, two) = (one.await, two.await);
        let mut left = std::pin::pin!(beside.left(pass.attempt));
        one.end(String::new()).await;
        assert!(poll!(&mut left).is_pending());
        let copies = Presence::begin(&pass, Role::Files, reports).await;
        // However they go.
        drop(two);
        left.await;
        drop(copies);
        beside.left(AttemptId::fresh()).await;
    }
}

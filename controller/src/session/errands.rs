//! What others than its executor want of a session: that it asks something, tells whom to let in, has a tunnel dialled.

use std::sync::Arc;

use sculpt_proto::{
    executor::v1::control_response::Part,
    id::{PairingId, TunnelId},
};
use tokio::sync::{mpsc, watch};

use super::garbage::{self, Ask, Asks};
use crate::store::pairings::Guest;

/// Tunnels that wait to be told of. Whose does not find room asks again.
const DIALS: usize = 64;

/// A tunnel that an executor is to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) tunnel: TunnelId,
    /// By which who waits there comes.
    pub(super) pairing: PairingId,
}

/// Whom an executor lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invited {
    pub(super) guests: Vec<Guest>,
    /// Who certifies them.
    pub(super) authorities: Arc<[String]>,
}

/// Where errands are left for one session. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    asks: mpsc::Sender<Ask>,
    dials: mpsc::Sender<Call>,
    guests: watch::Sender<Option<Invited>>,
}

/// The errands of one session.
#[derive(Debug)]
pub struct Errands {
    asks: Asks,
    dials: mpsc::Receiver<Call>,
    guests: watch::Receiver<Option<Invited>>,
}

/// Where errands are left, and where the session finds them.
pub(super) fn errands() -> (Desk, Errands) {
    let ((asks, to_ask), (dials, to_dial)) = (garbage::asks(), mpsc::channel(DIALS));
    let (guests, to_tell) = watch::channel(None);
    (Desk { asks, dials, guests }, Errands { asks: to_ask, dials: to_dial, guests: to_tell })
}

impl Desk {
    /// Leaves a question; false when there is no room for it.
    pub(super) fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// Leaves word of a tunnel; false when there is no room for it.
    pub(super) fn dial(&self, dial: Call) -> bool {
        self.dials.try_send(dial).is_ok()
    }

    /// Leaves whom to let in, unless the executor knows. Only the newest of what was not told yet is told.
    pub(super) fn invite(&self, now: Invited) {
        self.guests.send_if_modified(|told| {
            let news = !told.as_ref().is_some_and(|told| told.is(&now));
            if news {
                *told = Some(now);
            }
            news
        });
    }
}

impl Invited {
    /// Whether both let in the same people, however long.
    fn is(&self, other: &Self) -> bool {
        let same = |(one, other): (&Guest, &Guest)| one.is(other);
        self.authorities == other.authorities
            && self.guests.len() == other.guests.len()
            && self.guests.iter().zip(&other.guests).all(same)
    }
}

impl Errands {
    /// The next thing to say. May be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Part {
        tokio::select! {
            biased;
            invited = told(&mut self.guests) => Part::Guests(invited.into()),
            Some(call) = self.dials.recv() => Part::Dial(call.into()),
            collect = self.asks.next() => Part::Collect(collect),
        }
    }

    /// The questions that were asked, for their answers.
    pub(super) fn asks(&mut self) -> &mut Asks {
        &mut self.asks
    }
}

async fn told(guests: &mut watch::Receiver<Option<Invited>>) -> Invited {
    while guests.changed().await.is_ok() {
        if let Some(guests) = guests.borrow_and_update().clone() {
            return guests;
        }
    }
    // A newer session has the executor.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use sculpt_pairing::Rights;
    use sculpt_proto::id::AttemptId;

    use super::{super::wire::MAX_CONTROL, *};
    use crate::store::pairings::OF_EXECUTOR;

    fn guest(name: &str, pairing: PairingId, seconds: u64) -> Guest {
        let (attempt, remaining) = (AttemptId(pairing.0), Duration::from_secs(seconds));
        let rights = "observe,drive,shell,forward".parse::<Rights>().unwrap();
        Guest { pairing, attempt, user: name.to_owned(), rights, remaining }
    }

    fn invited(names: &[(&str, PairingId)], seconds: u64) -> Invited {
        let guests = names.iter().map(|(name, id)| guest(name, *id, seconds)).collect();
        Invited { guests, authorities: ["ssh-ed25519 x".to_owned()].into() }
    }

    #[test]
    fn only_news_are_told_and_only_the_newest() {
        let (desk, mut errands) = errands();
        let mut next = || errands.next().now_or_never();
        let (ada, ben) = (("ada", PairingId::fresh()), ("ben", PairingId::fresh()));
        assert_eq!(next(), None);
        let nobody = || invited(&[], 0);
        desk.invite(nobody());
        assert_eq!(next(), Some(Part::Guests(nobody().into())), "that there are none is news at first");
        desk.invite(nobody());
        assert_eq!(next(), None);
        desk.invite(invited(&[ada], 9));
        desk.invite(invited(&[ada, ben], 9));
        assert_eq!(next(), Some(Part::Guests(invited(&[ada, ben], 9).into())));
        desk.invite(invited(&[ada, ben], 5));
        assert_eq!(next(), None, "time passes for the executor, too");
        let mut less = invited(&[ada], 5);
        less.guests[0].rights = Rights::NONE;
        let others = Invited { authorities: [].into(), ..less.clone() };
        for news in [invited(&[ada], 5), invited(&[("ada", ben.1)], 5), invited(&[("eve", ben.1)], 5), less, others] {
            desk.invite(news.clone());
            assert_eq!(next(), Some(Part::Guests(news.into())));
        }
    }

    #[test]
    fn tunnels_that_find_no_room_are_not_told_of() {
        let (desk, mut errands) = errands();
        let calls: Vec<Call> =
            (0..=DIALS).map(|_| Call { tunnel: TunnelId::fresh(), pairing: PairingId::fresh() }).collect();
        assert_eq!(calls.iter().filter(|call| desk.dial(**call)).count(), DIALS);
        assert_eq!(errands.next().now_or_never(), Some(Part::Dial(calls[0].into())));
        assert!(desk.dial(calls[DIALS]));
        drop(desk);
        assert_eq!(errands.next().now_or_never(), Some(Part::Dial(calls[1].into())), "what was taken is done");
    }

    #[test]
    fn all_who_can_be_invited_fit_into_one_message() {
        let name = "n".repeat(64);
        let guests = (0..OF_EXECUTOR).map(|_| guest(&name, PairingId::fresh(), u64::from(u32::MAX))).collect();
        let authorities = vec![format!("ssh-ed25519 {}", "x".repeat(500)); 4].into();
        let size = Part::Guests(Invited { guests, authorities }.into()).encoded_len();
        assert!(size < MAX_CONTROL - 1024, "{size} bytes");
    }
}

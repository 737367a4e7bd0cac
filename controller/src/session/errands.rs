//! What others than its executor want of a session: that it asks something, tells whom to let in, has a tunnel dialled.

use sculpt_proto::executor::v1::{Dial, Guest, Guests, control_response::Part};
use tokio::sync::{mpsc, watch};

use super::garbage::{self, Ask, Asks};

/// Tunnels that wait to be told of. Whose does not find room asks again.
const DIALS: usize = 64;

/// Where errands are left for one session. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    asks: mpsc::Sender<Ask>,
    dials: mpsc::Sender<Dial>,
    guests: watch::Sender<Option<Guests>>,
}

/// The errands of one session.
#[derive(Debug)]
pub struct Errands {
    asks: Asks,
    dials: mpsc::Receiver<Dial>,
    guests: watch::Receiver<Option<Guests>>,
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
    pub(super) fn dial(&self, dial: Dial) -> bool {
        self.dials.try_send(dial).is_ok()
    }

    /// Leaves whom to let in, unless the executor knows. Only the newest of what was not told yet is told.
    pub(super) fn invite(&self, guests: Guests) {
        self.guests.send_if_modified(|told| {
            let news = !told.as_ref().is_some_and(|told| same(told, &guests));
            if news {
                *told = Some(guests);
            }
            news
        });
    }
}

/// Whether both let in the same people, however long.
fn same(told: &Guests, now: &Guests) -> bool {
    let all = |guest: &Guest| Guest { remaining: None, ..guest.clone() };
    told.authorities == now.authorities && told.guests.iter().map(all).eq(now.guests.iter().map(all))
}

impl Errands {
    /// The next thing to say. May be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Part {
        tokio::select! {
            biased;
            guests = told(&mut self.guests) => Part::Guests(guests),
            Some(dial) = self.dials.recv() => Part::Dial(dial),
            collect = self.asks.next() => Part::Collect(collect),
        }
    }

    /// The questions that were asked, for their answers.
    pub(super) fn asks(&mut self) -> &mut Asks {
        &mut self.asks
    }
}

async fn told(guests: &mut watch::Receiver<Option<Guests>>) -> Guests {
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
    use futures_util::FutureExt as _;

    use super::*;

    fn guests(names: &[&str], seconds: i64) -> Guests {
        let remaining = Some(prost_types::Duration { seconds, nanos: 0 });
        let guest = |name: &&str| Guest { user: (*name).to_owned(), remaining, ..Guest::default() };
        Guests { guests: names.iter().map(guest).collect(), authorities: vec!["ssh-ed25519 x".into()] }
    }

    #[test]
    fn only_news_are_told_and_only_the_newest() {
        let (desk, mut errands) = errands();
        let mut next = || errands.next().now_or_never();
        assert_eq!(next(), None);
        desk.invite(Guests::default());
        assert_eq!(next(), Some(Part::Guests(Guests::default())), "that there are none is news at first");
        desk.invite(Guests::default());
        assert_eq!(next(), None);
        desk.invite(guests(&["ada"], 9));
        desk.invite(guests(&["ada", "ben"], 9));
        assert_eq!(next(), Some(Part::Guests(guests(&["ada", "ben"], 9))));
        desk.invite(guests(&["ada", "ben"], 5));
        assert_eq!(next(), None, "time passes for the executor, too");
        for news in [guests(&["ada"], 5), Guests { authorities: Vec::new(), ..guests(&["ada"], 5) }] {
            desk.invite(news.clone());
            assert_eq!(next(), Some(Part::Guests(news)));
        }
    }

    #[test]
    fn tunnels_that_find_no_room_are_not_told_of() {
        let (desk, mut errands) = errands();
        let dial = |number: usize| Dial { tunnel_id: number.to_string(), ..Dial::default() };
        assert_eq!((0..=DIALS).filter(|number| desk.dial(dial(*number))).count(), DIALS);
        assert_eq!(errands.next().now_or_never(), Some(Part::Dial(dial(0))));
        assert!(desk.dial(dial(99)));
        drop(desk);
        assert_eq!(errands.next().now_or_never(), Some(Part::Dial(dial(1))), "what was taken is done");
    }
}

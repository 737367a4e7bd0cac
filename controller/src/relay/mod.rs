//! Where a person's connection of ssh and the one that an executor dials for it meet. The controller passes bytes on that
//! it cannot read: both ends prove themselves to each other.

mod carry;
mod ends;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sculpt_proto::id::{ExecutorId, TunnelId, UserId};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

pub use self::{
    carry::{Cut, OUTBOX, carry},
    ends::{Alone, End, Piece},
};

/// Tunnels of one person that wait or are open.
pub const OF_ONE: usize = 64;

/// Tunnels of all.
pub const OF_ALL: usize = 512;

/// Tunnels that one person can ask for at once, and how soon they can ask for another one: each has an executor dial, also
/// when who asked has gone by then.
pub const AT_ONCE: u32 = 64;
const EACH: Duration = Duration::from_millis(100);

/// People whose calls are remembered; those who have all of theirs again are forgotten.
const REMEMBERED: usize = 1024;

/// How long an executor may take to dial.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tunnels of this replica. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    tunnels: Arc<Mutex<Tunnels>>,
}

#[derive(Debug, Default)]
struct Tunnels {
    waiting: HashMap<TunnelId, Waiting>,
    /// How many each person has; nobody stands here with none.
    counts: HashMap<UserId, usize>,
    /// When each person has all of their calls again.
    rested: HashMap<UserId, Instant>,
}

/// An end that an executor is to take.
#[derive(Debug)]
struct Waiting {
    executor: ExecutorId,
    end: End,
    taken: oneshot::Sender<()>,
}

/// A person's end of a tunnel that an executor is to dial for.
#[derive(Debug)]
pub struct Call {
    end: End,
    taken: oneshot::Receiver<()>,
    place: Place,
}

/// A place among the tunnels; left when dropped.
#[derive(Debug)]
pub struct Place {
    relay: Relay,
    user: UserId,
    tunnel: TunnelId,
}

/// Why there is no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The person has too many.
    #[error("you have {OF_ONE} connections open through this controller; close one, or share one (ControlMaster)")]
    Yours,
    /// The person asks too often.
    #[error(
        "you have opened too many connections in a short time; try again in a moment, or share one (ControlMaster)"
    )]
    Often,
    /// All have too many.
    #[error("{OF_ALL} connections are open through this controller; try again")]
    Full,
    /// The executor did not dial.
    #[error("the executor was asked to dial back, and has not within {} s; try again", PATIENCE.as_secs())]
    Silent,
    /// Nobody waits for that, or not for this executor.
    #[error("nobody waits at the other end of this tunnel")]
    Nobody,
}

impl Relay {
    /// A tunnel for a person, which only `executor` can take the other end of.
    pub fn call(&self, user: UserId, executor: ExecutorId) -> Result<Call, RelayError> {
        let mut tunnels = self.tunnels();
        if tunnels.counts.values().sum::<usize>() >= OF_ALL {
            return Err(RelayError::Full);
        }
        if tunnels.counts.get(&user).is_some_and(|count| *count >= OF_ONE) {
            return Err(RelayError::Yours);
        }
        tunnels.rate(user, Instant::now())?;
        *tunnels.counts.entry(user).or_default() += 1;
        let place = Place { relay: self.clone(), user, tunnel: TunnelId::fresh() };
        let ((near, far), (taken, is_taken)) = (ends::pair(), oneshot::channel());
        tunnels.waiting.insert(place.tunnel, Waiting { executor, end: far, taken });
        Ok(Call { end: near, taken: is_taken, place })
    }

    /// The executor's end.
    pub fn take(&self, tunnel: TunnelId, executor: ExecutorId) -> Result<End, RelayError> {
        let mut tunnels = self.tunnels();
        let is_its = tunnels.waiting.get(&tunnel).is_some_and(|waiting| waiting.executor == executor);
        let waiting = is_its.then(|| tunnels.waiting.remove(&tunnel)).flatten().ok_or(RelayError::Nobody)?;
        drop(tunnels);
        waiting.taken.send(()).map_err(|()| RelayError::Nobody)?;
        Ok(waiting.end)
    }

    fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnels {
    /// Counts a call of somebody, unless they have none left.
    fn rate(&mut self, user: UserId, now: Instant) -> Result<(), RelayError> {
        if self.rested.len() >= REMEMBERED {
            self.rested.retain(|_, rested| *rested > now);
        }
        let rested = self.rested.entry(user).or_insert(now);
        let after = (*rested).max(now) + EACH;
        if after > now + EACH * AT_ONCE {
            return Err(RelayError::Often);
        }
        *rested = after;
        Ok(())
    }
}

impl Call {
    /// By which the executor is told of it.
    pub fn tunnel(&self) -> TunnelId {
        self.place.tunnel
    }

    /// Waits until the executor has taken the other end. The place counts for as long as it is kept.
    pub async fn answered(self) -> Result<(End, Place), RelayError> {
        match timeout(PATIENCE, self.taken).await {
            Ok(Ok(())) => Ok((self.end, self.place)),
            Ok(Err(_)) | Err(_) => Err(RelayError::Silent),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tunnels = self.relay.tunnels();
        let given_up = tunnels.waiting.remove(&self.tunnel);
        if let Some(count) = tunnels.counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                tunnels.counts.remove(&self.user);
            }
        }
        drop(tunnels);
        drop(given_up);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::advance;

    use super::*;

    fn ids() -> (UserId, ExecutorId) {
        (UserId::fresh(), ExecutorId::fresh())
    }

    #[tokio::test]
    async fn two_meet_and_talk() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        let call = relay.call(user, executor).unwrap();
        let mut far = relay.take(call.tunnel(), executor).unwrap();
        let (mut near, _place) = call.answered().await.unwrap();
        let hello = Piece::Data(Bytes::from_static(b"SSH-2.0"));
        near.to.send(hello.clone()).await.unwrap();
        near.to.send(Piece::End).await.unwrap();
        assert_eq!((far.from.recv().await, far.from.recv().await), (Some(hello.clone()), Some(Piece::End)));
        far.to.send(hello.clone()).await.unwrap();
        assert_eq!(near.from.recv().await, Some(hello), "one side has ended, the other goes on");
        drop(far);
        assert_eq!(near.from.recv().await, None);
        assert!(near.to.send(Piece::End).await.is_err());
    }

    #[tokio::test]
    async fn only_who_is_called_takes_it_and_once() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        let call = relay.call(user, executor).unwrap();
        let tunnel = call.tunnel();
        assert_eq!(relay.take(tunnel, ExecutorId::fresh()).unwrap_err(), RelayError::Nobody);
        assert_eq!(relay.take(TunnelId::fresh(), executor).unwrap_err(), RelayError::Nobody);
        let _end = relay.take(tunnel, executor).unwrap();
        assert_eq!(relay.take(tunnel, executor).unwrap_err(), RelayError::Nobody);
        call.answered().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_called_back_leaves_nothing() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        let call = relay.call(user, executor).unwrap();
        let tunnel = call.tunnel();
        assert_eq!(call.answered().await.unwrap_err(), RelayError::Silent);
        assert_eq!(relay.take(tunnel, executor).unwrap_err(), RelayError::Nobody);
        drop(relay.call(user, executor).unwrap());
        let tunnels = relay.tunnels();
        assert!(tunnels.waiting.is_empty() && tunnels.counts.is_empty(), "{tunnels:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_and_hangs_up_waits_for_the_next_call() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        for _ in 0..AT_ONCE {
            drop(relay.call(user, executor).unwrap());
        }
        assert_eq!(relay.call(user, executor).unwrap_err(), RelayError::Often);
        drop(relay.call(UserId::fresh(), executor).expect("others are not hurt"));
        advance(EACH).await;
        drop(relay.call(user, executor).expect("one has come back"));
        assert_eq!(relay.call(user, executor).unwrap_err(), RelayError::Often);
        advance(2 * EACH * AT_ONCE).await;
        for _ in 0..AT_ONCE {
            drop(relay.call(user, executor).expect("no more than these are saved up"));
        }
        assert_eq!(relay.call(user, executor).unwrap_err(), RelayError::Often);
        advance(EACH * AT_ONCE).await;
        for _ in 0..2 * REMEMBERED {
            drop(relay.call(UserId::fresh(), executor).unwrap());
            advance(EACH).await;
        }
        assert!(relay.tunnels().rested.len() <= REMEMBERED);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_too_many() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        let mut calls: Vec<Call> = (0..OF_ONE).map(|_| relay.call(user, executor).unwrap()).collect();
        assert_eq!(relay.call(user, executor).unwrap_err(), RelayError::Yours);
        drop(calls.pop());
        advance(EACH).await;
        calls.push(relay.call(user, executor).unwrap());
        calls.extend((OF_ONE..OF_ALL).map(|_| relay.call(UserId::fresh(), executor).unwrap()));
        assert_eq!(relay.call(UserId::fresh(), executor).unwrap_err(), RelayError::Full);
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_stops_the_other() {
        let (relay, (user, executor)) = (Relay::default(), ids());
        let call = relay.call(user, executor).unwrap();
        let far = relay.take(call.tunnel(), executor).unwrap();
        let (near, _place) = call.answered().await.unwrap();
        let accepted = (0..100).take_while(|_| near.to.try_send(Piece::End).is_ok()).count();
        assert_eq!(accepted, 4);
        drop(far);
    }
}

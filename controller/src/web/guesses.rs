//! How often an address may show what makes it nobody: each call that may end so takes a place from its address, and gives
//! it back when it was good. What is taken comes back with time, so that nobody is locked out for good, and who is known
//! to be good is not counted: one guesser in an office does not send its colleagues home.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, header::RETRY_AFTER};
use tonic::{Code, Status};

use super::{listen::Peer, network};

/// Wrong calls that an address has at once, and how soon it has another one.
const AT_ONCE: u32 = 200;
const EACH: Duration = Duration::from_millis(500);

/// Addresses that are remembered; beyond, all are forgotten: secrets of 256 bits are not found for that.
const REMEMBERED: usize = 16_384;

/// The guesses of all addresses. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guesses {
    /// When each address has all its places again.
    full: Arc<Mutex<HashMap<IpAddr, Instant>>>,
}

/// A call that may be a guess.
#[derive(Debug)]
#[must_use]
pub struct Guess {
    address: IpAddr,
    among: Guesses,
}

impl Guesses {
    /// One more guess from `address`, or how long it has to wait for it.
    pub fn take(&self, address: IpAddr) -> Result<Guess, Duration> {
        self.take_at(address, Instant::now())
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> Result<Guess, Duration> {
        let address = network(address);
        let mut all = self.full();
        if all.len() >= REMEMBERED {
            all.retain(|_, full| *full > now);
        }
        if all.len() >= REMEMBERED {
            tracing::warn!(addresses = all.len(), "too many addresses show no good credential; all may try again");
            all.clear();
        }
        let full = all.get(&address).copied().unwrap_or(now).max(now) + EACH;
        // The earliest time at which this one, too, fits in.
        let wait = full.saturating_duration_since(now + EACH * AT_ONCE);
        if !wait.is_zero() {
            return Err(wait);
        }
        all.insert(address, full);
        Ok(Guess { address, among: self.clone() })
    }

    fn full(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess {
    /// It was none.
    pub fn was_good(self) {
        let mut all = self.among.full();
        if let Some(full) = all.get_mut(&self.address) {
            *full = full.checked_sub(EACH).unwrap_or(*full);
        }
    }
}

/// What an address is told that has to wait for so long.
pub fn too_many(wait: Duration) -> Status {
    let seconds = wait.as_secs() + 1;
    let mut status = Status::resource_exhausted(format!(
        "too many calls from your address have shown nothing that lets them in; try again in {seconds} s"
    ));
    if let Ok(value) = seconds.to_string().parse() {
        status.metadata_mut().insert(RETRY_AFTER.as_str(), value);
    }
    status
}

/// Counts the calls of those who show no certificate that is good now, to where executors call.
pub async fn counted(State(guesses): State<Guesses>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let stranger = peer.filter(|peer| peer.executor.as_ref().is_none_or(|shown| shown.caller.lapsed));
    let Some(address) = stranger.map(|peer| peer.address.ip()) else { return next.run(request).await };
    match guesses.take(address) {
        Ok(guess) => {
            let response = next.run(request).await;
            if !refused(&response) {
                guess.was_good();
            }
            response
        }
        Err(wait) => too_many(wait).into_http::<Body>(),
    }
}

/// Whether it was the caller's fault. An answer that is no refusal says its status behind it.
fn refused(response: &Response) -> bool {
    let said = response.headers().get("grpc-status").map(HeaderValue::as_bytes).map(Code::from_bytes);
    !response.status().is_success() || !matches!(said, None | Some(Code::Ok | Code::Unavailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_so_many_and_another_with_time() {
        let (guesses, start, office) = (Guesses::default(), Instant::now(), address("10.0.0.1"));
        for _ in 0..AT_ONCE {
            let _wrong = guesses.take_at(office, start).expect("there is room");
        }
        assert_eq!(guesses.take_at(office, start).expect_err("there is none"), EACH);
        assert_eq!(guesses.take_at(address("::ffff:10.0.0.1"), start).expect_err("it is the same one"), EACH);
        guesses.take_at(address("10.0.0.2"), start).expect("others are not hurt").was_good();
        let soon = start + EACH / 2;
        assert_eq!(guesses.take_at(office, soon).expect_err("a moment is left"), EACH / 2);
        let _wrong = guesses.take_at(office, start + EACH).expect("one has come back");
        assert!(guesses.take_at(office, start + EACH).is_err());
    }

    #[test]
    fn what_was_good_takes_nothing() {
        let (guesses, start, office) = (Guesses::default(), Instant::now(), address("10.0.0.1"));
        for _ in 0..10 * AT_ONCE {
            guesses.take_at(office, start).expect("there is room").was_good();
        }
    }

    #[test]
    fn who_has_to_wait_is_told_for_how_long() {
        let status = too_many(Duration::from_millis(1500));
        assert_eq!(status.metadata().get("retry-after").expect("it is said"), "2");
        assert!(status.message().ends_with("try again in 2 s"), "{status}");
    }

    #[test]
    fn a_flood_of_addresses_is_not_kept() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        for n in 0..2 * REMEMBERED {
            let n = u32::try_from(n).expect("few");
            let _wrong = guesses.take_at(IpAddr::V4(n.into()), start).expect("the first of its address");
        }
        assert!(guesses.full().len() <= REMEMBERED);
    }
}

//! How often an address may show what makes it nobody. Wrong calls are counted, and forgotten with time; an address that has
//! had too many waits. Nobody is locked out for good, and who was let in a while ago is not asked to wait: one guesser in an
//! office does not send its colleagues home. Good calls cost nothing, so that a crowd may come at once.

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

/// The wrong calls of all addresses. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guesses {
    /// When each address has none to its name again.
    over: Arc<Mutex<HashMap<IpAddr, Instant>>>,
}

impl Guesses {
    /// Lets a call in from `address`, or says how long it has to wait.
    pub fn admit(&self, address: IpAddr) -> Result<(), Duration> {
        self.admit_at(address, Instant::now())
    }

    /// A call from `address` was wrong.
    pub fn wrong(&self, address: IpAddr) {
        self.wrong_at(address, Instant::now());
    }

    fn admit_at(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let over = self.over().get(&network(address)).copied().unwrap_or(now);
        let wait = over.saturating_duration_since(now + EACH * (AT_ONCE - 1));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    fn wrong_at(&self, address: IpAddr, now: Instant) {
        let address = network(address);
        let mut all = self.over();
        if all.len() >= REMEMBERED {
            all.retain(|_, over| *over > now);
        }
        if all.len() >= REMEMBERED {
            tracing::warn!(addresses = all.len(), "too many addresses show nothing good; all may try again");
            all.clear();
        }
        let over = all.entry(address).or_insert(now);
        // What was on its way when the last place was taken adds nothing to the wait.
        *over = ((*over).max(now) + EACH).min(now + EACH * AT_ONCE);
    }

    fn over(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
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
    if let Err(wait) = guesses.admit(address) {
        return too_many(wait).into_http::<Body>();
    }
    let response = next.run(request).await;
    if refused(&response) {
        guesses.wrong(address);
    }
    response
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
            assert_eq!(guesses.admit_at(office, start), Ok(()));
            guesses.wrong_at(office, start);
        }
        assert_eq!(guesses.admit_at(office, start), Err(EACH));
        assert_eq!(guesses.admit_at(address("::ffff:10.0.0.1"), start), Err(EACH), "it is the same one");
        assert_eq!(guesses.admit_at(address("10.0.0.2"), start), Ok(()), "others are not hurt");
        assert_eq!(guesses.admit_at(office, start + EACH / 2), Err(EACH / 2));
        assert_eq!(guesses.admit_at(office, start + EACH), Ok(()), "one has come back");
        guesses.wrong_at(office, start + EACH);
        assert_eq!(guesses.admit_at(office, start + EACH), Err(EACH));
    }

    #[test]
    fn however_many_were_on_their_way_the_wait_is_short() {
        let (guesses, start, office) = (Guesses::default(), Instant::now(), address("10.0.0.1"));
        for _ in 0..100 * AT_ONCE {
            guesses.wrong_at(office, start);
        }
        assert_eq!(guesses.admit_at(office, start), Err(EACH));
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
            guesses.wrong_at(IpAddr::V4(n.into()), start);
        }
        assert!(guesses.over().len() <= REMEMBERED);
    }
}

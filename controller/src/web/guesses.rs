//! How often an address may show what makes it nobody. Wrong calls are counted, and forgotten with time; an address that has
//! had too many waits. Nobody is locked out for good, and who was let in a while ago is not asked to wait: one guesser in an
//! office does not send its colleagues home. Good calls cost nothing, so that a crowd may come at once.
//!
//! Whether a call is wrong is known when the database has answered. So strangers wait for each other: the rate alone would
//! let in at once whatever comes before the first answer.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use axum::{
    body::{self, Body},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, header::RETRY_AFTER};
use sculpt_proto::executor::v1::enrolment_server;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Code, Status};

use super::{listen::Peer, network};

/// Wrong calls that an address has at once, and how soon it has another one.
const AT_ONCE: u32 = 200;
const EACH: Duration = Duration::from_millis(500);

/// Addresses that are remembered; beyond, all are forgotten: secrets of 256 bits are not found for that.
const REMEMBERED: usize = 16_384;

/// Calls of strangers at a time: of one address, and of all those that ask the database. The second leaves most connections
/// to it to those who are known, however slowly it answers.
const OF_ONE: usize = 64;
const ASKING: usize = 8;

/// Longest wait of a stranger behind others of its address.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than a machine says that joins or renews.
const LARGEST: usize = 128 << 10;

/// The wrong calls of all addresses, and the strangers of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guesses {
    /// When each address has none to its name again.
    over: Arc<Mutex<HashMap<IpAddr, Instant>>>,
    /// The places of each address that has strangers here.
    places: Arc<Mutex<HashMap<IpAddr, Weak<Semaphore>>>>,
    asking: Arc<Semaphore>,
}

/// A stranger's call. It was wrong, unless it was [`right`](Self::right): who hangs up before the answer has guessed, too.
#[derive(Debug)]
pub struct Stranger {
    guesses: Guesses,
    address: IpAddr,
    right: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Stranger {
    /// Waits until it may ask the database, which it may while it holds this.
    pub async fn asks(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.guesses.asking).acquire_owned().await.ok()
    }

    /// It was not its fault.
    pub fn right(mut self) {
        self.right = true;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if !self.right {
            self.guesses.wrong(self.address);
        }
    }
}

impl Default for Guesses {
    fn default() -> Self {
        Self { over: Arc::default(), places: Arc::default(), asking: Arc::new(Semaphore::new(ASKING)) }
    }
}

impl Guesses {
    /// The same wrong calls, for another listener: who is slow at one holds nobody up at the other.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { over: Arc::clone(&self.over), ..Self::default() }
    }

    /// Lets a stranger in from `address` when it has a place, or says how long to wait before the next call.
    pub async fn enter(&self, address: IpAddr) -> Result<Stranger, Duration> {
        self.admit(address)?;
        let place = timeout(PATIENCE, self.places_of(address).acquire_owned()).await.map_err(|_| EACH)?;
        // Those before it may have been wrong.
        self.admit(address)?;
        Ok(Stranger { guesses: self.clone(), address, right: false, _place: place.ok() })
    }

    fn places_of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            // What is left has a connection.
            all.retain(|_, places| places.strong_count() > 0);
        }
        let kept = all.entry(network(address)).or_default();
        kept.upgrade().unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(OF_ONE));
            *kept = Arc::downgrade(&places);
            places
        })
    }

    fn admit(&self, address: IpAddr) -> Result<(), Duration> {
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
    let stranger = match guesses.enter(address).await {
        Ok(stranger) => stranger,
        Err(wait) => return too_many(wait).into_http::<Body>(),
    };
    let response =
        if is_enrolment(&request) { enrolled(&stranger, request, next).await } else { next.run(request).await };
    if !refused(&response) {
        stranger.right();
    }
    response
}

/// What strangers come for. They are refused all else without a look into the database.
fn is_enrolment(request: &Request) -> bool {
    request.uri().path().trim_start_matches('/').split('/').next() == Some(enrolment_server::SERVICE_NAME)
}

/// Lets it ask the database when it has said all: while it speaks it must not hold up others.
async fn enrolled(stranger: &Stranger, request: Request, next: Next) -> Response {
    let (head, said) = request.into_parts();
    match body::to_bytes(said, LARGEST).await {
        Ok(said) => {
            let _asks = stranger.asks().await;
            next.run(Request::from_parts(head, said.into())).await
        }
        Err(error) => {
            Status::invalid_argument(format!("the request did not arrive whole: {error}")).into_http::<Body>()
        }
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

    #[tokio::test(start_paused = true)]
    async fn strangers_wait_for_each_other() {
        let (guesses, office) = (Guesses::default(), address("10.0.0.1"));
        let mut there = Vec::new();
        for _ in 0..OF_ONE {
            there.push(guesses.enter(office).await.expect("it has a place"));
        }
        assert_eq!(guesses.enter(office).await.map(Stranger::right), Err(EACH), "it waits, and not for ever");
        guesses.enter(address("10.0.0.2")).await.expect("others are not hurt").right();
        guesses.elsewhere().enter(office).await.expect("nor is it at the other listener").right();
        there.pop().expect("it is there").right();
        let another = guesses.enter(office).await.expect("one has gone");

        let mut asking = Vec::new();
        for _ in 0..ASKING {
            asking.push(another.asks().await.expect("it may ask"));
        }
        assert!(timeout(PATIENCE, another.asks()).await.is_err(), "the database is not theirs alone");
        asking.pop();
        drop(another.asks().await.expect("one has its answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_behind_wrong_calls_is_asked_to_wait_longer() {
        let (guesses, office) = (Guesses::default(), address("10.0.0.1"));
        for _ in OF_ONE..AT_ONCE as usize {
            drop(guesses.enter(office).await.expect("it has one more"));
        }
        let mut there = Vec::new();
        for _ in 0..OF_ONE {
            there.push(guesses.enter(office).await.expect("it has a place"));
        }
        let (waited, ()) = tokio::join!(guesses.enter(office), async { there.clear() });
        assert!(waited.map(Stranger::right).is_err());
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

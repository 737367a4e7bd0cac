//! How long a client may take to say what it wants: one that trickles bytes and never completes a request is cut.

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes, HttpBody},
    routing::future::RouteFuture,
};
use futures_util::{Stream, StreamExt as _, stream};
use http::Request;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::listen::Peer;

/// What a listener bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time. For one more the oldest that has not proved who it is makes way; if there is none, more
    /// wait in the kernel's queue.
    pub connections: usize,
    /// Most connections at a time of one address that have not proved who they are; for one more the oldest makes way.
    pub strangers: usize,
    /// Longest wait for a handshake, for the headers of an HTTP/1.1 request, and for the first request
    /// of a connection.
    pub headers: Duration,
    /// Longest wait, from the first request of a connection on, for one that proves who it is. Longer than a call may take
    /// that waits for the database: who shows a good credential to a controller that cannot look it up is told so.
    pub proof: Duration,
    /// Longest wait for the whole of a request's body, and one second more for each [`RATE`] bytes of it.
    pub body: Duration,
    /// How often a silent HTTP/2 client is asked whether it lives, and how long it may take to answer.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { connections: 2048, strangers: 128, headers: ten, proof: 3 * ten, body: 2 * ten, ping: ten }
    }
}

/// The slowest body that is waited for, in bytes a second.
const RATE: u64 = 16 << 10;

/// Calls whose bodies last as long as the client likes; each has limits of its own.
const OPEN_ENDED: [&str; 7] = [
    "/sculpt.executor.v1.ExecutorService/Control",
    "/sculpt.executor.v1.ExecutorService/Logs",
    "/sculpt.executor.v1.ExecutorService/Publish",
    "/sculpt.executor.v1.Pairing/Tunnel",
    "/sculpt.v1.Git/SendPack",
    "/sculpt.v1.Pairings/Tunnel",
    "/grpc.reflection.",
];

/// The calls of one connection on their way to the router.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    router: Router,
    peer: Peer,
    limits: Limits,
    begun: CancellationToken,
    cut: CancellationToken,
}

impl Watched {
    pub(super) fn new(router: Router, peer: Peer, limits: Limits) -> Self {
        Self { router, peer, limits, begun: CancellationToken::new(), cut: CancellationToken::new() }
    }

    /// Resolves when the client has to go.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let Self { limits, begun, cut, .. } = self.clone();
        async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = tokio::time::sleep(limits.headers) => {
                    if begun.is_cancelled() {
                        cut.cancelled().await;
                    }
                }
            }
        }
    }

    /// Resolves when it has called and proved nothing for too long.
    pub(super) fn unproved(&self) -> impl Future<Output = ()> + Send + 'static {
        let (begun, proof, peer) = (self.begun.clone(), self.limits.proof, self.peer.clone());
        async move {
            begun.cancelled().await;
            tokio::time::sleep(proof).await;
            if peer.has_proved() {
                std::future::pending().await
            }
        }
    }
}

impl<B> Service<Request<B>> for Watched
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.begun.cancel();
        request.extensions_mut().insert(self.peer.clone());
        let open_ended = OPEN_ENDED.iter().any(|path| request.uri().path().starts_with(path));
        let request = request.map(|body| {
            if open_ended || body.is_end_stream() {
                return Body::new(body);
            }
            Body::from_stream(paced(Body::new(body).into_data_stream(), self.limits.body, self.cut.clone()))
        });
        self.router.call(request)
    }
}

/// `pieces`, as long as they come fast enough; else the connection is cut.
fn paced<E: Into<BoxError>>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    patience: Duration,
    cut: CancellationToken,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let deadline = Instant::now() + patience;
    stream::unfold((pieces, deadline), move |(mut pieces, deadline)| {
        let cut = cut.clone();
        async move {
            match timeout_at(deadline, pieces.next()).await {
                Ok(Some(Ok(piece))) => {
                    let earned = Duration::from_millis(piece.len() as u64 * 1000 / RATE);
                    Some((Ok(piece), (pieces, deadline + earned)))
                }
                Ok(Some(Err(error))) => Some((Err(error.into()), (pieces, deadline))),
                Ok(None) => None,
                Err(_) => {
                    cut.cancel();
                    let error = io::Error::new(io::ErrorKind::TimedOut, "the rest of the request did not come in time");
                    Some((Err(error.into()), (pieces, deadline)))
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>;

    /// So many pieces of so many bytes, with so long before each.
    fn pieces(count: usize, size: usize, pause: Duration) -> Pieces {
        let made = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(vec![b'x'; size]))
        });
        Box::pin(made)
    }

    #[tokio::test(start_paused = true)]
    async fn what_makes_progress_is_waited_for_and_what_trickles_is_cut() {
        let second = Duration::from_secs(1);
        for (count, size, pause, whole) in [
            (19, 1, second, true),
            (21, 1, second, false),
            (100, 16 << 10, second, true),
            (100, 8 << 10, second, false),
            (1, 1, 21 * second, false),
        ] {
            let cut = CancellationToken::new();
            let all: Vec<_> = paced(pieces(count, size, pause), 20 * second, cut.clone()).take(count).collect().await;
            let arrived = all.iter().all(Result::is_ok);
            assert_eq!((arrived, cut.is_cancelled()), (whole, !whole), "{count} × {size} every {pause:?}");
        }
    }
}

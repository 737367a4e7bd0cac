//! A listener: TLS, and in it HTTP/1.1 and HTTP/2, on one port; every wait bounded.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, middleware};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
};
use sculpt_tls::{Caller, CallerError};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use super::patience::Limits;
use super::{
    headers,
    newcomers::{Newcomer, Newcomers},
    patience::Watched,
};

/// What a record of TLS begins with when a client says hello.
const HANDSHAKE: u8 = 0x16;

/// What a client that speaks HTTP in the clear is told.
const IN_THE_CLEAR: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use https:// in the URL\n";

/// Most calls at a time on one connection.
const STREAMS: u32 = 1024;

/// What one call, and all calls of a connection together, may send ahead of being read. The second is so much larger that
/// calls which nobody reads do not stall their neighbours.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Who is at the other end of a connection; among the extensions of each of its calls.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it calls from.
    pub address: SocketAddr,
    /// The executor whose certificate it has shown.
    pub executor: Option<Shown>,
    newcomer: Newcomer,
}

/// A certificate that was shown, verified by the handshake.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Whom it names.
    pub caller: Caller,
    /// All of it.
    pub certificate: CertificateDer<'static>,
}

impl Peer {
    /// It has proved who it is: its connection counts no longer among those of strangers.
    pub fn proved(&self) {
        self.newcomer.proved();
    }

    /// It has, some time.
    pub(super) fn has_proved(&self) -> bool {
        self.newcomer.has_proved()
    }
}

/// Binds `address`.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Taken { address, source })
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refuses it.
    #[error("cannot listen on {address}: {source}. If another program has the port, choose one with --listen")]
    Taken {
        /// The wished address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Why a connection ended before its client was done.
#[derive(Debug, thiserror::Error)]
enum Early {
    #[error("it said nothing, or not all, in time")]
    Silent,
    #[error("it has proved nothing in time")]
    Unproved,
    #[error("it has proved nothing, and makes way for another one")]
    Displaced,
    #[error("it does not speak TLS")]
    InTheClear,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Caller(#[from] CallerError),
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

/// Serves `router` until `ending` is cancelled, each connection with the settings of `tls` that stand when it comes;
/// connections are tracked by `tracker` and end when their calls have.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    ending: CancellationToken,
    tracker: TaskTracker,
) {
    let router = router.layer(middleware::from_fn(headers::bounded));
    let (seats, newcomers) = (Arc::new(Semaphore::new(limits.connections)), Newcomers::new(limits.strangers));
    loop {
        let accepted = tokio::select! {
            () = ending.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let seat = tokio::select! {
                    () = ending.cancelled() => return,
                    seat = seat(&seats, &newcomers) => seat,
                };
                let newcomer = newcomers.admit(address.ip());
                let displaced = newcomer.displaced();
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
                let connection =
                    connection(stream, address, newcomer, acceptor, router.clone(), limits, ending.clone());
                tracker.spawn(async move {
                    let ended = tokio::select! {
                        ended = connection => ended,
                        () = displaced.cancelled() => Err(Early::Displaced),
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%address, error = &error as &dyn std::error::Error, "a connection ended early");
                    }
                    drop(seat);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: what is open may close.
                tracing::warn!(%error, "cannot take a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A seat for one more, if need be that of the oldest stranger.
async fn seat(seats: &Arc<Semaphore>, newcomers: &Newcomers) -> Option<OwnedSemaphorePermit> {
    if seats.available_permits() == 0 && !newcomers.displace() {
        tracing::warn!("all connections are taken by clients that are known; more wait for one to end");
    }
    // Nobody closes it.
    Arc::clone(seats).acquire_owned().await.ok()
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    newcomer: Newcomer,
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    ending: CancellationToken,
) -> Result<(), Early> {
    stream.set_nodelay(true)?;
    let stream = tokio::select! {
        () = ending.cancelled() => return Ok(()),
        stream = timeout(limits.headers, handshake(stream, acceptor)) => stream.map_err(|_| Early::Silent)??,
    };
    let peer = Peer { address, executor: executor(&stream)?, newcomer };
    if peer.executor.as_ref().is_some_and(|shown| !shown.caller.lapsed) {
        peer.proved();
    }
    let calls = Watched::new(router, peer, limits);
    let (builder, lost, unproved) = (builder(&stream, limits), calls.lost(), calls.unproved());
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(calls));
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = lost => return Err(Early::Silent),
        () = unproved => {
            // Who asks without a credential, as what looks whether the controller lives does, need not see it break.
            serving.as_mut().graceful_shutdown();
            timeout(limits.headers, serving).await.map_err(|_| Early::Unproved)?
        }
        () = ending.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    served.map_err(Early::Http)
}

async fn handshake(mut stream: TcpStream, acceptor: TlsAcceptor) -> Result<TlsStream<TcpStream>, Early> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
        stream.write_all(IN_THE_CLEAR).await?;
        stream.shutdown().await?;
        return Err(Early::InTheClear);
    }
    Ok(acceptor.accept(stream).await?)
}

fn executor(stream: &TlsStream<TcpStream>) -> Result<Option<Shown>, CallerError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.map(|certificate| {
        let caller = Caller::of(certificate, UnixTime::since_unix_epoch(now))?;
        Ok(Shown { caller, certificate: certificate.clone().into_owned() })
    });
    shown.transpose()
}

/// What the client chose in its hello; HTTP/1.1 when it chose nothing.
fn builder(stream: &TlsStream<TcpStream>, limits: Limits) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    let mut builder =
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(headers::MOST as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping)
        .max_header_list_size(headers::MOST);
    builder
}

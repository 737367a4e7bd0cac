//! A listener: HTTP/1.1 and HTTP/2 in the clear on one port, every wait bounded.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use super::patience::Limits;
use super::patience::Watched;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most calls at a time on one connection.
const STREAMS: u32 = 1024;

/// What one call, and all calls of a connection together, may send ahead of being read. The second is so much larger that
/// calls which nobody reads do not stall their neighbours.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Binds `address`, which must be of this machine alone.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        return Err(ListenError::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| ListenError::Taken { address, source })
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Others could reach it.
    #[error(
        "refusing to listen on {address}: until controllers have certificates, tokens would cross the network in the \
         clear. Listen on 127.0.0.1 or [::1], and reach it from elsewhere through an SSH tunnel"
    )]
    NotLoopback {
        /// The wished address.
        address: SocketAddr,
    },
    /// The system refuses it.
    #[error("cannot listen on {address}: {source}. If another program has the port, choose one with --listen")]
    Taken {
        /// The wished address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves `router` until `ending` is cancelled; connections are tracked by `tracker` and end when their calls have.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    ending: CancellationToken,
    tracker: TaskTracker,
) {
    let seats = Arc::new(Semaphore::new(limits.connections));
    loop {
        if seats.available_permits() == 0 {
            tracing::warn!(limit = limits.connections, "all connections are taken; more clients wait for one to end");
        }
        let seat = tokio::select! {
            () = ending.cancelled() => return,
            seat = Arc::clone(&seats).acquire_owned() => seat,
        };
        let Ok(seat) = seat else { return };
        let accepted = tokio::select! {
            () = ending.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, Watched::new(router.clone(), limits), limits, ending.clone());
                tracker.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%peer, error, "a connection ended early");
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

async fn connection(
    stream: TcpStream,
    calls: Watched,
    limits: Limits,
    ending: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let said = tokio::select! {
        () = ending.cancelled() => return Ok(()),
        said = timeout(limits.headers, greeted(stream)) => said,
    };
    let stream = said.map_err(|_| "it did not say what it speaks".to_owned())?.map_err(|error| error.to_string())?;
    let (builder, lost) = (builder(limits), calls.lost());
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(calls));
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = lost => return Err("it did not complete a request in time".to_owned()),
        () = ending.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    served.map_err(|error| error.to_string())
}

/// Waits until `stream` has said which protocol it speaks, and gives it back with what it said. The server behind would
/// wait for that without a limit.
async fn greeted(stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send> {
    let (mut reader, writer) = stream.into_split();
    let mut said = Vec::with_capacity(PREFACE.len());
    while said.len() < PREFACE.len() && PREFACE.starts_with(&said) {
        let limit = (PREFACE.len() - said.len()) as u64;
        if (&mut reader).take(limit).read_buf(&mut said).await? == 0 {
            break;
        }
    }
    Ok(tokio::io::join(io::Cursor::new(said).chain(reader), writer))
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping)
        .max_header_list_size(64 << 10);
    builder
}

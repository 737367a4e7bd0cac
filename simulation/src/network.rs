//! The simulated network, as the sessions see it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use sculpt_executor::connect::Network;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::{Uri, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

use crate::dice::Dice;

/// Where controllers listen.
pub const PORT: u16 = 7434;

thread_local! {
    static DICE: RefCell<Option<Dice>> = const { RefCell::new(None) };
    static REPLICAS: Cell<usize> = const { Cell::new(1) };
}

/// What follows on this thread is about `replicas` controllers, with chance from `dice`.
pub fn begin(dice: Dice, replicas: usize) {
    DICE.with_borrow_mut(|held| *held = Some(dice));
    REPLICAS.set(replicas);
}

fn draw<T>(draw: impl FnOnce(&Dice) -> T, or: T) -> T {
    DICE.with_borrow(|dice| dice.as_ref().map(draw)).unwrap_or(or)
}

/// CLOCK_BOOTTIME of a simulated host.
pub fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// The name of a controller's host.
pub fn controller(number: usize) -> String {
    format!("controller-{number}")
}

/// The network for executors: each dial meets one of the controllers.
pub fn simulated() -> Network {
    Network {
        connect: |endpoint| {
            let number = draw(|dice| dice.roll(0..REPLICAS.get()), 0);
            let connector = tower::service_fn(move |_: Uri| async move {
                TcpStream::connect((controller(number), PORT)).await.map(TokioIo::new)
            });
            Box::pin(async move { endpoint.connect_with_connector(connector).await })
        },
        jitter: Some(|| draw(|dice| dice.roll(0.5..=1.0), 1.0)),
    }
}

/// Connections that come in on this host.
pub async fn listen() -> io::Result<impl Stream<Item = io::Result<Accepted>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    }))
}

/// A connection that came in.
#[derive(Debug)]
pub struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! The simulated network, as the sessions see it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::{Pin, pin},
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
    static OPENED: Cell<u64> = const { Cell::new(0) };
    static LEFT: RefCell<Option<Vec<(u64, TcpStream)>>> = const { RefCell::new(None) };
}

/// What follows on this thread is about `replicas` controllers, with chance from `dice`.
pub fn begin(dice: Dice, replicas: usize) {
    DICE.with_borrow_mut(|held| *held = Some(dice));
    REPLICAS.set(replicas);
}

fn draw<T>(draw: impl FnOnce(&Dice) -> T, or: T) -> T {
    DICE.with_borrow(|dice| dice.as_ref().map(draw)).unwrap_or(or)
}

tokio::task_local! {
    static CLOCK: Clock;
}

/// The clock of a host: it was started at a time of its own, and goes too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Duration,
    /// What it gains, in parts of a million.
    gains: i64,
}

impl Clock {
    /// One of those that there are.
    pub fn any(dice: &Dice) -> Self {
        Self { started: dice.millis(0..100_000_000), gains: dice.roll(-20_000..=20_000) }
    }

    /// What it shows so long after the beginning of the simulation.
    pub fn at(self, elapsed: Duration) -> Duration {
        let gained = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX).saturating_mul(self.gains) / 1_000_000;
        let gained_by = Duration::from_micros(gained.unsigned_abs());
        let shown = self.started + elapsed;
        if gained < 0 { shown.saturating_sub(gained_by) } else { shown + gained_by }
    }

    /// Runs `work` by this clock.
    pub async fn rules<T>(self, work: impl Future<Output = T>) -> T {
        CLOCK.scope(self, work).await
    }
}

/// CLOCK_BOOTTIME of the host whose clock rules.
pub fn boottime() -> Duration {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    CLOCK.try_with(|clock| clock.at(elapsed)).unwrap_or(elapsed)
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
                TcpStream::connect((controller(number), PORT)).await.map(|stream| TokioIo::new(Wire::open(stream)))
            });
            Box::pin(async move { endpoint.connect_with_connector(connector).await })
        },
        jitter: || draw(|dice| dice.roll(0.5..=1.0), 1.0),
    }
}

/// Connections that come in on this host.
pub async fn listen() -> io::Result<impl Stream<Item = io::Result<Wire>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Wire::open(stream));
        Some((accepted, listener))
    }))
}

/// What a host's software holds from its beginning: its connections are closed in the order of their opening when it is
/// crashed. A runtime drops its tasks in an order that hangs on how many other tasks the process has had, and each last
/// segment draws how long it takes.
#[derive(Debug)]
pub struct Host(());

impl Host {
    /// The software of a host begins.
    pub fn begin() -> Self {
        Self(())
    }

    /// What `crash` closes waits until the software itself is dropped.
    pub fn crash(crash: impl FnOnce()) {
        LEFT.set(Some(Vec::new()));
        crash();
        LEFT.set(None);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut left = LEFT.take().unwrap_or_default();
        left.sort_by_key(|(number, _)| *number);
        drop(left);
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    number: u64,
    stream: Option<TcpStream>,
}

impl Wire {
    fn open(stream: TcpStream) -> Self {
        let number = OPENED.get();
        OPENED.set(number + 1);
        Self { number, stream: Some(stream) }
    }

    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        LEFT.with_borrow_mut(|left| {
            if let (Some(left), Some(stream)) = (left, self.stream.take()) {
                left.push((self.number, stream));
            }
        });
    }
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        pin!(self.stream()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        pin!(self.stream()?).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(self.stream()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(self.stream()?).poll_shutdown(cx)
    }
}

//! Connections between a person's machine and what an attempt listens on, both ways.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use russh::{
    Channel, ChannelMsg, ChannelOpenFailure,
    server::{ChannelOpenHandle, Handle, Msg},
};
use sculpt_pairing::{Right, Role};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    door::Entered,
    intake::Intakes,
    listeners::{self, Listeners},
    relay::{PROHIBITED, send},
    socket::{self, Wanted},
    visit::Visit,
};

/// The code of a refusal for what cannot be connected to.
const UNCONNECTED: u32 = 2;

/// After a connection could not be accepted: the host may have too many open files.
const AGAIN: Duration = Duration::from_millis(100);

/// What a person wants to be connected to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Tcp { host: String, port: u32 },
    Unix(String),
}

/// What connections of one person share.
#[derive(Clone, Debug)]
pub(super) struct Forwards {
    pub(super) entered: Arc<Entered>,
    pub(super) intakes: Intakes,
    pub(super) channels: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) cut: CancellationToken,
    pub(super) visit: Arc<Visit>,
}

/// Why there is no connection.
fn refused(code: u32, reason: impl ToString) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code, reason: reason.to_string() }
}

impl Forwards {
    /// Connects `channel` with `target` for as long as both want.
    pub(super) async fn connect(
        self,
        channel: Channel<Msg>,
        target: Target,
        reply: ChannelOpenHandle,
        _place: OwnedSemaphorePermit,
    ) {
        match self.reach(target).await {
            Ok(Reached::Tcp(stream)) => {
                reply.accept().await;
                self.join(channel, stream).await;
            }
            Ok(Reached::Unix(stream)) => {
                reply.accept().await;
                self.join(channel, stream).await;
            }
            Err(why) => {
                debug!(?why, "a forward was refused");
                reply.reject(why).await;
            }
        }
    }

    async fn reach(&self, target: Target) -> Result<Reached, ChannelOpenFailure> {
        self.allowed().await.map_err(|why| refused(PROHIBITED, why))?;
        let entered = Arc::clone(&self.entered);
        let found = listeners::one_of_few(move || {
            let place = &entered.place;
            let find = |listeners: &Listeners| match &target {
                Target::Tcp { host, port } => listeners.tcp(host, *port).map(|address| Wanted::Tcp { address }),
                Target::Unix(path) => {
                    listeners.unix(path, place.kept()).map(|path| Wanted::Unix { path: path.to_owned() })
                }
            };
            entered.listeners.find(|| place.processes(), find)
        });
        let found = found.await.map_err(|error| refused(UNCONNECTED, error))?;
        let wanted = found.map_err(|why| refused(PROHIBITED, why))?;
        let opened = socket::open(&self.entered.place, &wanted).await;
        let opened = opened.map_err(|why| refused(UNCONNECTED, format!("could not connect: {why}")))?;
        self.noted().await.ok_or_else(|| refused(PROHIBITED, "this pairing was taken back"))?;
        let reached = match wanted {
            Wanted::Tcp { .. } | Wanted::Listen { .. } => tcp(opened).map(Reached::Tcp),
            Wanted::Unix { .. } => unix(opened).map(Reached::Unix),
        };
        reached.map_err(|error| refused(UNCONNECTED, error))
    }

    async fn allowed(&self) -> Result<(), &'static str> {
        if !self.entered.pass.rights.has(Right::Forward) {
            return Err("you may not reach what this agent listens on");
        }
        if self.entered.lives().await { Ok(()) } else { Err("the attempt has ended") }
    }

    /// Sees to it that it is told that they are there. None: they are to go.
    async fn noted(&self) -> Option<()> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => None,
            () = self.visit.begins(&self.entered.pass, Role::Ports) => Some(()),
        }
    }

    /// Listens on the attempt's loopback, and brings whoever connects to the person until `end`. Returns the port.
    pub(super) async fn listen(
        self,
        address: &str,
        port: u32,
        handle: Handle,
        end: CancellationToken,
    ) -> Result<u16, String> {
        self.allowed().await?;
        let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        // Whatever address is asked for: nobody but the attempt is let through to the person.
        let wanted = Wanted::Listen { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let opened = std::net::TcpListener::from(socket::open(&self.entered.place, &wanted).await?);
        let listener = opened.set_nonblocking(true).and_then(|()| TcpListener::from_std(opened));
        let listener = listener.map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let address = address.to_owned();
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = self.cut.cancelled() => {}
                () = self.accept(&listener, &address, port, &handle) => {}
            }
        });
        Ok(port)
    }

    /// Whether a process of the attempt is at the other end.
    async fn is_own(&self, stream: &TcpStream, from: SocketAddr) -> bool {
        let Ok(to) = stream.local_addr() else { return false };
        let entered = Arc::clone(&self.entered);
        let own = listeners::one_of_few(move || listeners::connects(&entered.place.processes(), from, to));
        own.await.unwrap_or(false)
    }

    async fn accept(&self, listener: &TcpListener, address: &str, port: u16, handle: &Handle) {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "a forwarded connection was lost before it began");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            if !self.is_own(&stream, from).await {
                debug!(%from, "somebody who is not of the attempt was let through to no person");
                continue;
            }
            if self.noted().await.is_none() {
                return;
            }
            // Without room for it, it is closed.
            let Ok(place) = Arc::clone(&self.channels).try_acquire_owned() else { continue };
            let (forwards, handle, address) = (self.clone(), handle.clone(), address.to_owned());
            self.tasks.spawn(async move {
                let opened = handle.channel_open_forwarded_tcpip(
                    address,
                    port.into(),
                    from.ip().to_string(),
                    from.port().into(),
                );
                let opened = tokio::select! {
                    () = forwards.cut.cancelled() => return,
                    opened = opened => opened,
                };
                match opened {
                    Ok(channel) => forwards.join(channel, stream).await,
                    Err(error) => debug!(%error, "the person's side took no forwarded connection"),
                }
                drop(place);
            });
        }
    }

    /// Copies both ways until both are over, the person closes the channel, or the connection ends.
    async fn join(&self, channel: Channel<Msg>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let (messages, writer) = channel.split();
        let (mut asked, mut pieces) = self.intakes.forward(messages, &self.entered);
        let (from, mut to) = tokio::io::split(stream);
        let person_done = Notify::new();
        let inward = async {
            while let Some(piece) = pieces.recv().await {
                // What nobody takes is dropped: the other direction may still have something to say.
                let _dropped = to.write_all(&piece).await;
            }
            let _broken = to.shutdown().await;
            person_done.notify_one();
            Ok(())
        };
        let closed = async {
            loop {
                match asked.recv().await {
                    Some(Ok(ChannelMsg::Close)) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(lost)) => return Err(lost),
                }
            }
        };
        // What was sent before the channel was closed still arrives.
        let inward = async { tokio::try_join!(inward, closed) };
        let outward = async {
            let _broken = send(Box::new(from), &writer, None).await;
            let _gone = writer.eof().await;
            person_done.notified().await;
        };
        tokio::select! {
            () = self.cut.cancelled() => {}
            _over = inward => {}
            () = outward => {}
        }
        let _gone = writer.close().await;
    }
}

/// A socket of the attempt that is ours now.
enum Reached {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn tcp(socket: OwnedFd) -> std::io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

fn unix(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

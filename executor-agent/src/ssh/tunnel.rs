//! A person's connection that comes through the controller: we dial it, and it carries bytes both ways.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use sculpt_proto::{
    executor::v1::{
        TunnelEnd, TunnelRequest, TunnelResponse, pairing_client::PairingClient, tunnel_request, tunnel_response,
    },
    id::TunnelId,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::Streaming;

use crate::connect::{ConnectError, Dialer};

/// Pieces on their way to the network; the others wait at whoever writes.
const PIECES: usize = 4;
const PIECE: usize = 64 * 1024;

/// How long what was written last may take to arrive once nobody holds the tunnel.
const ARRIVES: Duration = Duration::from_secs(5);

/// The person's end of it is at the controller.
pub struct Tunnel {
    /// Taken when the tunnel is dropped.
    from: Option<Streaming<TunnelResponse>>,
    /// What has come and was not read.
    piece: Bytes,
    /// Nothing more comes.
    heard: bool,
    to: PollSender<TunnelRequest>,
    /// Nothing more goes.
    said: bool,
    parting: Option<oneshot::Sender<Streaming<TunnelResponse>>>,
}

/// What was written to a tunnel last: on its way, also when nobody holds the tunnel any more.
#[derive(Debug)]
pub struct LastWords(oneshot::Receiver<Streaming<TunnelResponse>>);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The controller is not reached.
    #[error("could not dial for a person who waits: {0}")]
    Dial(#[from] ConnectError),
    /// It does not take us: the person may have gone.
    #[error("the controller opens no tunnel: {}", .0.message())]
    Refused(Box<tonic::Status>),
}

impl Tunnel {
    /// Dials the controller for the person who waits for `id`. Each tunnel has a connection of its own, so that none waits for
    /// another's person. Who drops it waits for its last words.
    pub async fn dial(dialer: &Dialer, id: TunnelId) -> Result<(Self, LastWords), TunnelError> {
        let (to, requests) = mpsc::channel(PIECES);
        let first = request(tunnel_request::Part::TunnelId(id.to_string()));
        // There is room for it: nothing else was sent.
        let _room = to.try_send(first);
        let mut client = PairingClient::new(dialer.channel().await?);
        let responses = client.tunnel(ReceiverStream::new(requests)).await;
        let from = responses.map_err(|status| TunnelError::Refused(Box::new(status)))?.into_inner();
        let (parting, parted) = oneshot::channel();
        let tunnel = Self {
            from: Some(from),
            piece: Bytes::new(),
            heard: false,
            to: PollSender::new(to),
            said: false,
            parting: Some(parting),
        };
        Ok((tunnel, LastWords(parted)))
    }

    /// Waits for a piece that is not empty, or the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() && !self.heard {
            // It is there until the tunnel is dropped.
            let Some(from) = &mut self.from else { break };
            match ready!(from.poll_next_unpin(context)) {
                Some(response) => match piece(response.map_err(io::Error::other)?)? {
                    Some(data) => self.piece = data,
                    // Ours may still go out.
                    None => self.heard = true,
                },
                None => self.heard = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        part: impl FnOnce() -> tunnel_request::Part,
    ) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.to.poll_reserve(context)).map_err(gone)?;
        Poll::Ready(self.to.send_item(request(part())).map_err(gone))
    }
}

fn request(part: tunnel_request::Part) -> TunnelRequest {
    TunnelRequest { part: Some(part) }
}

/// The bytes of a message; none at the end.
fn piece(response: TunnelResponse) -> io::Result<Option<Bytes>> {
    match response.part {
        Some(tunnel_response::Part::Data(data)) => Ok(Some(data)),
        Some(tunnel_response::Part::End(TunnelEnd {})) => Ok(None),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a piece of a tunnel says nothing")),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_piece(context))?;
        let length = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece[..length]);
        self.piece.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let taken = &data[..data.len().min(PIECE)];
        ready!(self.poll_send(context, || tunnel_request::Part::Data(Bytes::copy_from_slice(taken))))?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The other side hears that nothing more comes; what it sends still does.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said {
            ready!(self.poll_send(context, || tunnel_request::Part::End(TunnelEnd {})))?;
            self.said = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// A call whose both directions are dropped at once is reset, with all that is still on its way.
impl Drop for Tunnel {
    fn drop(&mut self) {
        if let (Some(parting), Some(from)) = (self.parting.take(), self.from.take()) {
            // Without anybody who waits for them they are lost.
            let _unheard = parting.send(from);
        }
    }
}

impl LastWords {
    /// Returns when the controller has ended the call, as it does once it has passed on all, or after 5 s.
    pub async fn arrive(self) {
        let arriving = async {
            let Ok(mut from) = self.0.await else { return };
            while let Ok(Some(_late)) = from.message().await {}
        };
        let _lost = timeout(ARRIVES, arriving).await;
    }
}

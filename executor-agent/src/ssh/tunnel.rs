//! A person's connection that comes through the controller: we dial it, and it carries bytes both ways.

use std::{
    future::ready,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use sculpt_proto::{
    executor::v1::{
        TunnelEnd, TunnelRequest, TunnelResponse, pairing_client::PairingClient, tunnel_request, tunnel_response,
    },
    id::TunnelId,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{io::StreamReader, sync::PollSender};

use crate::connect::{ConnectError, Dialer};

/// Pieces on their way to the network; the others wait at whoever writes.
const PIECES: usize = 4;
const PIECE: usize = 64 * 1024;

/// The person's end of it is at the controller.
pub struct Tunnel {
    from: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
    to: PollSender<TunnelRequest>,
    ended: bool,
}

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
    /// another's person.
    pub async fn dial(dialer: &Dialer, id: TunnelId) -> Result<Self, TunnelError> {
        let (to, requests) = mpsc::channel(PIECES);
        let first = request(tunnel_request::Part::TunnelId(id.to_string()));
        // There is room for it: nothing else was sent.
        let _room = to.try_send(first);
        let mut client = PairingClient::new(dialer.channel().await?);
        let responses = client.tunnel(ReceiverStream::new(requests)).await;
        let responses = responses.map_err(|status| TunnelError::Refused(Box::new(status)))?.into_inner();
        let pieces = responses.map(|response| piece(response.map_err(io::Error::other)?));
        // After the last of theirs ours may still go out.
        let pieces = pieces.take_while(|piece| ready(!matches!(piece, Ok(None))));
        let pieces = pieces.filter_map(|piece| ready(piece.transpose()));
        Ok(Self { from: StreamReader::new(pieces.boxed()), to: PollSender::new(to), ended: false })
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
        Pin::new(&mut self.from).poll_read(context, buffer)
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
        if !self.ended {
            ready!(self.poll_send(context, || tunnel_request::Part::End(TunnelEnd {})))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

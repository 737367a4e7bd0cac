//! One connection of ssh on its way through the controller. No more of it is ever held here than a few reads.

use std::{convert::Infallible, io};

use bytes::BytesMut;
use sculpt_proto::{
    id::PairingId,
    v1::{TunnelEnd, TunnelRequest, TunnelResponse, tunnel_request, tunnel_response},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::standard;
use crate::{client::Client, exit::Exit, failure::Failure};

/// The most that is read at once, and how many reads may wait for the network.
const PIECE: usize = 32 << 10;
const WAITING: usize = 2;

/// What a tunnel attempts that ssh has begun.
pub(crate) const REACH: &str = "reach the task's executor";

/// What ssh writes to us, and what it reads from us.
pub(crate) struct Ends {
    from: standard::Input,
    /// None: it was told that nothing more comes.
    to: Option<standard::Output>,
}

impl Ends {
    /// Those of this process.
    pub(crate) fn standard() -> io::Result<Self> {
        let (from, to) = standard::both()?;
        Ok(Self { from, to: Some(to) })
    }
}

/// Carries bytes both ways until both have ended, or the reader has gone. An end of one way leaves the other one open; one that
/// fails leaves the reader, who would not wait for the reason, to the caller.
pub(crate) async fn carry(
    client: &Client,
    pairing: PairingId,
    ends: &mut Ends,
    attempted: &str,
) -> Result<(), Failure> {
    use tunnel_request::Part;
    let (send, requests) = mpsc::channel(WAITING);
    // There is room: nothing was sent before.
    let _sent = send.try_send(request(Part::Pairing(pairing.to_string())));
    let refused = |status: Status| client.refused(attempted, &status);
    let answer = client.pairings().tunnel(ReceiverStream::new(requests)).await;
    let mut answers = answer.map_err(refused)?.into_inner();
    let Ends { from, to } = ends;
    let up = async {
        read(from, &send).await;
        // The other way goes on for as long as it likes.
        std::future::pending::<Infallible>().await
    };
    let down = async {
        let cut = |status: Status| match std::error::Error::source(&status) {
            // The transport's own words say more about itself than about what happened.
            Some(_) => Failure::new(Exit::OutOfReach, attempted, "the connection to the controller was cut"),
            None => refused(status),
        };
        while let Some(TunnelResponse { part }) = answers.message().await.map_err(cut)? {
            match (part, &mut *to) {
                (Some(tunnel_response::Part::Data(data)), Some(reader)) => {
                    if reader.write_all(&data).await.is_err() || reader.flush().await.is_err() {
                        return Ok(());
                    }
                }
                (Some(tunnel_response::Part::End(TunnelEnd {})), _) => *to = None,
                (Some(tunnel_response::Part::Open(_) | tunnel_response::Part::Data(_)) | None, _) => {}
            }
        }
        match to {
            None => Ok(()),
            Some(_) => Err(Failure::new(Exit::OutOfReach, attempted, "the connection to its executor was cut")),
        }
    };
    tokio::select! {
        ended = down => ended,
        never = up => match never {},
    }
}

/// Hands on what is read, as fast as it is taken, and then that there is no more.
async fn read(mut from: impl AsyncRead + Unpin, to: &mpsc::Sender<TunnelRequest>) {
    use tunnel_request::Part;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        // What cannot be read any more has ended.
        let part = match from.read_buf(&mut buffer).await {
            Ok(1..) => Part::Data(buffer.split().freeze()),
            Ok(0) | Err(_) => Part::End(TunnelEnd {}),
        };
        let is_last = matches!(part, Part::End(_));
        // A tunnel that has gone says so to whoever reads.
        if to.send(request(part)).await.is_err() || is_last {
            return;
        }
    }
}

fn request(part: tunnel_request::Part) -> TunnelRequest {
    TunnelRequest { part: Some(part) }
}

//! A person's end of a tunnel: whom it leads to is what their pairing says.

use std::time::Duration;

use futures_util::StreamExt as _;
use sculpt_proto::{
    FieldError,
    id::PairingId,
    required,
    v1::{TunnelEnd, TunnelOpen, TunnelRequest, TunnelResponse, tunnel_request, tunnel_response},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::{Instant, interval_at, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    pairings::{PairingsApi, because, unknown},
    status::shutting_down,
};
use crate::{
    access::{Caller, Sees},
    relay::{Cut, OUTBOX, Piece, RelayError, carry},
    session::Undialled,
    store::{Store, pairings::Past},
};

/// What goes to a person.
pub(super) type Replies = ReceiverStream<Result<TunnelResponse, Status>>;

/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);

/// How soon it is found that a pairing was taken back which nothing has told of.
const LOOK: Duration = Duration::from_secs(30);

/// How long a person may take to read why their tunnel is over.
const GOODBYE: Duration = Duration::from_secs(1);

impl PairingsApi {
    /// Has the executor of a pairing dial, and carries what both ends say.
    pub(super) async fn dialled(&self, caller: &Caller, inbound: Streaming<TunnelRequest>) -> Result<Replies, Status> {
        tokio::select! {
            biased;
            // Nobody dials any more: executors' sessions are the first to end.
            () = self.ending.cancelled() => Err(shutting_down()),
            replies = self.dial(caller, inbound) => replies,
        }
    }

    async fn dial(&self, caller: &Caller, mut inbound: Streaming<TunnelRequest>) -> Result<Replies, Status> {
        // Before it is looked at, so that nothing is missed of what happens to it.
        let closings = self.bus.closings();
        let id = first(&mut inbound).await?;
        let placed = self.store.pairing(&caller.sees(), id).await?;
        let placed = placed.filter(|placed| placed.owner() == caller.user()).ok_or_else(|| unknown(id))?;
        placed.stands()?;
        let call = self.relay.call(caller.user(), placed.executor())?;
        self.sessions.dial(placed.executor(), call.tunnel(), id)?;
        let (end, place) = call.answered().await?;
        let (out, replies) = mpsc::channel(OUTBOX);
        let open = TunnelResponse { part: Some(tunnel_response::Part::Open(TunnelOpen {})) };
        let inbound = inbound.map(|message| Ok::<_, Status>(Piece::try_from(message?)?));
        let (store, sees, ending) = (self.store.clone(), caller.sees(), self.ending.clone());
        self.tracker.spawn(async move {
            let _place = place;
            if out.send(Ok(open)).await.is_err() {
                return;
            }
            tokio::select! {
                () = carry(end, inbound, out.clone(), ending) => {}
                past = taken_back(closings, &store, &sees, id) => {
                    // Who does not read finds the stream ended without an end of the tunnel.
                    let _unread = timeout(GOODBYE, out.send(Err(past.into()))).await;
                }
            }
        });
        Ok(ReceiverStream::new(replies))
    }
}

/// The pairing that the first message names.
async fn first(inbound: &mut Streaming<TunnelRequest>) -> Result<PairingId, Status> {
    let silent = |_| Status::deadline_exceeded("the tunnel was opened, and nothing was said through it");
    let first = timeout(FIRST, inbound.message()).await.map_err(silent)??;
    match first.and_then(|message| message.part) {
        Some(tunnel_request::Part::Pairing(id)) => Ok(FieldError::parse(&id, "pairing")?),
        _ => Err(FieldError::new("part", "the first message must name the pairing").into()),
    }
}

/// Returns when the pairing was taken back. Whatever else ends it, its executor does.
async fn taken_back(mut closings: broadcast::Receiver<PairingId>, store: &Store, sees: &Sees, id: PairingId) -> Past {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    loop {
        tokio::select! {
            closed = closings.recv() => match closed {
                Ok(closed) if closed == id => return Past::Closed,
                Ok(_) => continue,
                Err(RecvError::Lagged(_)) => {}
                // The controller ends, and says so itself.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            // Word of another replica may have been lost.
            _ = look.tick() => {}
        }
        let found = store.pairing(sees, id).await;
        if matches!(found, Ok(Some(placed)) if placed.stands() == Err(Past::Closed)) {
            return Past::Closed;
        }
    }
}

impl From<Undialled> for Status {
    fn from(error: Undialled) -> Self {
        match error {
            Undialled::Elsewhere => because(Self::unavailable(error.to_string()), "elsewhere"),
            Undialled::Busy => because(Self::resource_exhausted(error.to_string()), "too_many"),
        }
    }
}

impl From<RelayError> for Status {
    fn from(error: RelayError) -> Self {
        let text = error.to_string();
        match error {
            RelayError::Yours | RelayError::Full => because(Self::resource_exhausted(text), "too_many"),
            RelayError::Silent => because(Self::unavailable(text), "silent"),
            RelayError::Nobody => Self::not_found(text),
        }
    }
}

impl From<Cut> for Status {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Alone(_) | Cut::Ending => Self::unavailable(cut.to_string()),
            Cut::Broken => Self::cancelled(cut.to_string()),
        }
    }
}

impl TryFrom<TunnelRequest> for Piece {
    type Error = FieldError;

    fn try_from(request: TunnelRequest) -> Result<Self, FieldError> {
        match required(request.part, "part")? {
            tunnel_request::Part::Data(data) => Self::data(data),
            tunnel_request::Part::End(_) => Ok(Self::End),
            tunnel_request::Part::Pairing(_) => Err(Self::named_again()),
        }
    }
}

impl From<Piece> for TunnelResponse {
    fn from(piece: Piece) -> Self {
        let part = match piece {
            Piece::Data(data) => tunnel_response::Part::Data(data),
            Piece::End => tunnel_response::Part::End(TunnelEnd {}),
        };
        Self { part: Some(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_piece() {
        let piece = |part| Piece::try_from(TunnelRequest { part }).map_err(|error| error.field);
        let data = bytes::Bytes::from_static(b"SSH-2.0");
        assert_eq!(piece(Some(tunnel_request::Part::Data(data.clone()))), Ok(Piece::Data(data)));
        assert_eq!(piece(Some(tunnel_request::Part::End(TunnelEnd {}))), Ok(Piece::End));
        assert_eq!(piece(Some(tunnel_request::Part::Pairing("again".into()))), Err("part"));
        assert_eq!(piece(None), Err("part"));
    }
}

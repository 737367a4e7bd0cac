//! A person's end of a tunnel: whom it leads to is what their pairing says.

use std::time::Duration;

use futures_util::StreamExt as _;
use sculpt_proto::{
    FieldError,
    id::PairingId,
    v1::{TunnelOpen, TunnelRequest, TunnelResponse, tunnel_request, tunnel_response},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::{Instant, Interval, interval_at, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    pairings::{PairingsApi, unknown},
    pieces::{first, nameless},
    status::shutting_down,
};
use crate::{
    access::{Caller, Sees},
    relay::{OUTBOX, Piece, carry},
    store::{Store, pairings::Past},
};

/// What goes to a person.
pub(super) type Replies = ReceiverStream<Result<TunnelResponse, Status>>;

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
        let id = first(&mut inbound, named).await?;
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
        let look = interval_at(Instant::now() + self.look, self.look);
        self.tracker.spawn(async move {
            let _place = place;
            if out.send(Ok(open)).await.is_err() {
                return;
            }
            tokio::select! {
                () = carry(end, inbound, out.clone(), ending) => {}
                past = taken_back(closings, look, &store, &sees, id) => {
                    // Who does not read finds the stream ended without an end of the tunnel.
                    let _unread = timeout(GOODBYE, out.send(Err(past.into()))).await;
                }
            }
        });
        Ok(ReceiverStream::new(replies))
    }
}

/// The pairing that the first message names.
fn named(first: TunnelRequest) -> Result<PairingId, FieldError> {
    match first.part {
        Some(tunnel_request::Part::Pairing(id)) => FieldError::parse(&id, "pairing"),
        _ => Err(nameless()),
    }
}

/// Returns when the pairing was taken back, or is nowhere to be seen. Whatever else ends it, its executor does.
async fn taken_back(
    mut closings: broadcast::Receiver<PairingId>,
    mut look: Interval,
    store: &Store,
    sees: &Sees,
    id: PairingId,
) -> Past {
    loop {
        match word(&mut closings, &mut look, id).await {
            Word::Closed => return Past::Closed,
            Word::Look => {}
        }
        match store.pairing(sees, id).await {
            Ok(Some(placed)) if placed.stands() == Err(Past::Closed) => return Past::Closed,
            // Gone with its task.
            Ok(None) => return Past::Over,
            // What cannot be read now can at the next look.
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

/// What is heard of a pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It was taken back.
    Closed,
    /// Nothing, and it may have been: word of another replica can be lost.
    Look,
}

async fn word(closings: &mut broadcast::Receiver<PairingId>, look: &mut Interval, id: PairingId) -> Word {
    loop {
        tokio::select! {
            closed = closings.recv() => match closed {
                Ok(closed) if closed == id => return Word::Closed,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Word::Look,
                // The controller ends, and says so itself.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            _ = look.tick() => return Word::Look,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_at_where_word_of_it_may_have_been_lost() {
        let (own, other) = (PairingId::fresh(), PairingId::fresh());
        let hour = Duration::from_secs(3600);
        for (told, heard, after) in [
            (vec![own], Word::Closed, Duration::ZERO),
            (vec![other, own], Word::Closed, Duration::ZERO),
            (vec![own, other, other], Word::Look, Duration::ZERO),
            (vec![other], Word::Look, hour),
            (vec![], Word::Look, hour),
        ] {
            let (closed, mut closings) = broadcast::channel(2);
            for id in &told {
                closed.send(*id).expect("it is heard");
            }
            let began = Instant::now();
            let mut look = interval_at(began + hour, hour);
            let said = timeout(2 * hour, word(&mut closings, &mut look, own)).await.expect("it is heard or looked at");
            assert_eq!((said, began.elapsed()), (heard, after), "{told:?}");
        }
    }
}

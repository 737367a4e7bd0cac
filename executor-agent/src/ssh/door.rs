//! Who is at the door, and whether they may come in.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use russh::{Disconnect, keys::ssh_key::Certificate};
use sculpt_pairing::{Pass, Refusal, check};
use sculpt_proto::id::PairingId;
use tokio::sync::watch;
use tracing::info;

use super::{
    guests::{self, GuestList, NotAGuest},
    inside::{Crowded, Inside, OneInside},
    listeners::Found,
    place::{Attempts, NoPlace, Place},
};

/// Somebody who was let in: what they may do, and beside what.
#[derive(Debug)]
pub(super) struct Entered {
    /// With the rights that they have.
    pub(super) pass: Pass,
    pub(super) place: Place,
    /// What they may be connected with.
    pub(super) listeners: Found,
    _counted: OneInside,
}

impl Entered {
    /// Whether their agent runs. What cannot be said now is no end.
    pub(super) async fn lives(self: &Arc<Self>) -> bool {
        let entered = Arc::clone(self);
        tokio::task::spawn_blocking(move || entered.place.lives()).await.unwrap_or(true)
    }
}

/// Where everybody asks to be let in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) list: watch::Receiver<GuestList>,
    pub(super) attempts: Attempts,
    pub(super) inside: Inside,
    /// The pairing that a tunnel was asked for with, and that no other one comes through.
    pub(super) called: Option<PairingId>,
}

/// What becomes of somebody who has proved a certificate's key.
#[derive(Debug)]
pub(super) enum Answer {
    /// They come in.
    In(Arc<Entered>),
    /// A stranger, who is told nothing.
    Stranger,
    /// The controller knows them, and they are told why not now.
    Not(Turned),
}

/// Why somebody known is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error(transparent)]
    Certificate(#[from] Refusal),
    #[error(transparent)]
    Guest(#[from] NotAGuest),
    #[error("this tunnel was asked for with another pairing, and lets no other one in")]
    Another,
    #[error(transparent)]
    Crowded(#[from] Crowded),
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error("attempt could not be looked at: {0}")]
    Look(#[from] tokio::task::JoinError),
}

impl Turned {
    /// What this is to ssh, whose numbers whoever comes can tell from each other.
    pub(super) fn disconnect(&self) -> Disconnect {
        match self {
            Self::Crowded(_) => Disconnect::TooManyConnections,
            _ => Disconnect::NoMoreAuthMethodsAvailable,
        }
    }
}

impl Door {
    /// Answers somebody who logs in as `login`.
    pub(super) async fn answer(&mut self, certificate: &Certificate, login: &str) -> Answer {
        match self.enter(certificate, login).await {
            Ok(entered) => {
                info!(user = entered.pass.user, attempt = %entered.pass.attempt, pairing = %entered.pass.pairing, "somebody came in");
                Answer::In(Arc::new(entered))
            }
            Err(Turned::Certificate(refusal @ (Refusal::Kind | Refusal::Authority))) => {
                info!(login, %refusal, "a stranger was refused");
                Answer::Stranger
            }
            Err(why) => {
                info!(login, user = certificate.key_id(), %why, "somebody was turned away");
                Answer::Not(why)
            }
        }
    }

    async fn enter(&mut self, certificate: &Certificate, login: &str) -> Result<Entered, Turned> {
        // A clock before 1970 is before every certificate.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        guests::first(&mut self.list).await;
        let pass = {
            let list = self.list.borrow();
            check(certificate, &list.authorities, login, now)?
        };
        if self.called.is_some_and(|called| called != pass.pairing) {
            return Err(Turned::Another);
        }
        let rights = guests::welcome(&mut self.list, &pass).await?;
        let counted = self.inside.comes(&pass.user)?;
        let (attempts, attempt) = (self.attempts.clone(), pass.attempt);
        let place = tokio::task::spawn_blocking(move || attempts.find(attempt)).await??;
        Ok(Entered { pass: Pass { rights, ..pass }, place, listeners: Found::default(), _counted: counted })
    }
}

//! Whether the controller lets this executor in: told once when it changes, and kept where `sculpt-executor status` finds
//! it. And whom it says is to be trusted, for who renews.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use sculpt_tls::{Pin, private};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tonic::{Code, Status};
use tracing::{info, warn};

use super::Keyring;
use crate::text::plain;

/// Why the controller does not let this executor in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In words, with what to do.
    pub why: String,
    /// When it was told first, by this machine's clock.
    pub since: SystemTime,
}

/// How this executor stands with its controller. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keyring: Option<Keyring>,
    refusal: Mutex<Option<Refusal>>,
    trusted: watch::Sender<Vec<Pin>>,
    stale: Notify,
}

impl Standing {
    /// As it was when the executor of this keyring ran last.
    pub fn of(keyring: Keyring) -> Self {
        let refusal = Mutex::new(Refusal::read(&keyring));
        Self { inner: Arc::new(Inner { keyring: Some(keyring), refusal, ..Inner::default() }) }
    }

    /// The controller has answered a call with `status`.
    pub fn told(&self, status: &Status) {
        if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) {
            self.refused(status.message());
        }
    }

    /// Nothing can be asked of the controller, or it lets nobody like us in.
    pub fn refused(&self, why: &str) {
        let why = &plain(why);
        let mut refusal = self.inner.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if refusal.as_ref().is_none_or(|before| before.why != *why) {
            warn!("the controller does not let this executor in: {why}. Agents go on, and it is asked again");
            let new = Refusal { why: why.to_owned(), since: SystemTime::now() };
            self.note(Some(&new));
            *refusal = Some(new);
        }
    }

    /// The controller has let it in.
    pub fn accepted(&self) {
        let mut refusal = self.inner.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if refusal.take().is_some() {
            info!("the controller lets this executor in again");
            self.note(None);
        }
    }

    /// The controller says whom to trust, the one that certifies first. Pins that are none say nothing.
    pub fn told_of(&self, trusted: &[Vec<u8>]) {
        let pins = trusted.iter().map(|pin| pin.as_slice().try_into().map(Pin::from_bytes)).collect();
        if let Ok(pins) = pins {
            let pins: Vec<Pin> = pins;
            self.inner.trusted.send_if_modified(|before| {
                let changed = *before != pins;
                *before = pins;
                changed
            });
        }
    }

    /// Whom the controller says to trust; empty before it has said so.
    pub(super) fn trusted(&self) -> watch::Receiver<Vec<Pin>> {
        self.inner.trusted.subscribe()
    }

    /// The controller wants our certificate renewed before anything else.
    pub fn mark_stale(&self) {
        self.inner.stale.notify_one();
    }

    /// Returns when the controller has said so since this was asked last.
    pub(super) async fn stale(&self) {
        self.inner.stale.notified().await;
    }

    fn note(&self, refusal: Option<&Refusal>) {
        let Some(keyring) = &self.inner.keyring else { return };
        let file = keyring.refusal_file();
        let noted = match refusal {
            Some(refusal) => serde_json::to_string(refusal)
                .map_err(io::Error::other)
                .and_then(|json| private::write(&file, &json).map_err(io::Error::other)),
            None => private::remove(&file).map_err(io::Error::other),
        };
        if let Err(error) = noted {
            warn!(%error, "what the controller said of this executor could not be noted");
        }
    }
}

impl Refusal {
    /// The one that stands in `keyring`; what cannot be read says nothing.
    pub(super) fn read(keyring: &Keyring) -> Option<Self> {
        serde_json::from_str(&private::read(&keyring.refusal_file()).ok()??).ok()
    }
}

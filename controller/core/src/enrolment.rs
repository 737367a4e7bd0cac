//! Renewing the certificate of an executor, and noticing that two hold the same key.
//!
//! Each certificate carries a generation, one more than the one before it. Of two holders of one key only one can have the
//! newest; the other's next renewal gives them away. A renewal whose answer was lost is told from theft by its id, which
//! the executor writes down before it asks.

use uuid::Uuid;

/// What is known of the holder of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// SHA-256 of its public key; `None`: it is known, and has not joined here, so that its certificate alone says.
    pub key: Option<[u8; 32]>,
    /// Of the newest certificate that was issued.
    pub generation: u64,
    /// The renewal that led to it; `None`: it joined.
    pub renewal: Option<Uuid>,
    /// Why it may do nothing.
    pub barred: Option<Barred>,
}

/// Why an executor may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Somebody removed it.
    Removed,
    /// Somebody locked it, or its key was found in two places.
    Locked,
}

/// A certificate that was shown, and what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// SHA-256 of the public key in it.
    pub key: [u8; 32],
    /// In it.
    pub generation: u64,
    /// Chosen by who asks, the same when it asks again.
    pub id: Uuid,
}

/// What becomes of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A certificate of this generation is issued and remembered.
    Issue {
        /// One more than before.
        generation: u64,
    },
    /// The answer was lost: a certificate of the generation that was remembered.
    Repeat {
        /// That of the answer that was lost.
        generation: u64,
    },
    /// Somebody else has renewed with this key: nobody may use it any more.
    Stolen,
    /// Nothing changes.
    Refuse(Refusal),
}

/// Why nothing is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Removed.
    #[error("the executor was removed from this controller")]
    Removed,
    /// Locked.
    #[error("the executor is locked")]
    Locked,
    /// It joined again with another key.
    #[error("the executor has joined again with another key since")]
    OtherKey,
}

/// Decides about `renewal`.
pub fn renew(holder: &Holder, renewal: &Renewal) -> Verdict {
    match holder.barred {
        Some(Barred::Removed) => return Verdict::Refuse(Refusal::Removed),
        Some(Barred::Locked) => return Verdict::Refuse(Refusal::Locked),
        None if holder.key.is_some_and(|key| key != renewal.key) => return Verdict::Refuse(Refusal::OtherKey),
        None => {}
    }
    if holder.renewal == Some(renewal.id) && holder.generation == renewal.generation.saturating_add(1) {
        Verdict::Repeat { generation: holder.generation }
    } else if renewal.generation >= holder.generation {
        // A newer one than is remembered was issued before the database was restored.
        Verdict::Issue { generation: renewal.generation.saturating_add(1) }
    } else {
        Verdict::Stolen
    }
}

/// Whether a session may be opened with a certificate of `generation`. Who has an older one renews first, and a copy shows
/// itself by that.
pub fn is_current(holder: &Holder, key: &[u8; 32], generation: u64) -> bool {
    holder.barred.is_none() && holder.key.is_none_or(|known| known == *key) && generation >= holder.generation
}

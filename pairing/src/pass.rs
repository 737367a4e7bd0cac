//! What a person's certificate says.

use rand::Rng as _;
use sculpt_proto::id::{AttemptId, PairingId};
use ssh_key::{
    Certificate, PrivateKey, PublicKey,
    certificate::{Builder, CertType},
};

use super::rights::Rights;

/// Critical options: a server that does not know them must refuse the certificate, so that it opens nothing but an
/// executor, wherever else somebody trusts our authority.
pub(crate) const PAIRING: &str = "pairing@sculpt";
pub(crate) const RIGHTS: &str = "rights@sculpt";

/// Bytes of a nonce, as OpenSSH has them.
pub(crate) const NONCE: usize = 32;

/// What lets one person sit beside one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// By which it is taken back.
    pub pairing: PairingId,
    /// Beside which.
    pub attempt: AttemptId,
    /// Whose name stands beside what was typed.
    pub user: String,
    /// What they may do.
    pub rights: Rights,
}

/// From when until when, in seconds since 1970; the end is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From here on.
    pub since: u64,
    /// Not at this second any more.
    pub until: u64,
}

/// Why nothing was certified.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The key is of a kind that is not taken: only plain keys are, none that is a certificate already.
    #[error("keys of the kind {0} are not certified here; make one with `ssh-keygen -t ed25519`")]
    Kind(String),
    /// The certificate could not be put together.
    #[error("put the certificate together: {0}")]
    Certificate(#[from] ssh_key::Error),
}

/// The name under which one logs in to sit beside `attempt`; also the certificate's only principal.
pub fn login(attempt: AttemptId) -> String {
    format!("attempt-{attempt}")
}

impl Pass {
    /// Refuses a key of a kind that is not certified.
    pub fn takes(key: &PublicKey) -> Result<(), PassError> {
        match key.algorithm() {
            ssh_key::Algorithm::Ed25519 | ssh_key::Algorithm::Ecdsa { .. } => Ok(()),
            kind => Err(PassError::Kind(kind.to_string())),
        }
    }

    /// Certifies `key` for it.
    pub fn certify(&self, key: &PublicKey, window: Window, authority: &PrivateKey) -> Result<Certificate, PassError> {
        Self::takes(key)?;
        let mut builder = begin(key, CertType::User, window)?;
        builder.key_id(self.user.clone())?.valid_principal(login(self.attempt))?;
        builder.critical_option(PAIRING, self.pairing.to_string())?;
        builder.critical_option(RIGHTS, self.rights.to_string())?;
        Ok(builder.sign(authority)?)
    }
}

/// What all certificates begin with.
pub(crate) fn begin(key: &PublicKey, kind: CertType, window: Window) -> ssh_key::Result<Builder> {
    let mut nonce = [0; NONCE];
    rand::rng().fill_bytes(&mut nonce);
    let mut builder = Builder::new(nonce, key.key_data().clone(), window.since, window.until)?;
    builder.cert_type(kind)?;
    Ok(builder)
}

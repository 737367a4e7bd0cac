//! What an executor's certificate says to whoever dials it.

use std::fmt;

use sculpt_proto::id::ExecutorId;
use ssh_key::{Certificate, PrivateKey, PublicKey, certificate::CertType};

use super::pass::{Window, begin};

/// An executor, as SSH knows it: whatever way leads there, this is the name that it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(pub ExecutorId);

/// Why a host was not certified.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Hosts have Ed25519 keys.
    #[error("a host's key is an Ed25519 key, not one of the kind {0}")]
    Kind(String),
    /// The certificate could not be put together.
    #[error("put the certificate together: {0}")]
    Certificate(#[from] ssh_key::Error),
}

/// Its name.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executor-{}", self.0)
    }
}

impl Host {
    /// Certifies its key.
    pub fn certify(self, key: &PublicKey, window: Window, authority: &PrivateKey) -> Result<Certificate, HostError> {
        if key.algorithm() != ssh_key::Algorithm::Ed25519 {
            return Err(HostError::Kind(key.algorithm().to_string()));
        }
        let mut builder = begin(key, CertType::Host, window)?;
        builder.key_id(self.to_string())?.valid_principal(self.to_string())?;
        Ok(builder.sign(authority)?)
    }

    /// The line of a known-hosts file that believes `authority` about this host, and about no other.
    pub fn known(self, authority: &PublicKey) -> ssh_key::Result<String> {
        Ok(format!("@cert-authority {self} {}", authority.to_openssh()?))
    }
}

//! What a person carries from one machine to the other so that an authority is known before it is met.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Key;

/// SHA-256 of the public key of an authority, over its DER `SubjectPublicKeyInfo`, as in RFC 7469: a certificate that is
/// renewed for the same key keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; Pin::BYTES]);

/// Why a text or a certificate gives no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not 32 bytes in base64url behind `sha256:`.
    #[error("a pin is sha256: and 43 characters of base64url, as in `sha256:3q2-7wAAAA…`")]
    Text,
    /// Not an X.509 certificate.
    #[error("it is not a certificate")]
    Certificate,
}

impl Pin {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    const PREFIX: &str = "sha256:";

    /// The pin of the key that `certificate` certifies.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PinError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PinError::Certificate)?;
        Ok(Self(Sha256::digest(parsed.public_key().raw).into()))
    }

    /// The pin of whatever certificate `key` has.
    pub fn of_key(key: &Key) -> Self {
        Self(Sha256::digest(key.public()).into())
    }

    /// From the bytes of [`Self::bytes`].
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The digest.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digest = text.strip_prefix(Self::PREFIX).ok_or(PinError::Text)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(digest).map_err(|_| PinError::Text)?;
        bytes.try_into().map(Self).map_err(|_| PinError::Text)
    }
}

//! The authorities that somebody trusts: one, or two while the second takes over from the first.

use std::{fmt, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{Pin, PinError};

/// Authorities, at least one, in the order in which they were given.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    authorities: Vec<(Pin, CertificateDer<'static>)>,
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No certificate in the text.
    #[error("it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    Empty,
    /// Something that looks like PEM and is not.
    #[error("it is not PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// A block that is no certificate.
    #[error("block {block}: {source}")]
    Certificate {
        /// Counted from 1.
        block: usize,
        /// What is wrong with it.
        source: PinError,
    },
    /// A certificate that cannot certify others.
    #[error("the certificate {pin} is not one of an authority: {source}")]
    Anchor {
        /// Whose.
        pin: Pin,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

impl Trust {
    /// The authorities in `pem`; the same twice counts once.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let blocks = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(TrustError::Pem)?;
        Self::of(blocks)
    }

    /// Trusts `certificates`; the same twice counts once.
    pub fn of(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut authorities: Vec<(Pin, _)> = Vec::new();
        for (index, certificate) in certificates.into_iter().enumerate() {
            let pin = Pin::of(&certificate).map_err(|source| TrustError::Certificate { block: index + 1, source })?;
            if authorities.iter().all(|(known, _)| *known != pin) {
                authorities.push((pin, certificate));
            }
        }
        if authorities.is_empty() {
            return Err(TrustError::Empty);
        }
        let trust = Self { authorities };
        trust.roots()?;
        Ok(trust)
    }

    /// Their certificates, to be kept.
    pub fn to_pem(&self) -> String {
        to_pem(self.certificates())
    }

    /// Their pins, in order.
    pub fn pins(&self) -> impl ExactSizeIterator<Item = Pin> + '_ {
        self.authorities.iter().map(|(pin, _)| *pin)
    }

    /// Their certificates, in order.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &CertificateDer<'static>> + '_ {
        self.authorities.iter().map(|(_, certificate)| certificate)
    }

    /// Whether one of the authorities that somebody shows is not among them.
    pub(crate) fn lacks(&self, shown: &[CertificateDer<'_>]) -> bool {
        shown.iter().filter_map(|shown| Pin::of(shown).ok()).any(|shown| self.pins().all(|known| known != shown))
    }

    /// For verifying what they signed.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, TrustError> {
        let mut roots = RootCertStore::empty();
        for (pin, certificate) in &self.authorities {
            roots.add(certificate.clone()).map_err(|source| TrustError::Anchor { pin: *pin, source })?;
        }
        Ok(Arc::new(roots))
    }
}

/// Certificates in PEM form, one after the other.
pub fn to_pem<'a, 'c: 'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'c>>) -> String {
    certificates.into_iter().map(|it| pem::encode(&pem::Pem::new("CERTIFICATE", it.as_ref()))).collect()
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").field(&self.pins().collect::<Vec<_>>()).finish()
    }
}

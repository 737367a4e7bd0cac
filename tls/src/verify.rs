//! Whether who answers is the controller: certified by an authority that is known, or by the one of a pin.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{Meeting, Pin, Trust};

/// Believes what the authorities of `whom` certify. One of them may vouch for another, which has taken over from it: what
/// the server sends along is looked through for a way to one that is believed.
#[derive(Debug)]
pub(crate) struct ByAuthority {
    whom: Whom,
    provider: Arc<CryptoProvider>,
    /// The certificate of a server that has yet to prove its key, and the authority that was met with it. Until then anybody
    /// may have sent them, and the authority's certificate be another one of the same key.
    shown: Mutex<Option<(CertificateDer<'static>, Trust)>>,
}

#[derive(Debug)]
pub(crate) enum Whom {
    /// They were met before.
    Known(Trust),
    /// It is to be found among what the server sends along.
    Pinned(Meeting),
}

/// Who answers is certified by somebody else.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Stranger {
    /// Whoever would have been believed.
    wanted: Vec<Pin>,
    /// Whom the server names as its authorities. It has proved none of it.
    shown: Vec<Pin>,
    /// No more is known of the one that is wanted than its pin.
    pub(crate) pinned: bool,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |pins: &[Pin]| pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(" and ");
        match self.shown.as_slice() {
            [] => f.write_str("it shows no authority")?,
            shown => write!(f, "it shows the authority {}", listed(shown))?,
        }
        let known = if self.pinned { "the token names" } else { "the known one is" };
        write!(f, ", and {known} {}", listed(&self.wanted))
    }
}

impl ByAuthority {
    pub(crate) fn new(whom: Whom, provider: Arc<CryptoProvider>) -> Self {
        Self { whom, provider, shown: Mutex::default() }
    }

    /// Whom to believe, now that the server has sent `along`.
    fn trust(&self, along: &[CertificateDer<'_>]) -> Result<Trust, Error> {
        match &self.whom {
            Whom::Known(trust) => Ok(trust.clone()),
            Whom::Pinned(meeting) => {
                let wanted = meeting.pin();
                let fits = || along.iter().filter(|certificate| Pin::of(certificate) == Ok(wanted));
                // Another one may vouch for it. To know the one that vouches says nothing to whoever reads what is kept of
                // this meeting, so its own certificate goes before.
                let authority = fits().find(|certificate| is_own(certificate)).or_else(|| fits().next());
                let authority = authority.ok_or_else(|| self.stranger(along))?;
                Trust::of([authority.clone().into_owned()]).map_err(refused)
            }
        }
    }

    fn stranger(&self, along: &[CertificateDer<'_>]) -> Error {
        let (wanted, pinned) = match &self.whom {
            Whom::Known(trust) => (trust.pins().collect(), false),
            Whom::Pinned(meeting) => (vec![meeting.pin()], true),
        };
        let mut shown = Vec::new();
        for pin in along.iter().filter_map(|certificate| Pin::of(certificate).ok()) {
            if !shown.contains(&pin) {
                shown.push(pin);
            }
        }
        refused(Stranger { wanted, shown, pinned })
    }
}

/// Whether who is certified says to have certified it.
fn is_own(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.issuer().as_raw() == parsed.subject().as_raw())
}

fn is_stranger(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.trust(intermediates)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(trust.roots().map_err(refused)?, Arc::clone(&self.provider))
                .build()
                .map_err(refused)?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match (verified, &self.whom) {
            (Err(Error::InvalidCertificate(error)), Whom::Known(_)) if is_stranger(&error) => {
                Err(self.stranger(intermediates))
            }
            (Ok(verified), Whom::Pinned(_)) => {
                let shown = (end_entity.clone().into_owned(), trust);
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
                Ok(verified)
            }
            (verified, _) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let proved = verify_tls13_signature(message, certificate, signed, algorithms)?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Whom::Pinned(meeting), Some((_, trust))) = (&self.whom, shown.filter(|(shown, _)| shown == certificate))
        {
            meeting.met(trust);
        }
        Ok(proved)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

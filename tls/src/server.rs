//! The side that is dialled: what it proves, and who the caller has proved to be.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{CONTROLLER_NAME, Key, Proof, Subject, SubjectError, Trust, TrustError};

/// What a listener proves: to who knows our authority the name of the controller, to everybody else the names of its
/// host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity {
    own: Arc<CertifiedKey>,
    public: Option<Arc<CertifiedKey>>,
}

/// Whose certificates a listener asks for.
#[derive(Clone, Debug)]
pub enum Callers {
    /// Nobody's.
    Anyone,
    /// Executors' of this authority. Who shows none is let in as nobody, and who shows one that has run out as
    /// [lapsed](Caller::lapsed).
    Executors(Trust),
}

/// An executor that has shown its certificate and proved that it has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whom the certificate names.
    pub subject: Subject,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// The certificate has run out, and is good for one thing: to be renewed.
    pub lapsed: bool,
}

/// Why there are no settings for a listener.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Certificate and key do not fit.
    #[error("the certificate and its key cannot be used together: {0}")]
    Identity(rustls::Error),
    /// The authorities of callers.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The library refuses its own settings.
    #[error("cannot set TLS up: {0}")]
    Settings(String),
}

/// Why a caller's certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// The name in it.
    #[error("the certificate of the caller is not one of an executor: {0}")]
    Subject(#[from] SubjectError),
}

impl Identity {
    /// Proves `own`; to who asks for another name than the controller's, `public` if there is one.
    pub fn new(own: Proof, public: Option<Proof>) -> Result<Self, ServerError> {
        let certified = |proof: Proof| {
            CertifiedKey::from_der(proof.chain, proof.key, &ring::default_provider())
                .map(Arc::new)
                .map_err(ServerError::Identity)
        };
        Ok(Self { own: certified(own)?, public: public.map(certified).transpose()? })
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ours = hello.server_name() == Some(CONTROLLER_NAME);
        Some(Arc::clone(self.public.as_ref().filter(|_| !ours).unwrap_or(&self.own)))
    }
}

/// Settings of a listener that proves `identity` to `callers`. Nothing is resumed: a resumed session would not look at
/// the caller's certificate again.
pub fn server_config(identity: Identity, callers: &Callers) -> Result<ServerConfig, ServerError> {
    let settings = |error: &dyn fmt::Display| ServerError::Settings(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = match callers {
        Callers::Anyone => Arc::new(NoClientAuth),
        Callers::Executors(trust) => {
            let inner = WebPkiClientVerifier::builder_with_provider(trust.roots()?, Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| settings(&error))?;
            Arc::new(Lenient { inner })
        }
    };
    // Browsers and the git of every system speak 1.3 today; where certificates are asked for, 1.2 would show them to all.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| settings(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl Caller {
    /// Who showed `certificate`, which the handshake has verified, at `now`.
    pub fn of(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Self, CallerError> {
        let subject = Subject::of(certificate)?;
        let until = not_after(certificate).ok_or(SubjectError::Certificate)?;
        let key = crate::Pin::of(certificate).map_err(|_| SubjectError::Certificate)?.bytes();
        Ok(Self { subject, key, lapsed: now.as_secs() > until.as_secs() })
    }
}

/// The seconds from and until which `certificate` is good.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let at = |seconds: i64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().ok()?));
    Some((at(parsed.validity().not_before.timestamp())?, at(parsed.validity().not_after.timestamp())?))
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, until) = validity(certificate)?;
    Some(UnixTime::since_unix_epoch(until.duration_since(SystemTime::UNIX_EPOCH).ok()?))
}

/// Judges a certificate that has run out as of its last second: a host that was off for a month comes back with the key
/// that it had, and with the outcomes on its disk.
#[derive(Debug)]
struct Lenient {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(
                error @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
            )) => {
                let until = not_after(end_entity).ok_or(rustls::Error::InvalidCertificate(error))?;
                self.inner.verify_client_cert(end_entity, intermediates, until)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl Proof {
    /// `key` with its certificate and those that certify it.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &Key) -> Self {
        Self { chain, key: key.private() }
    }
}

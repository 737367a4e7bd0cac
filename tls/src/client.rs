//! The side that dials: whom it believes, and what it proves.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use crate::{
    Pin, Trust, TrustError,
    verify::{ByAuthority, Whom},
};

/// The name that a controller proves to whom has its authority. The address that is dialled has no say in it: tunnels,
/// NAT and renamed hosts change nothing about who answers.
pub const CONTROLLER_NAME: &str = "controller.sculpt.internal";

/// Whom to believe that it is the controller.
#[derive(Clone, Debug)]
pub enum Server {
    /// Who is certified by an authority that was met before.
    Known(Trust),
    /// Who is certified by the authority of this pin, which is yet to be met.
    Pinned(Meeting),
    /// Who has a public certificate for the host that is dialled, as browsers believe it.
    Public,
}

/// The first contact with an authority of which no more than the pin is known.
#[derive(Clone, Debug)]
pub struct Meeting {
    pin: Pin,
    met: Arc<OnceLock<Trust>>,
}

impl Meeting {
    /// Expects the authority of `pin`.
    pub fn new(pin: Pin) -> Self {
        Self { pin, met: Arc::default() }
    }

    /// The authority, once a connection stood.
    pub fn authority(&self) -> Option<&Trust> {
        self.met.get()
    }

    /// Of the one that is expected.
    pub(crate) fn pin(&self) -> Pin {
        self.pin
    }

    /// Somebody has proved to be certified by `authority`.
    pub(crate) fn met(&self, authority: Trust) {
        // A second connection meets the same one: the pin is that of its key.
        let _known = self.met.set(authority);
    }
}

/// What proves who dials: a certificate, with those that certify it, and its key.
#[derive(Debug)]
pub struct Proof {
    /// Our own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the first.
    pub key: PrivateKeyDer<'static>,
}

/// Why nothing can be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The authorities.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Certificate and key.
    #[error("the certificate or its key cannot be used: {0}")]
    Proof(rustls::Error),
    /// This machine trusts nobody.
    #[error(
        "no authority is known to this machine, so no public certificate can be verified; install ca-certificates, or \
         name a file of authorities in SSL_CERT_FILE"
    )]
    NoRoots,
    /// The verifier refuses its own settings.
    #[error("cannot verify certificates: {0}")]
    Verifier(String),
}

/// Settings of TLS 1.3 that believe `server` and nobody else, and show `proof`.
pub fn client_config(server: &Server, proof: Option<Proof>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ClientError::Verifier(error.to_string()))?;
    let by = |whom| Arc::new(ByAuthority::new(whom, Arc::clone(&provider)));
    let builder = match server {
        Server::Public => builder.with_root_certificates(public_roots()?),
        Server::Known(trust) => builder.dangerous().with_custom_certificate_verifier(by(Whom::Known(trust.clone()))),
        Server::Pinned(meeting) => {
            builder.dangerous().with_custom_certificate_verifier(by(Whom::Pinned(meeting.clone())))
        }
    };
    match proof {
        None => Ok(builder.with_no_client_auth()),
        Some(Proof { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(ClientError::Proof),
    }
}

/// Connects to `https` addresses over HTTP/2 with `config`, made for `server`.
pub fn connector(server: &Server, config: ClientConfig, patience: Duration) -> HttpsConnector<HttpConnector> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(patience));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let builder = match server {
        Server::Public => builder,
        Server::Known(_) | Server::Pinned(_) => builder.with_server_name_resolver(FixedServerNameResolver::new(name())),
    };
    builder.enable_http2().wrap_connector(http)
}

/// Whether who answers on `stream`, believed to be `server`, shows an authority that was not met before: it has taken over
/// from one that was, which vouches for it for as long as it is trusted itself.
pub fn shows_another<T>(server: &Server, stream: &MaybeHttpsStream<T>) -> bool {
    let (Server::Known(trust), MaybeHttpsStream::Https(stream)) = (server, stream) else { return false };
    let shown = stream.inner().get_ref().1.peer_certificates().unwrap_or_default();
    // The first one is its own.
    shown.get(1..).is_some_and(|authorities| trust.lacks(authorities))
}

fn name() -> ServerName<'static> {
    #[expect(clippy::expect_used, reason = "the constant is a name, which a test sees")]
    ServerName::try_from(CONTROLLER_NAME).expect("it is a DNS name")
}

fn public_roots() -> Result<Arc<RootCertStore>, ClientError> {
    let mut roots = RootCertStore::empty();
    // Stores of systems hold a few that are not well-formed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(ClientError::NoRoots) } else { Ok(Arc::new(roots)) }
}

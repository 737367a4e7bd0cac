//! An authority as a controller has one, and a listener that shows what it certified.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType,
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use sculpt_tls::{CONTROLLER_NAME, Callers, Identity, Key, Kind, Pin, Proof, Token, Trust, server_config};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

pub(crate) struct Authority {
    key: Key,
    params: CertificateParams,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn fresh() -> Self {
        let key = Key::fresh().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, Pin::of_key(&key).to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(key.pair()).unwrap().der().clone();
        Self { key, params, certificate }
    }

    /// A user's token that names this authority.
    pub(crate) fn token(&self) -> String {
        Token::fresh(Kind::User, Some(self.pin())).reveal()
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of(&self.certificate).unwrap()
    }

    /// What a controller shows.
    pub(crate) fn controller(&self) -> Arc<ServerConfig> {
        self.shows(|_| {})
    }

    /// What a controller shows whose certificate differs in this.
    pub(crate) fn shows(&self, differs: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        self.shows_with(self.certificate.clone(), differs)
    }

    /// What a controller shows for as long as `before`, from which this one has taken over, vouches for it.
    pub(crate) fn vouched_by(&self, before: &Self) -> Arc<ServerConfig> {
        let issuer = Issuer::from_params(&before.params, before.key.pair());
        let vouched = self.params.signed_by(self.key.pair(), &issuer).unwrap().der().clone();
        self.shows_with(vouched, |_| {})
    }

    fn shows_with(
        &self,
        authority: CertificateDer<'static>,
        differs: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(CONTROLLER_NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        differs(&mut params);
        let key = Key::fresh().unwrap();
        let issuer = Issuer::from_params(&self.params, self.key.pair());
        let own = params.signed_by(key.pair(), &issuer).unwrap().der().clone();
        let proof = Proof::new(vec![own, authority], &key);
        Arc::new(server_config(Identity::new(proof, None).unwrap(), &Callers::Anyone).unwrap())
    }
}

/// Certificates of these authorities, as a controller hands them out.
pub(crate) fn bundle(authorities: &[&Authority]) -> String {
    Trust::of(authorities.iter().map(|authority| authority.certificate.clone())).unwrap().to_pem()
}

/// A port of this machine that shows what `shown` says at the time, for as long as the test runs. Whoever shows something
/// else was started anew: connections that stood are cut.
pub(crate) async fn listen(mut shown: watch::Receiver<Arc<ServerConfig>>, routes: Routes) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = routes.into_axum_router();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        // Connections end with the listener.
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                biased;
                Ok(()) = shown.changed() => {
                    connections.abort_all();
                    continue;
                }
                accepted = listener.accept() => accepted.unwrap().0,
            };
            let acceptor = TlsAcceptor::from(Arc::clone(&shown.borrow()));
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _cut = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    (address, serving)
}

//! Both sides meet over real sockets: who is believed, who is not, and what a person is told.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end at the first surprise")]

mod vouched;

use std::{net::SocketAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{
    ClientConfig, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};
use sculpt_proto::id::{ClusterId, ExecutorId};
use sculpt_tls::{
    CONTROLLER_NAME, Caller, Callers, Identity, Key, Meeting, Pin, Proof, Server, Subject, Trust, client_config,
    explain, server_config,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Authority {
    key: Key,
    params: CertificateParams,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let key = Key::fresh().unwrap();
        let certificate = params.self_signed(key.pair()).unwrap().der().clone();
        Self { key, params, certificate }
    }

    fn pin(&self) -> Pin {
        Pin::of(&self.certificate).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::of([self.certificate.clone()]).unwrap()
    }

    fn certify(&self, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = Key::fresh().unwrap();
        let issuer = Issuer::from_params(&self.params, self.key.pair());
        let own = params.signed_by(key.pair(), &issuer).unwrap().der().clone();
        Proof::new(vec![own, self.certificate.clone()], &key)
    }

    fn controller(&self) -> Proof {
        self.certify(|params| {
            params.subject_alt_names = vec![SanType::DnsName(CONTROLLER_NAME.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    fn executor(&self, subject: Subject, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        self.certify(|params| {
            params.subject_alt_names = vec![SanType::URI(subject.uri().try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    }
}

fn subject() -> Subject {
    Subject { cluster: ClusterId::fresh(), executor: ExecutorId::fresh(), generation: 3 }
}

/// A listener that says who called, or why nobody did.
struct Listener {
    address: SocketAddr,
    callers: JoinHandle<Result<Option<Caller>, String>>,
}

impl Listener {
    async fn of(controller: Proof, callers: Callers) -> Self {
        let config = server_config(Identity::new(controller, None).unwrap(), &callers).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let callers = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
            let chain = stream.get_ref().1.peer_certificates();
            let caller = chain.map(|chain| Caller::of(&chain[0], UnixTime::now()).unwrap());
            stream.write_all(b"!").await.map_err(|error| error.to_string())?;
            stream.shutdown().await.map_err(|error| error.to_string())?;
            Ok(caller)
        });
        Self { address, callers }
    }
}

/// Dials, and waits for a byte: in TLS 1.3 a refused certificate is told after the client's side of the handshake.
async fn dial(address: SocketAddr, config: ClientConfig, name: &str) -> Result<(), std::io::Error> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(|_| ())
}

async fn told(address: SocketAddr, config: ClientConfig, name: &str) -> String {
    let error = dial(address, config, name).await.expect_err("it must not be believed");
    let problem = explain(&error).unwrap_or_else(|| panic!("nothing of TLS in {error:?}"));
    assert!(!problem.next.is_empty());
    problem.why
}

#[tokio::test]
async fn an_authority_is_met_by_its_pin_and_known_from_then_on() {
    let authority = Authority::new();
    let meeting = Meeting::new(authority.pin());
    let listener = Listener::of(authority.controller(), Callers::Anyone).await;
    let config = client_config(&Server::Pinned(meeting.clone()), None).unwrap();
    assert_eq!(meeting.authority(), None, "nobody was met yet");
    dial(listener.address, config, CONTROLLER_NAME).await.unwrap();
    let trust = meeting.authority().expect("it was met").clone();
    assert_eq!(trust, authority.trust());
    assert_eq!(Trust::from_pem(trust.to_pem().as_bytes()).unwrap(), trust, "it can be kept");

    let listener = Listener::of(authority.controller(), Callers::Anyone).await;
    dial(listener.address, client_config(&Server::Known(trust), None).unwrap(), CONTROLLER_NAME).await.unwrap();
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let meeting = Meeting::new(authority.pin());
    let listener = Listener::of(other.controller(), Callers::Anyone).await;
    let config = client_config(&Server::Pinned(meeting.clone()), None).unwrap();
    let why = told(listener.address, config, CONTROLLER_NAME).await;
    assert!(why.contains("not the controller of the token") && why.contains(&authority.pin().to_string()), "{why}");
    assert_eq!(meeting.authority(), None);

    let listener = Listener::of(other.controller(), Callers::Anyone).await;
    let config = client_config(&Server::Known(authority.trust()), None).unwrap();
    let why = told(listener.address, config, CONTROLLER_NAME).await;
    assert!(why.contains("authority that is not trusted here"), "{why}");
}

#[tokio::test]
async fn showing_the_pinned_authority_is_not_being_certified_by_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut stolen = other.controller();
    stolen.chain.push(authority.certificate.clone());
    let listener = Listener::of(stolen, Callers::Anyone).await;
    let config = client_config(&Server::Pinned(Meeting::new(authority.pin())), None).unwrap();
    let why = told(listener.address, config, CONTROLLER_NAME).await;
    assert!(why.contains("authority that is not trusted here"), "{why}");
}

/// An executor has a certificate of the authority, and signs another one with its key.
#[tokio::test]
async fn nobody_passes_on_what_they_were_certified_for() {
    let authority = Authority::new();
    let mut executor = Authority::named("executor");
    let issuer = Issuer::from_params(&authority.params, authority.key.pair());
    executor.params.is_ca = IsCa::ExplicitNoCa;
    executor.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    executor.certificate = executor.params.signed_by(executor.key.pair(), &issuer).unwrap().der().clone();
    for server in [Server::Pinned(Meeting::new(authority.pin())), Server::Known(authority.trust())] {
        let mut posing = executor.controller();
        posing.chain.push(authority.certificate.clone());
        let listener = Listener::of(posing, Callers::Anyone).await;
        let why = told(listener.address, client_config(&server, None).unwrap(), CONTROLLER_NAME).await;
        assert!(!why.is_empty(), "{why}");
    }
}

#[tokio::test]
async fn an_authority_is_not_met_before_the_server_has_proved_its_key() {
    let authority = Authority::new();
    let meeting = Meeting::new(authority.pin());
    let config = client_config(&Server::Pinned(meeting.clone()), None).unwrap();
    let mut params = authority.params.clone();
    params.not_after = date_time_ymd(4000, 1, 1);
    let variant = params.self_signed(authority.key.pair()).unwrap().der().clone();
    let own = authority.controller().chain.swap_remove(0);
    // What a relay has: certificates that anybody may see, and no key of theirs.
    let key = ring::sign::any_supported_type(&Authority::new().controller().key).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![own, variant], key));
    let relay = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), TlsAcceptor::from(Arc::new(relay)));
    let relaying = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.is_ok() });
    dial(address, config.clone(), CONTROLLER_NAME).await.expect_err("it has proved nothing");
    assert!(!relaying.await.unwrap());
    assert_eq!(meeting.authority(), None);

    let listener = Listener::of(authority.controller(), Callers::Anyone).await;
    dial(listener.address, config, CONTROLLER_NAME).await.unwrap();
    assert_eq!(meeting.authority(), Some(&authority.trust()));
}

#[tokio::test]
async fn an_executor_is_no_controller() {
    let authority = Authority::new();
    let executor = authority.executor(subject(), |params| {
        params.subject_alt_names.push(SanType::DnsName(CONTROLLER_NAME.try_into().unwrap()));
    });
    let listener = Listener::of(executor, Callers::Anyone).await;
    let config = client_config(&Server::Pinned(Meeting::new(authority.pin())), None).unwrap();
    let why = told(listener.address, config, CONTROLLER_NAME).await;
    assert!(why.contains("its certificate was refused"), "{why}");
}

#[tokio::test]
async fn names_and_times_count() {
    let authority = Authority::new();
    let known = || client_config(&Server::Known(authority.trust()), None).unwrap();
    let listener = Listener::of(authority.controller(), Callers::Anyone).await;
    assert_eq!(told(listener.address, known(), "localhost").await, "its certificate is for another name");

    let late = authority.certify(|params| {
        params.subject_alt_names = vec![SanType::DnsName(CONTROLLER_NAME.try_into().unwrap())];
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let listener = Listener::of(late, Callers::Anyone).await;
    let why = told(listener.address, known(), CONTROLLER_NAME).await;
    assert!(why.contains("has run out"), "{why}");

    let early = authority.certify(|params| {
        params.subject_alt_names = vec![SanType::DnsName(CONTROLLER_NAME.try_into().unwrap())];
        params.not_before = date_time_ymd(4000, 1, 1);
        params.not_after = date_time_ymd(4001, 1, 1);
    });
    let listener = Listener::of(early, Callers::Anyone).await;
    let why = told(listener.address, known(), CONTROLLER_NAME).await;
    assert!(why.contains("not valid yet"), "{why}");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _hello = stream.read(&mut [0; 64]).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the client has read it: what it sent and nobody read would cut the answer off.
        let _alert = stream.read_to_end(&mut Vec::new()).await;
    });
    let config = client_config(&Server::Known(Authority::new().trust()), None).unwrap();
    assert_eq!(told(address, config, CONTROLLER_NAME).await, "what answers there does not speak TLS");
    plain.await.unwrap();
}

async fn call(authority: &Authority, proof: Option<Proof>) -> (Result<(), String>, Result<Option<Caller>, String>) {
    let listener = Listener::of(authority.controller(), Callers::Executors(authority.trust())).await;
    let config = client_config(&Server::Known(authority.trust()), proof).unwrap();
    let dialled = dial(listener.address, config, CONTROLLER_NAME).await;
    let dialled = dialled.map_err(|error| explain(&error).map_or_else(|| error.to_string(), |problem| problem.why));
    (dialled, listener.callers.await.unwrap())
}

#[tokio::test]
async fn an_executor_is_who_its_certificate_says() {
    let (authority, subject) = (Authority::new(), subject());
    let (dialled, caller) = call(&authority, Some(authority.executor(subject, |_| {}))).await;
    dialled.unwrap();
    let caller = caller.unwrap().expect("it showed a certificate");
    assert_eq!((caller.subject, caller.lapsed), (subject, false));

    let (dialled, caller) = call(&authority, None).await;
    assert_eq!((dialled, caller), (Ok(()), Ok(None)), "who joins has none yet");
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_lapsed_and_not_refused() {
    let (authority, subject) = (Authority::new(), subject());
    let proof = authority.executor(subject, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let (dialled, caller) = call(&authority, Some(proof)).await;
    dialled.unwrap();
    assert!(caller.unwrap().expect("it showed a certificate").lapsed);

    let early = authority.executor(subject, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
        params.not_after = date_time_ymd(4001, 1, 1);
    });
    let (dialled, caller) = call(&authority, Some(early)).await;
    assert!(dialled.is_err() && caller.is_err(), "{dialled:?} {caller:?}");
}

#[tokio::test]
async fn strangers_are_refused_and_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    for proof in [
        other.executor(subject(), |_| {}),
        other.executor(subject(), |params| params.not_after = date_time_ymd(2020, 1, 1)),
        authority.controller(),
    ] {
        let (dialled, caller) = call(&authority, Some(proof)).await;
        let why = dialled.expect_err("it must not be let in");
        assert!(why.contains("does not take the certificate of this machine"), "{why}");
        assert!(caller.is_err(), "{caller:?}");
    }
}

#[tokio::test]
async fn a_public_certificate_stands_beside_our_own() {
    let (authority, public) = (Authority::new(), Authority::new());
    let host = public.certify(|params| {
        params.subject_alt_names = vec![SanType::DnsName("sculpt.example".try_into().unwrap())];
    });
    let identity = Identity::new(authority.controller(), Some(host)).unwrap();
    let config = Arc::new(server_config(identity, &Callers::Anyone).unwrap());
    for (trust, name) in [(authority.trust(), CONTROLLER_NAME), (public.trust(), "sculpt.example")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, acceptor) = (listener.local_addr().unwrap(), TlsAcceptor::from(Arc::clone(&config)));
        let server = tokio::spawn(async move {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        dial(address, client_config(&Server::Known(trust), None).unwrap(), name).await.unwrap();
        server.await.unwrap();
    }
}

#[test]
fn a_bundle_must_hold_authorities() {
    let says = |pem: &str| Trust::from_pem(pem.as_bytes()).expect_err("there is nobody to trust").to_string();
    assert!(says("").contains("no certificate in PEM form"));
    assert!(says("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").starts_with("block 1: "));
    let pem = KeyPair::generate().unwrap().serialize_pem();
    assert!(says(&pem).contains("no certificate in PEM form"));
    let (one, two) = (Authority::new(), Authority::new());
    let both = format!("{0}{1}{0}", one.trust().to_pem(), two.trust().to_pem());
    let trust = Trust::from_pem(both.as_bytes()).unwrap();
    assert_eq!(trust.pins().collect::<Vec<_>>(), [one.pin(), two.pin()], "the same twice counts once");
    let pin = one.pin();
    assert_eq!(pin.to_string().parse::<Pin>(), Ok(pin));
    assert!("sha256:AAAA".parse::<Pin>().is_err() && "AAAA".parse::<Pin>().is_err());
}

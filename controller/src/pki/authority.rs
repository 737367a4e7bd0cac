//! The authority of TLS, in a directory: whom it has certified is believed by executors and people's tools.
//!
//! `tls.pem` holds its key and its certificate, in one file so that one rename changes both. While another takes over,
//! `tls-next.pem` is trusted and certifies nothing yet, and then `tls-previous.crt` is trusted and certifies nothing any
//! more. Every step is one file made, named or removed: a crash leaves the step before or the step after.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use sculpt_tls::{
    Key, KeyError, Pin, Proof, Subject, Trust, TrustError,
    private::{self, PrivateError},
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    PublicKey,
    issue::{self, IssueError, Names},
};

const CURRENT: &str = "tls.pem";
const NEXT: &str = "tls-next.pem";
const PREVIOUS: &str = "tls-previous.crt";

/// How long a fresh authority is good.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The authority as it is now. It reads its files once; open it anew to see a change.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: Pin,
    trust: Trust,
    phase: Phase,
}

/// How far one authority has taken over from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is one.
    Steady,
    /// The next is trusted already; the present one certifies.
    Prepared,
    /// The next has become the present one; the previous is still trusted.
    Activated,
}

/// Why there is no authority, or why it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The directory cannot be made.
    #[error("cannot make the directory of the authority {}: {source}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of a secret.
    #[error("the authority: {0}")]
    Private(#[from] PrivateError),
    /// The key in a file.
    #[error("the authority in {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The certificates in a file.
    #[error("the authority in {}: {source}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// Key and certificate are of different authorities.
    #[error("the key in {} is not that of the first certificate in it", .0.display())]
    Mismatch(PathBuf),
    /// A certificate that certifies nobody.
    #[error("the certificate in {} is not one of an authority: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// A certificate.
    #[error("the authority: {0}")]
    Issue(#[from] IssueError),
    /// The step does not follow the one before.
    #[error("{0}")]
    Order(&'static str),
}

impl Authority {
    /// The authority in `directory`; made at the first start.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| AuthorityError::Directory { path: directory.to_owned(), source })?;
        let (key, own) = match read(&directory.join(CURRENT))? {
            Some(found) => found,
            None => make(&directory.join(CURRENT))?,
        };
        let certificate = own.certificates().next().cloned().ok_or_else(|| mismatch(&directory.join(CURRENT)))?;
        let next = read(&directory.join(NEXT))?.map(|(_, trust)| trust);
        let previous = certificates(&directory.join(PREVIOUS))?;
        let present = own.pins().next();
        let phase = match (&next, &previous) {
            (Some(_), _) => Phase::Prepared,
            (None, Some(previous)) if previous.pins().next() != present => Phase::Activated,
            (None, _) => Phase::Steady,
        };
        let all = [Some(own), next, previous];
        let all = all.iter().flatten().flat_map(Trust::certificates).cloned();
        let trust = Trust::of(all).map_err(trust_in(&directory.join(CURRENT)))?;
        let pin = Pin::of_key(&key);
        let issuer = Issuer::from_ca_cert_der(&certificate, key.into_pair()).map_err(IssueError::from)?;
        Ok(Self { issuer, certificate, pin, trust, phase })
    }

    /// Whether there is one in `directory`.
    pub fn exists(directory: &Path) -> bool {
        directory.join(CURRENT).exists()
    }

    /// The files that say what the authority in `directory` is.
    pub fn files(directory: &Path) -> [PathBuf; 3] {
        [CURRENT, NEXT, PREVIOUS].map(|name| directory.join(name))
    }

    /// Makes the next authority, which is trusted from then on wherever the trusted ones are handed out.
    pub fn prepare(directory: &Path) -> Result<Self, AuthorityError> {
        match Self::open(directory)?.phase {
            Phase::Steady => {}
            Phase::Prepared => {
                return Err(AuthorityError::Order("the next authority is prepared already; activate it"));
            }
            Phase::Activated => {
                return Err(AuthorityError::Order("the previous authority is still trusted; retire it first"));
            }
        }
        // What a crash during an activation left says nothing any more.
        remove(&directory.join(PREVIOUS))?;
        make(&directory.join(NEXT))?;
        Self::open(directory)
    }

    /// Lets the next authority certify; the present one stays trusted.
    pub fn activate(directory: &Path) -> Result<Self, AuthorityError> {
        let present = Self::open(directory)?;
        if present.phase != Phase::Prepared {
            return Err(AuthorityError::Order("no next authority is prepared; prepare one first"));
        }
        let own = Trust::of([present.certificate]).map_err(trust_in(&directory.join(CURRENT)))?;
        private::write(&directory.join(PREVIOUS), &own.to_pem())?;
        private::rename(&directory.join(NEXT), &directory.join(CURRENT))?;
        Self::open(directory)
    }

    /// Ends the trust in the previous authority. Whoever holds nothing newer is a stranger from then on.
    pub fn retire(directory: &Path) -> Result<Self, AuthorityError> {
        if Self::open(directory)?.phase != Phase::Activated {
            return Err(AuthorityError::Order("no previous authority is trusted; there is nothing to retire"));
        }
        remove(&directory.join(PREVIOUS))?;
        Self::open(directory)
    }

    /// How far a change of authorities has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whom to trust: the one that certifies first.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The pin of the one that has certified before, and is still trusted.
    pub fn previous(&self) -> Option<Pin> {
        self.trust.pins().nth(1).filter(|_| self.phase == Phase::Activated)
    }

    /// The pin of the one that certifies.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// What proves to others that this is the controller, under each of `names`. The key is made for it and kept nowhere.
    pub fn controller(&self, names: &Names, now: SystemTime) -> Result<Proof, AuthorityError> {
        let key = Key::fresh().map_err(|source| AuthorityError::Key { path: PathBuf::new(), source })?;
        let own = issue::controller(&self.issuer, key.pair(), names, now)?;
        Ok(Proof::new(vec![own, self.certificate.clone()], &key))
    }

    /// Certifies that who has `key` is `subject`, for so long.
    pub fn executor(
        &self,
        key: &PublicKey,
        subject: &Subject,
        now: SystemTime,
        life: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        Ok(issue::executor(&self.issuer, key, subject, now, life)?)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust", &self.trust).field("phase", &self.phase).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Option<(Key, Trust)>, AuthorityError> {
    let Some(text) = private::read(path)? else { return Ok(None) };
    let key = Key::from_pem(&text).map_err(|source| AuthorityError::Key { path: path.to_owned(), source })?;
    let trust = Trust::from_pem(text.as_bytes()).map_err(trust_in(path))?;
    if trust.pins().next() != Some(Pin::of_key(&key)) {
        return Err(mismatch(path));
    }
    if let Some(why) = trust.certificates().next().and_then(|own| unfit(own, SystemTime::now())) {
        return Err(AuthorityError::Unfit { path: path.to_owned(), why });
    }
    Ok(Some((key, trust)))
}

/// Why `certificate`, which may have been given from outside, certifies nobody.
fn unfit(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<&'static str> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Some("it cannot be read") };
    let usage = parsed.key_usage().ok().flatten();
    if !parsed.is_ca() {
        return Some("it does not say CA:TRUE");
    }
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Some("it may not sign certificates (keyCertSign)");
    }
    match sculpt_tls::validity(certificate) {
        Some((_, until)) if until < now => Some("it has run out; have another one made"),
        _ => None,
    }
}

fn certificates(path: &Path) -> Result<Option<Trust>, AuthorityError> {
    let Some(text) = private::read(path)? else { return Ok(None) };
    Trust::from_pem(text.as_bytes()).map(Some).map_err(trust_in(path))
}

fn make(path: &Path) -> Result<(Key, Trust), AuthorityError> {
    let key = Key::fresh().map_err(|source| AuthorityError::Key { path: path.to_owned(), source })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Authorities of one controller are told apart by their keys.
    let name = Pin::of_key(&key).to_string();
    params.distinguished_name.push(DnType::CommonName, format!("sculpt {}", &name[.."sha256:".len() + 8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = OffsetDateTime::from(now - Duration::from_secs(24 * 3_600));
    params.not_after = OffsetDateTime::from(now + LIFE);
    let certificate = params.self_signed(key.pair()).map_err(IssueError::from)?.der().clone();
    let trust = Trust::of([certificate]).map_err(trust_in(path))?;
    private::write(path, &format!("{}{}", key.to_pem(), trust.to_pem()))?;
    Ok((key, trust))
}

fn remove(path: &Path) -> Result<(), AuthorityError> {
    Ok(private::remove(path)?)
}

fn mismatch(path: &Path) -> AuthorityError {
    AuthorityError::Mismatch(path.to_owned())
}

fn trust_in(path: &Path) -> impl FnOnce(TrustError) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::Trust { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sculpt_proto::id::{ClusterId, ExecutorId};
    use sculpt_tls::{Caller, Callers, Identity, Server, client_config, server_config};

    use super::*;

    fn pins(authority: &Authority) -> Vec<Pin> {
        authority.trust().pins().collect()
    }

    fn subject() -> Subject {
        Subject { cluster: ClusterId::fresh(), executor: ExecutorId::fresh(), generation: 1 }
    }

    fn certified(authority: &Authority) -> CertificateDer<'static> {
        let request = Key::fresh().expect("a key").request().expect("a request");
        let key = PublicKey::requested(&request).expect("a good request");
        authority.executor(&key, &subject(), SystemTime::now(), issue::LEAF_LIFE).expect("it is certified")
    }

    #[test]
    fn is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("authority");
        let made = Authority::open(&path).expect("it is made");
        assert_eq!((made.phase(), made.trust().pins().len()), (Phase::Steady, 1));
        assert_eq!(pins(&Authority::open(&path).expect("it is read")), pins(&made));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(CURRENT))), (0o700, 0o600));
        fs::set_permissions(path.join(CURRENT), fs::Permissions::from_mode(0o644)).expect("open it");
        assert!(matches!(Authority::open(&path), Err(AuthorityError::Private(PrivateError::Open { .. }))));
    }

    #[test]
    fn another_takes_over_in_three_steps_and_no_other_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let [first] = pins(&Authority::open(path).expect("it is made"))[..] else { panic!("one authority") };
        assert!(matches!(Authority::activate(path), Err(AuthorityError::Order(_))));
        assert!(matches!(Authority::retire(path), Err(AuthorityError::Order(_))));

        let prepared = Authority::prepare(path).expect("it is prepared");
        let [one, next] = pins(&prepared)[..] else { panic!("two authorities") };
        assert_eq!((prepared.phase(), prepared.pin(), one), (Phase::Prepared, first, first));
        assert!(matches!(Authority::prepare(path), Err(AuthorityError::Order(_))));
        assert!(matches!(Authority::retire(path), Err(AuthorityError::Order(_))));

        let activated = Authority::activate(path).expect("it is activated");
        assert_eq!((activated.phase(), pins(&activated)), (Phase::Activated, vec![next, first]));
        assert!(matches!(Authority::prepare(path), Err(AuthorityError::Order(_))));
        assert!(matches!(Authority::activate(path), Err(AuthorityError::Order(_))));

        let steady = Authority::retire(path).expect("it is retired");
        assert_eq!((steady.phase(), pins(&steady)), (Phase::Steady, vec![next]));
    }

    #[test]
    fn a_crash_while_activating_leaves_it_prepared() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let prepared = Authority::prepare(path).expect("it is prepared");
        let own = Trust::of([prepared.certificate.clone()]).expect("an authority");
        private::write(&path.join(PREVIOUS), &own.to_pem()).expect("the first half of activating");
        let found = Authority::open(path).expect("it is read");
        assert_eq!((found.phase(), pins(&found)), (Phase::Prepared, pins(&prepared)));
        assert_eq!(Authority::activate(path).expect("it goes on").phase(), Phase::Activated);
    }

    /// Whom each side of a change believes, by the library that the listeners use.
    #[tokio::test]
    async fn both_are_believed_while_one_takes_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let before = Authority::open(path).expect("it is made");
        let (old_trust, old_executor) = (before.trust().clone(), certified(&before));
        let prepared = Authority::prepare(path).expect("it is prepared");
        let activated = Authority::activate(path).expect("it is activated");
        let steady = Authority::retire(path).expect("it is retired");

        let names = Names::new([]).expect("names");
        for (authority, trust, believed) in [
            (&prepared, &old_trust, true),
            (&activated, prepared.trust(), true),
            (&activated, &old_trust, false),
            (&steady, prepared.trust(), true),
        ] {
            let proof = authority.controller(&names, SystemTime::now()).expect("a certificate");
            let identity = Identity::new(proof, None).expect("an identity");
            let server = server_config(identity, &Callers::Executors(authority.trust().clone())).expect("settings");
            let client = client_config(&Server::Known(trust.clone()), None).expect("settings");
            assert_eq!(shake_hands(server, client).await, believed, "{:?}", authority.phase());
        }
        for (authority, believed) in [(&prepared, true), (&activated, true), (&steady, false)] {
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                authority.trust().roots().expect("roots"),
                rustls::crypto::ring::default_provider().into(),
            );
            let verified = verifier.build().expect("a verifier").verify_client_cert(
                &old_executor,
                &[],
                rustls::pki_types::UnixTime::now(),
            );
            assert_eq!(verified.is_ok(), believed, "{:?}", authority.phase());
        }
    }

    async fn shake_hands(server: rustls::ServerConfig, client: rustls::ClientConfig) -> bool {
        let mut server = rustls::ServerConnection::new(server.into()).expect("a connection");
        let name = sculpt_tls::CONTROLLER_NAME.try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(client.into(), name).expect("a connection");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("into memory");
            }
            server.read_tls(&mut &wire[..]).expect("from memory");
            if server.process_new_packets().is_err() {
                return false;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).expect("into memory");
            }
            client.read_tls(&mut &wire[..]).expect("from memory");
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn an_executor_gets_the_name_that_it_is_given_and_a_day() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path()).expect("it is made");
        let key = Key::fresh().expect("a key");
        let asked = PublicKey::requested(&key.request().expect("a request")).expect("a good request");
        let (subject, now) = (subject(), SystemTime::now());
        let certificate = authority.executor(&asked, &subject, now, issue::LEAF_LIFE).expect("it is certified");
        let at = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            Caller::of(&certificate, rustls::pki_types::UnixTime::since_unix_epoch(since)).expect("it names one")
        };
        assert_eq!((at(now).subject, at(now).key), (subject, asked.digest()));
        assert!(!at(now + issue::LEAF_LIFE - Duration::from_secs(2)).lapsed);
        assert!(at(now + issue::LEAF_LIFE + Duration::from_secs(2)).lapsed);
    }

    #[test]
    fn one_given_from_outside_must_be_an_authority() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3_600);
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        for (is_ca, usages, until, wrong) in [
            (IsCa::ExplicitNoCa, vec![], now + day, "CA:TRUE"),
            (IsCa::NoCa, vec![], now + day, "CA:TRUE"),
            (ca, vec![KeyUsagePurpose::DigitalSignature], now + day, "keyCertSign"),
            (ca, vec![KeyUsagePurpose::KeyCertSign], now - day, "has run out"),
            (ca, vec![KeyUsagePurpose::KeyCertSign], now + day, ""),
            (ca, vec![], now + day, ""),
        ] {
            let key = Key::fresh().expect("a key");
            let mut params = CertificateParams::default();
            (params.is_ca, params.key_usages) = (is_ca, usages);
            (params.not_before, params.not_after) = ((now - 2 * day).into(), until.into());
            let pem = params.self_signed(key.pair()).expect("a certificate").pem();
            private::write(&path.join(CURRENT), &format!("{}{pem}", key.to_pem())).expect("it is written");
            match (Authority::open(path), wrong) {
                (Ok(authority), "") => assert_eq!(authority.pin(), Pin::of_key(&key)),
                (Err(error), wrong) if !wrong.is_empty() => assert!(error.to_string().contains(wrong), "{error}"),
                (found, wrong) => panic!("{found:?}, and not {wrong:?}"),
            }
        }
    }

    #[test]
    fn one_given_from_outside_must_fit_together() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        Authority::open(&path.join("a")).expect("it is made");
        let pem = fs::read_to_string(path.join("a").join(CURRENT)).expect("it is there");
        let other = Key::fresh().expect("a key").to_pem();
        let (_, certificate) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").expect("a certificate"));
        for (text, wrong) in [
            (format!("{other}{certificate}"), "is not that of the first certificate"),
            (certificate.to_owned(), "cannot use the private key"),
            (other, "no certificate in PEM form"),
            ("hello".to_owned(), "cannot use the private key"),
        ] {
            private::write(&path.join(CURRENT), &text).expect("it is written");
            let error = Authority::open(path).expect_err("it does not fit").to_string();
            assert!(error.contains(wrong), "{error}");
            assert_eq!(fs::read_to_string(path.join(CURRENT)).expect("it is there"), text, "nothing is overwritten");
        }
    }
}

//! The authority of TLS, in a directory: whom it has certified is believed by executors and people's tools.
//!
//! `tls.pem` holds its key and its certificate, in one file so that one rename changes both. While another takes over,
//! `tls-next.pem` is trusted and certifies nothing yet, and then `tls-previous.crt` is trusted and certifies nothing any
//! more; `tls-vouched.crt` is the last thing that it has certified: the one that took over, for whoever knows the previous
//! one alone. Every step is one file made, named or removed: a crash leaves the step before or the step after.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustix::process::geteuid;
use rustls::pki_types::CertificateDer;
use sculpt_tls::{
    Key, KeyError, Pin, Proof, Subject, Trust, TrustError,
    private::{self, PrivateError},
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    PublicKey, SshAuthorities,
    issue::{self, IssueError, Names},
    vouch::{VouchError, is_vouched, vouch},
};

const CURRENT: &str = "tls.pem";
const NEXT: &str = "tls-next.pem";
const PREVIOUS: &str = "tls-previous.crt";
const VOUCHED: &str = "tls-vouched.crt";

/// How long a fresh authority is good.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The authority as it is now. It reads its files once; open it anew to see a change.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: Pin,
    trust: Trust,
    phase: Phase,
    /// The next one or the previous one.
    other: Option<(Pin, CertificateDer<'static>)>,
    /// The present one, as the previous one vouches for it.
    vouched: Option<CertificateDer<'static>>,
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
    /// The directory cannot be made or looked at.
    #[error("cannot use the directory of the authority {}: {source}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could put another authority in its place.
    #[error(
        "others can write to the directory of the authority {} (mode {mode:o}), and could put their own in its place; see that \
         nobody has, then `chmod 700` it", path.display()
    )]
    Writable {
        /// Which one.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another account knows what it is, or could put another one in its place.
    #[error(
        "{} belongs to the account {owner}: who has that account knows this authority, or could put their own in its place. If \
         that is you, run this as that account, or `chown` it to this one; else use another directory", path.display()
    )]
    Anothers {
        /// The directory, or a file in it.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
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
        let directory_failed = |source| AuthorityError::Directory { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(directory_failed)?;
        let mode = fs::metadata(directory).map_err(directory_failed)?.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(AuthorityError::Writable { path: directory.to_owned(), mode });
        }
        let ssh = SshAuthorities::files(directory).into_iter().chain(SshAuthorities::believed(directory));
        let files = Self::files(directory).into_iter().chain(ssh);
        [directory.to_owned()].into_iter().chain(files).try_for_each(of_this_account)?;
        let (key, own) = read_or_make(&directory.join(CURRENT))?;
        let certificate = own.certificates().next().cloned().ok_or_else(|| mismatch(&directory.join(CURRENT)))?;
        let next = read(&directory.join(NEXT))?.map(|(_, trust)| trust);
        let previous = certificates(&directory.join(PREVIOUS))?;
        let present = own.pins().next();
        let phase = match (&next, &previous) {
            (Some(_), _) => Phase::Prepared,
            (None, Some(previous)) if previous.pins().next() != present => Phase::Activated,
            (None, _) => Phase::Steady,
        };
        let other = match phase {
            Phase::Steady => None,
            Phase::Prepared => next.as_ref(),
            Phase::Activated => previous.as_ref(),
        };
        let other = other.and_then(|other| other.pins().zip(other.certificates().cloned()).next());
        let vouched = match (&other, certificates(&directory.join(VOUCHED))?) {
            (Some((_, previous)), Some(vouched)) if phase == Phase::Activated => vouched
                .certificates()
                .find(|vouched| is_vouched(vouched, &certificate, previous, SystemTime::now()))
                .cloned(),
            _ => None,
        };
        let all = [Some(own), next, previous];
        let all = all.iter().flatten().flat_map(Trust::certificates).cloned();
        let trust = Trust::of(all).map_err(trust_in(&directory.join(CURRENT)))?;
        let pin = Pin::of_key(&key);
        let issuer = Issuer::from_ca_cert_der(&certificate, key.into_pair()).map_err(IssueError::from)?;
        Ok(Self { issuer, certificate, pin, trust, phase, other, vouched })
    }

    /// Whether there is one in `directory`.
    pub fn exists(directory: &Path) -> bool {
        directory.join(CURRENT).exists()
    }

    /// The files that say what the authority in `directory` is.
    pub fn files(directory: &Path) -> [PathBuf; 4] {
        [CURRENT, NEXT, PREVIOUS, VOUCHED].map(|name| directory.join(name))
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
        remove(&directory.join(VOUCHED))?;
        read_or_make(&directory.join(NEXT))?;
        Self::open(directory)
    }

    /// Lets the next authority certify; the present one stays trusted, and vouches for it if it [can](Self::vouch).
    pub fn activate(directory: &Path) -> Result<Self, AuthorityError> {
        let present = Self::open(directory)?;
        if present.phase != Phase::Prepared {
            return Err(AuthorityError::Order("no next authority is prepared; prepare one first"));
        }
        match present.vouch() {
            Ok(vouched) => private::write(&directory.join(VOUCHED), &sculpt_tls::to_pem([&vouched]))?,
            Err(_) => remove(&directory.join(VOUCHED))?,
        }
        private::write(&directory.join(PREVIOUS), &sculpt_tls::to_pem([&present.certificate]))?;
        private::rename(&directory.join(NEXT), &directory.join(CURRENT))?;
        Self::open(directory)
    }

    /// Ends the trust in the previous authority. Whoever holds nothing newer is a stranger from then on.
    pub fn retire(directory: &Path) -> Result<Self, AuthorityError> {
        if Self::open(directory)?.phase != Phase::Activated {
            return Err(AuthorityError::Order("no previous authority is trusted; there is nothing to retire"));
        }
        remove(&directory.join(PREVIOUS))?;
        remove(&directory.join(VOUCHED))?;
        Self::open(directory)
    }

    /// The next authority as the present one vouches for it, for whoever knows the present one alone.
    pub fn vouch(&self) -> Result<CertificateDer<'static>, VouchError> {
        let next = self.other.as_ref().filter(|_| self.phase == Phase::Prepared);
        let (_, next) = next.ok_or(VouchError::NotPrepared)?;
        vouch(&self.issuer, &self.certificate, next)
    }

    /// Whether who knows the previous authority alone believes the present one.
    pub fn is_vouched_for(&self) -> bool {
        self.vouched.is_some()
    }

    /// How far a change of authorities has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whom to trust: the one that certifies first.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The pin of the one that will certify, and is trusted already.
    pub fn next(&self) -> Option<Pin> {
        self.other.as_ref().filter(|_| self.phase == Phase::Prepared).map(|(pin, _)| *pin)
    }

    /// The pin of the one that has certified before, and is still trusted.
    pub fn previous(&self) -> Option<Pin> {
        self.other.as_ref().filter(|_| self.phase == Phase::Activated).map(|(pin, _)| *pin)
    }

    /// The pins of all that are trusted, as they are told and written down.
    pub fn trusted(&self) -> Vec<Vec<u8>> {
        self.trust.pins().map(|pin| pin.bytes().to_vec()).collect()
    }

    /// The pin of the one that certifies.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// What proves to others that this is the controller, under each of `names`. The key is made for it and kept nowhere.
    pub fn controller(&self, names: &Names, now: SystemTime) -> Result<Proof, AuthorityError> {
        let key = Key::fresh().map_err(|source| AuthorityError::Key { path: PathBuf::new(), source })?;
        let own = issue::controller(&self.issuer, key.pair(), names, now)?;
        let above = match (&self.vouched, &self.other) {
            // The present one's own certificate is left out: GnuTLS and OpenSSL take the first that fits, and who knows the
            // previous one alone would end there.
            (Some(vouched), Some((_, previous))) => vec![vouched.clone(), previous.clone()],
            _ => vec![self.certificate.clone()],
        };
        Ok(Proof::new([vec![own], above].concat(), &key))
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

/// Refuses what belongs neither to us nor to root, who can change everything anyway. What is not there is nobody's.
fn of_this_account(path: PathBuf) -> Result<(), AuthorityError> {
    match fs::metadata(&path) {
        Ok(data) if ![geteuid().as_raw(), 0].contains(&data.uid()) => {
            Err(AuthorityError::Anothers { path, owner: data.uid() })
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AuthorityError::Directory { path, source }),
        Ok(_) | Err(_) => Ok(()),
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

/// The authority in `path`. Of many that make it at once, as replicas at their first start, one does, and the others read it.
fn read_or_make(path: &Path) -> Result<(Key, Trust), AuthorityError> {
    loop {
        if let Some(found) = read(path)? {
            return Ok(found);
        }
        let (key, trust) = fresh(path)?;
        if private::create(path, &format!("{}{}", key.to_pem(), trust.to_pem()))? {
            return Ok((key, trust));
        }
    }
}

/// A new authority for `path`.
fn fresh(path: &Path) -> Result<(Key, Trust), AuthorityError> {
    let key = Key::fresh().map_err(|source| AuthorityError::Key { path: path.to_owned(), source })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Authorities of one controller are told apart by their keys.
    let name = Pin::of_key(&key).to_string();
    params.distinguished_name.push(DnType::CommonName, format!("sculpt {}", &name[.."sha256:".len() + 8]));
    // One more than it certifies: it vouches for the one that takes over.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = OffsetDateTime::from(now - Duration::from_secs(24 * 3_600));
    params.not_after = OffsetDateTime::from(now + LIFE);
    let certificate = params.self_signed(key.pair()).map_err(IssueError::from)?.der().clone();
    let trust = Trust::of([certificate]).map_err(trust_in(path))?;
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
mod tests;

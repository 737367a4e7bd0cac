//! What proves who we are, on disk.
//!
//! `key.pem` is made once. `certificate.pem` and `trust.pem` are replaced by each renewal; whichever of the two is the
//! older after a crash still fits the other, because an authority is trusted before it certifies. `renewal` holds the id
//! of a renewal whose answer is not here yet: the same id again is no second one.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sculpt_proto::executor::v1 as wire;
use sculpt_tls::{
    Key, KeyError, Pin, Proof, Subject, SubjectError, Trust, TrustError,
    private::{self, PrivateError},
};
use uuid::Uuid;

use crate::disk::write_durably;

/// The directory of keys and certificates.
#[derive(Clone, Debug)]
pub struct Keyring {
    directory: PathBuf,
}

/// A certificate with all that belongs to it.
#[derive(Debug)]
pub struct Credentials {
    /// Ours first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the first.
    pub key: Key,
    /// Whom we believe.
    pub trust: Trust,
    /// Whom the certificate names.
    pub subject: Subject,
}

/// Why we cannot prove who we are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no certificate.
    #[error(
        "this executor has not joined a controller yet; ask for a token (`sculpt executor token`) and run \
         `sculpt-executor join URL --token-file FILE --data-dir {}`", .0.display()
    )]
    NotJoined(PathBuf),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file that others must not read.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A directory that others must not look into.
    #[error(
        "{} is open to others (mode {mode:o}), so the key in it may be known to them; `chmod 700` it if you are sure that \
         nobody read it, else join under a fresh data directory", path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The trusted authorities.
    #[error("the trusted authorities in {}: {source}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The certificate.
    #[error("the certificate in {} does not name an executor: {source}; join again with a new token", path.display())]
    Subject {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SubjectError,
    },
    /// The key is gone.
    #[error("{} is gone, and the certificate beside it is worth nothing without it; join under a fresh data directory", .0.display())]
    NoKey(PathBuf),
    /// The certificate is for another key.
    #[error("the certificate in {} is for another key than the one beside it; join under a fresh data directory", .0.display())]
    OtherKey(PathBuf),
    /// The controller's answer is not what was asked for.
    #[error("the controller has answered with {0}; nothing was changed")]
    Answer(&'static str),
}

impl Keyring {
    /// The keyring of an executor's data directory, made when there is none.
    pub fn of(data_dir: &Path) -> Result<Self, CredentialError> {
        let keyring = Self::at(data_dir);
        let failed = |source| CredentialError::File { what: "make", path: keyring.directory.clone(), source };
        match rustix::fs::mkdir(&keyring.directory, rustix::fs::Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(keyring),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Where the keyring of a data directory is, if there is one.
    pub fn at(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("identity") }
    }

    /// The key, made when there is none.
    pub fn key(&self) -> Result<Key, CredentialError> {
        self.closed_to_others()?;
        Ok(Key::load_or_make(&self.key_file())?)
    }

    /// What proves who we are.
    pub fn load(&self) -> Result<Credentials, CredentialError> {
        let file = self.certificate_file();
        let not_joined = || CredentialError::NotJoined(self.directory.parent().unwrap_or(&self.directory).to_owned());
        let pem = private::read(&file)?.ok_or_else(not_joined)?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let subject = |source| CredentialError::Subject { path: file.clone(), source };
        let chain = chain.ok_or(SubjectError::Certificate).map_err(subject)?;
        let named = Subject::of(&chain[0]).map_err(subject)?;
        let trust_file = self.trust_file();
        let read = |source| CredentialError::File { what: "read", path: trust_file.clone(), source };
        let trust = Trust::from_pem(&fs::read(&trust_file).map_err(read)?)
            .map_err(|source| CredentialError::Trust { path: trust_file.clone(), source })?;
        self.closed_to_others()?;
        let key = Key::load(&self.key_file())?.ok_or_else(|| CredentialError::NoKey(self.key_file()))?;
        if Pin::of(&chain[0]) != Ok(Pin::of_key(&key)) {
            return Err(CredentialError::OtherKey(file));
        }
        Ok(Credentials { chain, key, trust, subject: named })
    }

    /// Keeps them in place of those that were here.
    pub fn keep(&self, credentials: &Credentials) -> Result<(), CredentialError> {
        let write = |path: PathBuf, text: String| {
            let written = write_durably(&path, text.as_bytes());
            written.map_err(|source| CredentialError::File { what: "write", path, source })
        };
        write(self.trust_file(), credentials.trust.to_pem())?;
        sculpt_failpoints::pass("keyring.trusts");
        write(self.certificate_file(), sculpt_tls::to_pem(&credentials.chain))
    }

    /// Removes a key that nobody has certified, and with it what would be a keyring.
    pub fn forget_unused_key(&self) -> Result<(), CredentialError> {
        if !self.certificate_file().exists() {
            private::remove(&self.key_file())?;
            let _occupied = fs::remove_dir(&self.directory);
        }
        Ok(())
    }

    /// The id of the renewal that is asked for, the same until [`Self::renewed`].
    pub fn renewal(&self) -> Result<Uuid, CredentialError> {
        let path = self.renewal_file();
        if let Some(id) = private::read(&path)?.and_then(|text| text.trim().parse().ok()) {
            return Ok(id);
        }
        let id = Uuid::new_v4();
        private::write(&path, &id.to_string())?;
        Ok(id)
    }

    /// Whether a renewal was asked for whose answer is not here.
    pub fn is_renewing(&self) -> bool {
        self.renewal_file().exists()
    }

    /// The answer to the renewal is kept.
    pub fn renewed(&self) -> Result<(), CredentialError> {
        Ok(private::remove(&self.renewal_file())?)
    }

    fn closed_to_others(&self) -> Result<(), CredentialError> {
        let path = self.directory.clone();
        match fs::metadata(&path) {
            Err(source) => Err(CredentialError::File { what: "look at", path, source }),
            Ok(data) => match data.permissions().mode() & 0o777 {
                mode if mode & 0o077 != 0 => Err(CredentialError::Open { path, mode }),
                _ => Ok(()),
            },
        }
    }

    /// For git.
    pub fn key_file(&self) -> PathBuf {
        self.directory.join("key.pem")
    }

    /// For git.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.join("certificate.pem")
    }

    /// For git.
    pub fn trust_file(&self) -> PathBuf {
        self.directory.join("trust.pem")
    }

    fn renewal_file(&self) -> PathBuf {
        self.directory.join("renewal")
    }

    /// What [`Standing`](super::Standing) keeps.
    pub(super) fn refusal_file(&self) -> PathBuf {
        self.directory.join("refusal")
    }
}

impl Credentials {
    /// What the controller has certified, if it is for `key`.
    pub fn answered(key: Key, answer: &wire::Credentials) -> Result<Self, CredentialError> {
        let chain: Vec<_> = answer.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let own = chain.first().ok_or(CredentialError::Answer("no certificate"))?;
        let subject = Subject::of(own).map_err(|_| CredentialError::Answer("a certificate that names no executor"))?;
        if Pin::of(own) != Ok(Pin::of_key(&key)) {
            return Err(CredentialError::Answer("a certificate for another key"));
        }
        let trust = Trust::from_pem(answer.trust.as_bytes())
            .map_err(|_| CredentialError::Answer("no authority that could be trusted"))?;
        Ok(Self { chain, key, trust, subject })
    }

    /// What is shown to the controller.
    pub fn proof(&self) -> Proof {
        Proof::new(self.chain.clone(), &self.key)
    }

    /// From when until when the certificate is good.
    pub fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        self.chain.first().and_then(|own| sculpt_tls::validity(own))
    }

    /// When two thirds of its life have passed.
    pub fn renewed_at(&self) -> Option<SystemTime> {
        let (from, until) = self.validity()?;
        Some(from + until.duration_since(from).unwrap_or_default() * 2 / 3)
    }
}

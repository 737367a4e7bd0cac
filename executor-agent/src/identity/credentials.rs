//! What proves who we are, on disk.
//!
//! `key.pem` is made once. `certificate.pem` and `trust.pem` are replaced by each renewal; whichever of the two is the
//! older after a crash still fits the other, because an authority is trusted before it certifies. `pending` holds the id
//! of a renewal, or of a joining, whose answer is not here yet: the same id again is no second one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
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
    /// The controller's answer is not what was asked for.
    #[error("the controller has answered with {0}; nothing was changed")]
    Answer(&'static str),
}

impl Keyring {
    /// The keyring of an executor's data directory.
    pub fn of(data_dir: &Path) -> Result<Self, CredentialError> {
        let directory = data_dir.join("identity");
        let failed = |source| CredentialError::File { what: "make", path: directory.clone(), source };
        match rustix::fs::mkdir(&directory, rustix::fs::Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self { directory })
    }

    /// The key, made when there is none.
    pub fn key(&self) -> Result<Key, CredentialError> {
        Ok(Key::load_or_make(&self.key_file())?)
    }

    /// What proves who we are.
    pub fn load(&self) -> Result<Credentials, CredentialError> {
        let file = self.certificate_file();
        let Some(pem) = private::read(&file)? else {
            let data_dir = self.directory.parent().unwrap_or(&self.directory);
            return Err(CredentialError::NotJoined(data_dir.to_owned()));
        };
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let subject = |source| CredentialError::Subject { path: file.clone(), source };
        let chain = chain.ok_or(SubjectError::Certificate).map_err(subject)?;
        let named = Subject::of(&chain[0]).map_err(subject)?;
        let trust_file = self.trust_file();
        let read = |source| CredentialError::File { what: "read", path: trust_file.clone(), source };
        let trust = Trust::from_pem(&fs::read(&trust_file).map_err(read)?)
            .map_err(|source| CredentialError::Trust { path: trust_file.clone(), source })?;
        Ok(Credentials { chain, key: self.key()?, trust, subject: named })
    }

    /// Keeps what the controller has certified, if it is for our key.
    pub fn keep(&self, answer: &wire::Credentials) -> Result<Credentials, CredentialError> {
        let key = self.key()?;
        let chain: Vec<_> = answer.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let own = chain.first().ok_or(CredentialError::Answer("no certificate"))?;
        let subject = Subject::of(own).map_err(|_| CredentialError::Answer("a certificate that names no executor"))?;
        if Pin::of(own) != Ok(Pin::of_key(&key)) {
            return Err(CredentialError::Answer("a certificate for another key"));
        }
        let trust = Trust::from_pem(answer.trust.as_bytes())
            .map_err(|_| CredentialError::Answer("no authority that could be trusted"))?;
        let write = |path: PathBuf, text: String| {
            let written = write_durably(&path, text.as_bytes());
            written.map_err(|source| CredentialError::File { what: "write", path, source })
        };
        write(self.trust_file(), trust.to_pem())?;
        write(self.certificate_file(), sculpt_tls::to_pem(&chain))?;
        Ok(Credentials { chain, key, trust, subject })
    }

    /// The id of what is asked for, the same until [`Self::answered`].
    pub fn pending(&self) -> Result<Uuid, CredentialError> {
        let path = self.pending_file();
        if let Some(id) = private::read(&path)?.and_then(|text| text.trim().parse().ok()) {
            return Ok(id);
        }
        let id = Uuid::new_v4();
        private::write(&path, &id.to_string())?;
        Ok(id)
    }

    /// The answer is kept.
    pub fn answered(&self) -> Result<(), CredentialError> {
        Ok(private::remove(&self.pending_file())?)
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

    fn pending_file(&self) -> PathBuf {
        self.directory.join("pending")
    }
}

impl Credentials {
    /// What is shown to the controller.
    pub fn proof(&self) -> Proof {
        Proof::new(self.chain.clone(), &self.key)
    }

    /// How long until it is to be renewed: two thirds of its life have passed, by this machine's clock.
    pub fn renew_in(&self, now: SystemTime) -> Duration {
        let own = self.chain.first().and_then(|own| sculpt_tls::validity(own));
        let Some((from, until)) = own else { return Duration::ZERO };
        let life = until.duration_since(from).unwrap_or_default();
        (from + life * 2 / 3).duration_since(now).unwrap_or_default().min(life)
    }
}

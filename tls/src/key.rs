//! Private keys. They never leave the machine on which they were made.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::private::{self, PrivateError};

/// A private key; a fresh one is on the curve P-256, which every TLS library and every git speaks.
pub struct Key(KeyPair);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file.
    #[error("the private key: {0}")]
    File(#[from] PrivateError),
    /// It is not a private key.
    #[error("{} holds no private key in PEM form: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// The system has no randomness, or the library refuses.
    #[error("cannot use the private key: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl Key {
    /// A new one, in memory alone.
    pub fn fresh() -> Result<Self, KeyError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The private key in `pem`, whatever stands beside it.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self(KeyPair::from_pem(pem)?))
    }

    /// The key in `path`; `None` when there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let malformed = |source| KeyError::Malformed { path: path.to_owned(), source };
        match private::read(path)? {
            None => Ok(None),
            Some(pem) => KeyPair::from_pem(&pem).map(|pair| Some(Self(pair))).map_err(malformed),
        }
    }

    /// The key in `path`, made when there is none; of many that make it at once, the one whose key stands there has.
    pub fn load_or_make(path: &Path) -> Result<Self, KeyError> {
        loop {
            if let Some(key) = Self::load(path)? {
                return Ok(key);
            }
            let key = Self::fresh()?;
            if private::create(path, &key.to_pem())? {
                return Ok(key);
            }
        }
    }

    /// For a file that its owner alone can read.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request to certify it. It asks for no name and no right: what is certified is the issuer's to say.
    pub fn request(&self) -> Result<CertificateSigningRequestDer<'static>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().clone())
    }

    /// The public half, as DER `SubjectPublicKeyInfo`.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// For TLS.
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// For signing certificates.
    pub fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// For signing certificates, for good.
    pub fn into_pair(self) -> KeyPair {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tls.key");
        assert!(Key::load(&path).expect("nothing is no error").is_none());
        let made = Key::load_or_make(&path).expect("it is made");
        assert_eq!(Key::load_or_make(&path).expect("it is read").public(), made.public());
    }

    #[test]
    fn what_is_no_key_is_said_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tls.key");
        private::write(&path, "not a key\n").expect("write");
        let error = Key::load_or_make(&path).expect_err("it is none").to_string();
        assert!(error.contains("holds no private key in PEM form"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "not a key\n");
    }

    #[test]
    fn a_request_asks_for_nothing() {
        let request = Key::fresh().expect("a key").request().expect("a request");
        let read = rcgen::CertificateSigningRequestParams::from_der(&request).expect("it is well-formed and signed");
        assert!(read.params.subject_alt_names.is_empty());
        assert!(read.params.key_usages.is_empty() && read.params.extended_key_usages.is_empty());
        assert_eq!(read.params.distinguished_name.iter().count(), 0);
    }
}

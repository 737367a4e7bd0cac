//! Private keys: made where they are used, in files that only their owner can read.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A private key on the curve P-256, which every TLS library and every git speaks.
pub struct Key(KeyPair);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others can read it.
    #[error("the private key {} can be read by others, so it may be known to them (mode {mode:o}); {remedy}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What to do.
        remedy: &'static str,
    },
    /// It is not a private key.
    #[error("{} is not a private key in PEM form: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// It could not be read or written.
    #[error("cannot {what} the private key {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
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

    /// The key in `path`; `None` when there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |what| move |source| KeyError::File { what, path: path.to_owned(), source };
        let data = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            data => data.map_err(failed("look at"))?,
        };
        let mode = data.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let remedy = "make sure that nobody copied it, then `chmod 600` it; or remove it and have a new one made";
            return Err(KeyError::Open { path: path.to_owned(), mode, remedy });
        }
        let pem = fs::read_to_string(path).map_err(failed("read"))?;
        let malformed = |source| KeyError::Malformed { path: path.to_owned(), source };
        KeyPair::from_pem(&pem).map(|pair| Some(Self(pair))).map_err(malformed)
    }

    /// Writes it to `path`, for its owner alone. What is there under that name is whole, whenever it is looked at.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |what| move |source| KeyError::File { what, path: path.to_owned(), source };
        let fresh = path.with_extension("new");
        let _absent = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed("make a file for"))?;
        file.write_all(self.0.serialize_pem().as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
        fs::rename(&fresh, path).map_err(failed("name"))?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("flush the folder of"))
    }

    /// The key in `path`, made when there is none.
    pub fn load_or_make(path: &Path) -> Result<Self, KeyError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let key = Self::fresh()?;
        key.save(path)?;
        Ok(key)
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
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tls.key");
        assert!(Key::load(&path).expect("nothing is no error").is_none());
        let made = Key::load_or_make(&path).expect("it is made");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Key::load_or_make(&path).expect("it is read");
        assert_eq!(read.public(), made.public());
        assert_eq!(fs::read_dir(directory.path()).expect("a listing").count(), 1, "nothing else is left");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("open it");
        let error = Key::load_or_make(&path).expect_err("others could read it").to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_said_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tls.key");
        fs::write(&path, "not a key\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("close it");
        let error = Key::load_or_make(&path).expect_err("it is none").to_string();
        assert!(error.contains("is not a private key in PEM form"), "{error}");
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

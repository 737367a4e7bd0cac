//! The authorities of SSH: one certifies people, the other hosts. Each has a key of its own, so that none can pass for the
//! other, in the form in which OpenSSH keeps keys.

use std::path::{Path, PathBuf};

use sculpt_tls::private::{self, PrivateError};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

/// For each whose name stands in its file's.
const USERS: (&str, &str) = ("ssh-users", "ssh-users.key");
const HOSTS: (&str, &str) = ("ssh-hosts", "ssh-hosts.key");

/// The authorities of SSH.
#[derive(Clone, Debug)]
pub struct SshAuthorities {
    /// Certifies people.
    users: PrivateKey,
    /// Certifies hosts.
    hosts: PrivateKey,
}

/// Why there is no authority of SSH.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Its file.
    #[error("the authority of SSH: {0}")]
    Private(#[from] PrivateError),
    /// The key in it.
    #[error("the authority of SSH in {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// A key that is not taken.
    #[error("the authority of SSH in {} is {found}; it must be an Ed25519 key without a passphrase", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// One key for both.
    #[error("{} and {} hold the same key; people could pass for hosts. Give each a key of its own", .0.display(), .1.display())]
    Same(PathBuf, PathBuf),
}

impl SshAuthorities {
    /// The authorities in `directory`; made at the first start.
    pub fn open(directory: &Path) -> Result<Self, SshError> {
        let [users, hosts] = Self::files(directory);
        let found = Self { users: load_or_make(&users, USERS.0)?, hosts: load_or_make(&hosts, HOSTS.0)? };
        if found.users.public_key().key_data() == found.hosts.public_key().key_data() {
            return Err(SshError::Same(users, hosts));
        }
        Ok(found)
    }

    /// The files of their keys.
    pub fn files(directory: &Path) -> [PathBuf; 2] {
        [USERS, HOSTS].map(|(_, file)| directory.join(file))
    }

    /// Whom each certifies, and its public half as a line of OpenSSH.
    pub fn public(&self) -> impl Iterator<Item = (&'static str, String)> {
        [(USERS.0, &self.users), (HOSTS.0, &self.hosts)].into_iter().map(|(whose, key)| {
            let line = key.public_key().to_openssh();
            // Only a comment that is no text could not be written, and ours are.
            (whose, line.unwrap_or_else(|error| error.to_string()))
        })
    }
}

/// The key in `path`. Of many that make it at once one does, and the others read it.
fn load_or_make(path: &Path, whose: &str) -> Result<PrivateKey, SshError> {
    let unusable = |source| SshError::Key { path: path.to_owned(), source };
    loop {
        if let Some(text) = private::read(path)? {
            return fit(PrivateKey::from_openssh(&text).map_err(unusable)?, path);
        }
        let mut key = PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&rand::random()));
        key.set_comment(format!("sculpt {whose}"));
        if private::create(path, &key.to_openssh(LineEnding::LF).map_err(unusable)?)? {
            return Ok(key);
        }
    }
}

fn fit(key: PrivateKey, path: &Path) -> Result<PrivateKey, SshError> {
    let found = match key.algorithm() {
        _ if key.is_encrypted() => "encrypted".to_owned(),
        Algorithm::Ed25519 => return Ok(key),
        other => other.to_string(),
    };
    Err(SshError::Kind { path: path.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn are_made_once_each_with_a_key_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let made: Vec<_> = SshAuthorities::open(directory.path()).expect("they are made").public().collect();
        let read: Vec<_> = SshAuthorities::open(directory.path()).expect("they are read").public().collect();
        assert_eq!(made, read);
        assert_ne!(made[0].1, made[1].1);
        assert!(made.iter().all(|(_, line)| line.starts_with("ssh-ed25519 ")), "{made:?}");
        for path in SshAuthorities::files(directory.path()) {
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        }
    }

    /// What OpenSSH itself says of the file.
    #[test]
    fn openssh_reads_the_same_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let made: Vec<_> = SshAuthorities::open(directory.path()).expect("they are made").public().collect();
        let [users, _] = SshAuthorities::files(directory.path());
        let Ok(said) = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&users).output() else {
            eprintln!("there is no ssh-keygen here");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), made[0].1, "{said:?}");
    }

    #[test]
    fn what_is_no_key_of_an_authority_is_said_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let [users, hosts] = SshAuthorities::files(directory.path());
        private::write(&users, "hello\n").expect("it is written");
        let error = SshAuthorities::open(directory.path()).expect_err("it is none").to_string();
        assert!(error.contains("ssh-users.key"), "{error}");
        assert_eq!(fs::read_to_string(&users).expect("it is there"), "hello\n");
        fs::remove_file(&users).expect("it goes");
        SshAuthorities::open(directory.path()).expect("they are made");
        fs::copy(&users, &hosts).expect("a copy");
        assert!(matches!(SshAuthorities::open(directory.path()), Err(SshError::Same(..))));
        fs::set_permissions(&hosts, fs::Permissions::from_mode(0o640)).expect("open it");
        assert!(matches!(SshAuthorities::open(directory.path()), Err(SshError::Private(PrivateError::Open { .. }))));
    }
}

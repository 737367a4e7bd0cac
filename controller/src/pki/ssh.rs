//! The authorities of SSH: one certifies people, the other hosts. Each has a key of its own, so that none can pass for the
//! other, in the form in which OpenSSH keeps keys.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sculpt_pairing::{Host, HostError, Pass, PassError, Window};
use sculpt_proto::id::ExecutorId;
use sculpt_tls::private::{self, PrivateError};
use ssh_key::{Algorithm, Certificate, LineEnding, PrivateKey, PublicKey};

/// How long sessions can be begun with a person's certificate. Those that are open go on.
pub const PASS_LIFE: Duration = Duration::from_secs(15 * 60);

/// How long a host's certificate is good.
pub const HOST_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// How far behind ours the clocks may be of those who look at a certificate.
const SKEW: Duration = Duration::from_secs(60);

/// For each its name, the file of its key, and that of the public keys which are believed beside it.
const USERS: [&str; 3] = ["ssh-users", "ssh-users.key", "ssh-users-believed.pub"];
const HOSTS: [&str; 3] = ["ssh-hosts", "ssh-hosts.key", "ssh-hosts-believed.pub"];

/// The authorities of SSH.
#[derive(Clone, Debug)]
pub struct SshAuthorities {
    /// Of people.
    users: SshAuthority,
    /// Of hosts.
    hosts: SshAuthority,
}

/// One of them.
#[derive(Clone, Debug)]
struct SshAuthority {
    /// Certifies.
    key: PrivateKey,
    /// Certify nothing here, and are believed all the same: the next one, or the previous one.
    beside: Vec<PublicKey>,
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
    /// A line that is no public key.
    #[error("line {line} of {} is not a public key as in `id_ed25519.pub`: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        line: usize,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// One key for both.
    #[error("{} and {} hold the same key; people could pass for hosts. Give each a key of its own", .0.display(), .1.display())]
    Same(PathBuf, PathBuf),
}

impl SshAuthorities {
    /// The authorities in `directory`; made at the first start.
    pub fn open(directory: &Path) -> Result<Self, SshError> {
        let [users, hosts] = Self::files(directory);
        let found = Self { users: SshAuthority::open(directory, USERS)?, hosts: SshAuthority::open(directory, HOSTS)? };
        let of_both = |key: &PublicKey| found.hosts.believed().any(|other| other.key_data() == key.key_data());
        if found.users.believed().any(of_both) {
            return Err(SshError::Same(users, hosts));
        }
        Ok(found)
    }

    /// The files of their keys.
    pub fn files(directory: &Path) -> [PathBuf; 2] {
        [USERS, HOSTS].map(|[_, file, _]| directory.join(file))
    }

    /// The files of the public keys that are believed beside theirs, which need not be there: one line each, while one key
    /// takes over from another.
    pub fn believed(directory: &Path) -> [PathBuf; 2] {
        [USERS, HOSTS].map(|[_, _, file]| directory.join(file))
    }

    /// Certifies `key` for who has `pass`, from `now` on for `life`.
    pub fn certify_person(
        &self,
        pass: &Pass,
        key: &PublicKey,
        now: SystemTime,
        life: Duration,
    ) -> Result<Certificate, PassError> {
        pass.certify(key, window(now, life), &self.users.key)
    }

    /// Certifies `key` for `executor`, from `now` on.
    pub fn certify_host(
        &self,
        executor: ExecutorId,
        key: &PublicKey,
        now: SystemTime,
    ) -> Result<Certificate, HostError> {
        Host(executor).certify(key, window(now, HOST_LIFE), &self.hosts.key)
    }

    /// The authorities that certify people, as lines of OpenSSH: whom executors believe. The one that certifies now is first.
    pub fn people(&self) -> ssh_key::Result<Vec<String>> {
        self.users.believed().map(PublicKey::to_openssh).collect()
    }

    /// Lines of a known-hosts file that believe the authorities for hosts about `executor`, and about no other.
    pub fn known_hosts(&self, executor: ExecutorId) -> ssh_key::Result<Vec<String>> {
        self.hosts.believed().map(|key| Host(executor).known(key)).collect()
    }

    /// Whom each certifies, and its public half as a line of OpenSSH.
    pub fn public(&self) -> impl Iterator<Item = (&'static str, String)> {
        [(USERS[0], &self.users), (HOSTS[0], &self.hosts)].into_iter().map(|(whose, authority)| {
            let line = authority.key.public_key().to_openssh();
            // Only a comment that is no text could not be written, and ours are.
            (whose, line.unwrap_or_else(|error| error.to_string()))
        })
    }
}

impl SshAuthority {
    fn open(directory: &Path, [whose, key, beside]: [&str; 3]) -> Result<Self, SshError> {
        let key = load_or_make(&directory.join(key), whose)?;
        Ok(Self { key, beside: public_keys(&directory.join(beside))? })
    }

    /// The one that certifies first.
    fn believed(&self) -> impl Iterator<Item = &PublicKey> {
        [self.key.public_key()].into_iter().chain(&self.beside)
    }
}

/// The keys in `path`, one a line; none when it is not there.
fn public_keys(path: &Path) -> Result<Vec<PublicKey>, SshError> {
    let text = private::read(path)?.unwrap_or_default();
    let lines = (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty() && !text.starts_with('#'));
    let read = |(line, text): (usize, &str)| {
        PublicKey::from_openssh(text).map_err(|source| SshError::Line { path: path.to_owned(), line, source })
    };
    lines.map(read).collect()
}

/// From `now` on for so long.
fn window(now: SystemTime, life: Duration) -> Window {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Window { since: seconds(now).saturating_sub(SKEW.as_secs()), until: seconds(now).saturating_add(life.as_secs()) }
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

    use sculpt_pairing::Right;
    use sculpt_proto::id::{AttemptId, PairingId};

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
    fn certifies_people_and_hosts_each_with_its_own_key_and_for_its_own_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let ssh = SshAuthorities::open(directory.path()).expect("they are made");
        let key = PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32])).public_key().clone();
        let (attempt, executor) = (AttemptId::fresh(), ExecutorId::fresh());
        let rights = [Right::Observe].into_iter().collect();
        let pass = Pass { pairing: PairingId::fresh(), attempt, user: "ben".to_owned(), rights };
        let now = 1_800_000_000;
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let person = ssh.certify_person(&pass, &key, at, PASS_LIFE).expect("it is certified");
        let host = ssh.certify_host(executor, &key, at).expect("it is certified");
        for (certificate, life) in [(&person, PASS_LIFE), (&host, HOST_LIFE)] {
            let window = (certificate.valid_after(), certificate.valid_before());
            assert_eq!(window, (now - 60, now + life.as_secs()), "{:?}", certificate.cert_type());
        }

        let people = ssh.people().expect("lines");
        let believed: Vec<_> =
            people.iter().map(|line| PublicKey::from_openssh(line).expect("a key").key_data().clone()).collect();
        let login = sculpt_pairing::login(attempt);
        assert_eq!(sculpt_pairing::check(&person, &believed, &login, now), Ok(pass));
        assert_ne!(host.signature_key(), &believed[0], "an authority for people certifies no host");
        let known = ssh.known_hosts(executor).expect("lines");
        let authority = PublicKey::from(host.signature_key().clone()).to_openssh().expect("a line");
        assert!(known.len() == 1 && known[0].starts_with(&format!("@cert-authority executor-{executor} {authority}")));
    }

    #[test]
    fn while_one_key_takes_over_from_another_both_are_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let previous = SshAuthorities::open(directory.path()).expect("they are made");
        let lines: Vec<_> = previous.public().map(|(_, line)| line).collect();
        let files = SshAuthorities::files(directory.path()).into_iter().zip(SshAuthorities::believed(directory.path()));
        for ((key, believed), line) in files.zip(&lines) {
            fs::remove_file(key).expect("it goes");
            private::write(&believed, &format!("# until the first of May\n\n{line}\n")).expect("it is written");
        }
        let present = SshAuthorities::open(directory.path()).expect("they are made");
        let executor = ExecutorId::fresh();
        let own: Vec<_> = present.public().map(|(_, line)| line).collect();
        assert_eq!(present.people().expect("lines"), [&own[0], &lines[0]].map(String::clone));
        let known = [&own[1], &lines[1]].map(|line| format!("@cert-authority executor-{executor} {line}"));
        assert_eq!(present.known_hosts(executor).expect("lines"), known);

        let [users, _] = SshAuthorities::believed(directory.path());
        private::write(&users, &own[1]).expect("it is written");
        assert!(
            matches!(SshAuthorities::open(directory.path()), Err(SshError::Same(..))),
            "people could pass for hosts"
        );
        private::write(&users, &format!("{}\nhello\n", lines[0])).expect("it is written");
        let error = SshAuthorities::open(directory.path()).expect_err("it is no key").to_string();
        assert!(error.starts_with("line 2 of ") && error.contains("ssh-users-believed.pub"), "{error}");
    }

    #[test]
    fn a_clock_that_stands_before_all_time_certifies_nothing_that_is_good_now() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(10);
        assert_eq!(window(early, PASS_LIFE), Window { since: 0, until: PASS_LIFE.as_secs() });
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

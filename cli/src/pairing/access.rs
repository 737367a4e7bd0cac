//! What lets one person sit beside one attempt, as it stands on this machine: asked for once, and used as long as it is good.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sculpt_proto::{
    FieldError,
    id::{AttemptId, PairingId, TaskId},
    v1::{Attempt, OpenPairingRequest, PairingProfile, Task},
};
use sculpt_tls::{Kind, Token};
use serde::{Deserialize, Serialize};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::{
    Purpose, config,
    folder::{Folder, Folders},
    grant::{self, Grant},
    route::{Route, Via, choose},
    us::Us,
};
use crate::{
    client::{Client, unusable},
    config::{ConfigError, Context},
    exit::Exit,
    failure::Failure,
};

const KEY: &str = "key";
const KNOWN_HOSTS: &str = "known_hosts";

/// How long what is out of date is kept: somebody's clock may be behind.
const KEPT: Duration = Duration::from_secs(3_600);

/// A certificate for one attempt, with all that leads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// Number of the task.
    pub(crate) number: u64,
    /// Its uuid.
    pub(crate) task: TaskId,
    /// What the controller has granted.
    pub(crate) grant: Grant,
    /// How ssh gets there.
    pub(crate) route: Route,
    /// When it was asked for by this machine's clock, in seconds since 1970.
    opened: u64,
    /// Digest of the credential with which it was asked for.
    credential: String,
    /// Where its files stand, and which of them it is.
    #[serde(skip)]
    folder: PathBuf,
    #[serde(skip)]
    purpose: Purpose,
}

impl Access {
    /// The configuration for ssh.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join(config_name(self.purpose))
    }

    /// The name by which that configuration knows the host.
    pub(crate) fn alias(&self) -> String {
        super::host(self.number)
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join(certificate_name(self.purpose))
    }

    pub(crate) fn known_hosts_file(&self) -> PathBuf {
        self.folder.join(KNOWN_HOSTS)
    }

    /// Lets the next one be asked for anew.
    pub(crate) fn forget(&self) {
        // One that stays is refused again, and that is told.
        let _stays = fs::remove_file(self.folder.join(record_name(self.purpose)));
    }

    /// Until when it opens anything by this machine's clock, in seconds since 1970.
    pub(crate) fn until(&self) -> u64 {
        self.opened.saturating_add(self.grant.lifetime)
    }

    /// Whether it is still to be used for this attempt: a third of its time is for those who begin with it now.
    fn serves(&self, attempt: AttemptId, credential: &str, now: u64) -> bool {
        let left = self.until().saturating_sub(now);
        let young = now >= self.opened && left.saturating_mul(3) > self.grant.lifetime;
        young && self.grant.attempt == attempt && self.credential == credential
    }
}

/// Lets whatever came by this pairing be asked for anew: it opens nothing any more.
pub(crate) fn forget(context: &Context, pairing: PairingId) -> Result<(), ConfigError> {
    let folders = Folders::of(context)?;
    let broken = |source| ConfigError::File { file: folders.path().to_owned(), source };
    for entry in fs::read_dir(folders.path()).map_err(broken)? {
        let folder = entry.map_err(broken)?.path();
        let found = Purpose::ALL.into_iter().filter_map(|purpose| read(&folder, purpose));
        found.filter(|access| access.grant.pairing == pairing).for_each(|access| access.forget());
    }
    Ok(())
}

/// The configurations of the workspaces below these directories, as a pattern.
pub(crate) fn workspaces(folders: &Folders) -> PathBuf {
    folders.path().join("*").join(config_name(Purpose::Workspace))
}

/// An access to this attempt of the task: the one that is there, or another one.
pub(crate) async fn open(
    client: &Client,
    (task, attempt): (&Task, &Attempt),
    purpose: Purpose,
    via: Via,
    attempted: &str,
) -> Result<Access, Failure> {
    let wrong = |error: FieldError| Failure::new(Exit::Failed, attempted, format!("the controller's answer: {error}"));
    let id: TaskId = grant::uuid(&task.uuid, "task.uuid").map_err(wrong)?;
    let attempt: AttemptId = grant::uuid(&attempt.uuid, "attempt.uuid").map_err(wrong)?;
    let folders = Folders::of(&client.context).map_err(|error| unusable(&error))?;
    let broken = |error: io::Error| {
        Failure::new(
            Exit::Failed,
            attempted,
            format!("write what ssh needs below {}: {error}", folders.path().display()),
        )
    };
    let folder = take(folders.clone(), id).await.map_err(broken)?;
    let credential = credential(&client.context);
    let found = read(folder.path(), purpose).filter(|found| found.serves(attempt, &credential, now()));
    let access = match found {
        Some(found) => {
            let route = choose(found.grant.address.as_ref(), via, Some(&found.route)).await;
            Access { route, ..found }
        }
        None => {
            let key = key(&folder).map_err(broken)?;
            let request = OpenPairingRequest {
                task: task.uuid.clone(),
                public_key: key,
                profile: PairingProfile::from(purpose).into(),
            };
            let opened = now();
            let answer =
                client.change(attempted, async || client.pairings().open_pairing(request.clone()).await).await?;
            let (grant, certificate) = grant::checked(answer).map_err(wrong)?;
            folder.write(&certificate_name(purpose), format!("{certificate}\n")).map_err(broken)?;
            let route = choose(grant.address.as_ref(), via, None).await;
            let folder = folder.path().to_owned();
            Access { number: task.number, task: id, grant, route, opened, credential, folder, purpose }
        }
    };
    if via == Via::Direct && access.route == Route::Tunnel {
        let why = "its executor has no port of its own that people could reach";
        return Err(
            Failure::new(Exit::Conflict, attempted, why).next("without --via it is reached through the controller")
        );
    }
    let us = Us::here(&client.context);
    let text = config::text(&access, &us).map_err(|problem| {
        Failure::new(Exit::BadInput, attempted, problem.to_string()).next("set XDG_STATE_HOME to a plain path")
    })?;
    let record = serde_json::to_vec(&access).map_err(|error| broken(error.into()))?;
    let known_hosts = access.grant.known_hosts.iter().map(|line| format!("{line}\n")).collect::<String>();
    let files: [(String, &[u8]); 3] = [
        (KNOWN_HOSTS.to_owned(), known_hosts.as_bytes()),
        (config_name(purpose), text.as_bytes()),
        // Last: it says that the others are there.
        (record_name(purpose), &record),
    ];
    files.iter().try_for_each(|(name, content)| folder.write(name, content)).map_err(broken)?;
    // Those that stay are met by whoever comes next.
    let _stays = folders.sweep(|folder| is_of_use(folder, now()));
    Ok(access)
}

/// Waits for the task's directory on a thread that may wait.
async fn take(folders: Folders, task: TaskId) -> io::Result<Folder> {
    tokio::task::spawn_blocking(move || folders.take(task)).await.map_err(io::Error::other)?
}

/// The task's key for certificates, which is made where there is none; its public half.
fn key(folder: &Folder) -> io::Result<String> {
    let there = fs::read_to_string(folder.path().join(KEY)).ok().and_then(|text| PrivateKey::from_openssh(text).ok());
    let key = match there {
        Some(key) => key,
        None => {
            let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
            folder.write(KEY, key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.as_bytes())?;
            key
        }
    };
    key.public_key().to_openssh().map_err(io::Error::other)
}

/// What was asked for before. What cannot be read is asked for anew.
fn read(folder: &Path, purpose: Purpose) -> Option<Access> {
    let access: Access = serde_json::from_slice(&fs::read(folder.join(record_name(purpose))).ok()?).ok()?;
    let access = Access { folder: folder.to_owned(), purpose, ..access };
    (access.key().exists() && access.certificate().exists()).then_some(access)
}

/// Whether one of the accesses in a directory still lets somebody in.
fn is_of_use(folder: &Path, now: u64) -> bool {
    Purpose::ALL
        .into_iter()
        .filter_map(|purpose| read(folder, purpose))
        .any(|access| access.until().saturating_add(KEPT.as_secs()) > now)
}

/// Tells credentials apart without telling any of them.
fn credential(context: &Context) -> String {
    let digest = Token::parse(&context.token, Kind::User).map(|token| token.secret.digest()).unwrap_or_default();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record_name(purpose: Purpose) -> String {
    format!("{}.json", purpose.name())
}

fn config_name(purpose: Purpose) -> String {
    format!("{}.conf", purpose.name())
}

fn certificate_name(purpose: Purpose) -> String {
    format!("{}-cert.pub", purpose.name())
}

fn now() -> u64 {
    // A clock before 1970 is before every certificate.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of task 17 that was asked for at second 1000 and is good for 900.
    pub(in crate::pairing) fn access(purpose: Purpose, route: Route) -> Access {
        let grant = Grant {
            pairing: uuid::Uuid::from_u128(1).into(),
            attempt: uuid::Uuid::from_u128(2).into(),
            rights: Vec::new(),
            login: "attempt-1".into(),
            host: "executor-1".into(),
            known_hosts: vec!["@cert-authority executor-1 ssh-ed25519 AAAA".into()],
            address: None,
            lifetime: 900,
        };
        let (folder, credential) = ("/state of 100%/ssh".into(), "ours".to_owned());
        Access { number: 17, task: TaskId::fresh(), grant, route, opened: 1000, credential, folder, purpose }
    }

    #[test]
    fn what_serves_is_used_again() {
        let access = access(Purpose::Attach, Route::Tunnel);
        let (ours, other) = (access.grant.attempt, AttemptId::fresh());
        for (attempt, credential, now, serves) in [
            (ours, "ours", 1000, true),
            (ours, "ours", 1599, true),
            (ours, "ours", 1600, false),
            (ours, "ours", 5000, false),
            // A clock that was set back says nothing of what is left.
            (ours, "ours", 999, false),
            (ours, "another's", 1000, false),
            (other, "ours", 1000, false),
        ] {
            assert_eq!(access.serves(attempt, credential, now), serves, "{attempt} {credential} {now}");
        }
    }

    #[test]
    fn a_key_stays_and_a_record_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::at(root.path());
        let folder = folders.take(TaskId::fresh()).unwrap();
        let first = key(&folder).unwrap();
        assert!(first.starts_with("ssh-ed25519 "), "{first}");
        assert_eq!(key(&folder).unwrap(), first);
        folder.write(KEY, "torn").unwrap();
        assert_ne!(key(&folder).unwrap(), first);

        let access = Access { folder: folder.path().to_owned(), ..access(Purpose::Observe, Route::Tunnel) };
        folder.write(&record_name(Purpose::Observe), serde_json::to_vec(&access).unwrap()).unwrap();
        assert_eq!(read(folder.path(), Purpose::Observe), None, "without its certificate it is nothing");
        folder.write(&certificate_name(Purpose::Observe), "").unwrap();
        assert_eq!(read(folder.path(), Purpose::Observe).as_ref(), Some(&access));
        assert_eq!(read(folder.path(), Purpose::Attach), None);
        assert!(is_of_use(folder.path(), 1900 + 3_599) && !is_of_use(folder.path(), 1900 + 3_600));
        access.forget();
        assert_eq!(read(folder.path(), Purpose::Observe), None);
    }
}

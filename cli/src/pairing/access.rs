//! What lets one person sit beside one attempt, as it stands on this machine: asked for once, and used as long as it is good.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sculpt_pairing::Right;
use sculpt_proto::{
    FieldError,
    id::{AttemptId, PairingId, TaskId},
    v1::{Attempt, OpenPairingRequest, OpenPairingResponse, Task},
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
    output::clean,
};

const KEY: &str = "key";
const KNOWN_HOSTS: &str = "known_hosts";

/// How long it is believed that somebody may not do what they came for, in seconds: each time that it is asked for anew opens
/// a pairing, of which nobody has any number.
const REFUSED: u64 = 20;

/// How long what is out of date is kept: somebody's clock may be behind.
const KEPT: Duration = Duration::from_secs(3_600);

/// What an access is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) purpose: Purpose,
    /// Without which there is no use in it.
    pub(crate) right: Option<Right>,
    pub(crate) via: Via,
}

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

    /// Whether the person may do this.
    fn gives(&self, right: Option<Right>) -> bool {
        right.is_none_or(|right| self.grant.rights.iter().any(|name| name == right.as_str()))
    }

    /// Whether it is still to be used for this attempt: a third of its time is for those who begin with it now. Who lacks the
    /// right may have been given it since.
    fn serves(&self, attempt: AttemptId, right: Option<Right>, credential: &str, now: u64) -> bool {
        let left = self.until().saturating_sub(now);
        let young = now >= self.opened && left.saturating_mul(3) > self.grant.lifetime;
        let of_use = self.gives(right) || now < self.opened.saturating_add(REFUSED);
        young && of_use && self.grant.attempt == attempt && self.credential == credential
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
    wish: Wish,
    attempted: &str,
) -> Result<Access, Failure> {
    let Wish { purpose, right, via } = wish;
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
    let found = read(folder.path(), purpose).filter(|found| found.serves(attempt, right, &credential, now()));
    let access = match found {
        Some(found) => {
            let route = choose(found.grant.address.as_ref(), via, Some(&found.route)).await;
            Access { route, ..found }
        }
        None => {
            let key = key(&folder).map_err(broken)?;
            let opened = now();
            let answer = ask(client, (task, key), wish, attempted).await?;
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
    match right.filter(|right| !access.gives(Some(*right))) {
        None => Ok(access),
        Some(right) => Err(lacks(right, task, attempted)),
    }
}

/// Asks the controller for the first of what the wish is about that it grants.
async fn ask(
    client: &Client,
    (task, public_key): (&Task, String),
    wish: Wish,
    attempted: &str,
) -> Result<OpenPairingResponse, Failure> {
    let mut request = OpenPairingRequest { task: task.uuid.clone(), public_key, ..OpenPairingRequest::default() };
    let mut profiles = wish.purpose.profiles(wish.right).iter().peekable();
    loop {
        request.set_profile(profiles.next().copied().unwrap_or_default());
        let answer = client.change(attempted, async || client.pairings().open_pairing(request.clone()).await).await;
        match answer {
            Err(failure) if failure.exit == Exit::NotAllowed && profiles.peek().is_some() => {}
            answer => return answer,
        }
    }
}

/// Nothing would be gained by asking the executor, which refuses it later and in fewer words.
fn lacks(right: Right, task: &Task, attempted: &str) -> Failure {
    let (doing, role) = match right {
        Right::Observe => ("look on", "viewer"),
        Right::Drive => ("type at its terminal", "driver"),
        Right::Shell => ("work in its workspace", "shell"),
        Right::Forward => ("reach what its programs listen on", "forwarder"),
    };
    let place = if task.project.is_empty() { String::new() } else { format!(" in project {}", task.project) };
    let why = clean(&format!("you may not {doing}: that takes the role {role}{place}"));
    let failure = Failure::new(Exit::NotAllowed, attempted, why)
        .next("ask an admin for it; `sculpt whoami` shows what you, and this token, may");
    match right {
        Right::Drive => failure.next("`sculpt pair --read-only` looks on without it"),
        Right::Observe | Right::Shell | Right::Forward => failure,
    }
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
            rights: vec!["observe".into(), "shell".into()],
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
        let access = access(Purpose::Workspace, Route::Tunnel);
        let (ours, other) = (access.grant.attempt, AttemptId::fresh());
        for (attempt, right, credential, now, serves) in [
            (ours, Right::Shell, "ours", 1000, true),
            (ours, Right::Shell, "ours", 1599, true),
            (ours, Right::Shell, "ours", 1600, false),
            (ours, Right::Shell, "ours", 5000, false),
            // A clock that was set back says nothing of what is left.
            (ours, Right::Shell, "ours", 999, false),
            (ours, Right::Shell, "another's", 1000, false),
            (other, Right::Shell, "ours", 1000, false),
            (ours, Right::Forward, "ours", 1019, true),
            (ours, Right::Forward, "ours", 1020, false),
        ] {
            let served = access.serves(attempt, Some(right), credential, now);
            assert_eq!(served, serves, "{attempt} {right:?} {credential} {now}");
        }
        assert!(access.serves(ours, None, "ours", 1599));
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
        assert_eq!(read(folder.path(), Purpose::Workspace), None);
        assert!(is_of_use(folder.path(), 1900 + 3_599) && !is_of_use(folder.path(), 1900 + 3_600));
        access.forget();
        assert_eq!(read(folder.path(), Purpose::Observe), None);
    }
}

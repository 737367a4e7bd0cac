//! What lets one person sit beside one attempt, as it stands on this machine: asked for once, and used as long as it is good.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sculpt_pairing::Right;
use sculpt_proto::id::{AttemptId, PairingId, TaskId};
use sculpt_tls::{Kind, Token};
use serde::{Deserialize, Serialize};

use super::{
    Purpose,
    folder::Folders,
    grant::Grant,
    route::{Route, Via},
};
use crate::config::{ConfigError, Context};

pub(super) const KEY: &str = "key";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// How long it is believed that somebody may not do what they came for, or not by that way, in seconds: each time that it is asked for anew opens
/// a pairing, of which nobody has any number.
const REFUSED: u64 = 20;

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
    pub(super) opened: u64,
    /// Digest of the credential with which it was asked for.
    pub(super) credential: String,
    /// Where its files stand, and which of them it is.
    #[serde(skip)]
    pub(super) folder: PathBuf,
    #[serde(skip)]
    pub(super) purpose: Purpose,
    /// By which way somebody went who did not leave that to us.
    #[serde(skip)]
    pub(super) via: Via,
}

impl Access {
    /// The configuration for ssh.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join(self.config_name())
    }

    /// The name of that file.
    pub(super) fn config_name(&self) -> String {
        config_name(self.purpose, self.via)
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
    pub(super) fn gives(&self, right: Option<Right>) -> bool {
        right.is_none_or(|right| self.grant.rights.iter().any(|name| name == right.as_str()))
    }

    /// Whether it is still to be used for this attempt: a third of its time is for those who begin with it now. Who lacks the
    /// right may have been given it since, and an executor without a direct way may have one.
    pub(super) fn serves(
        &self,
        attempt: AttemptId,
        (right, via): (Option<Right>, Via),
        credential: &str,
        now: u64,
    ) -> bool {
        let left = self.until().saturating_sub(now);
        let young = now >= self.opened && left.saturating_mul(3) > self.grant.lifetime;
        let leads = via != Via::Direct || self.grant.address.is_some();
        let of_use = (self.gives(right) && leads) || now < self.opened.saturating_add(REFUSED);
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
    folders.path().join("*").join(config_name(Purpose::Workspace, Via::Any))
}

/// What was asked for before. What cannot be read is asked for anew.
pub(super) fn read(folder: &Path, purpose: Purpose) -> Option<Access> {
    let access: Access = serde_json::from_slice(&fs::read(folder.join(record_name(purpose))).ok()?).ok()?;
    let access = Access { folder: folder.to_owned(), purpose, ..access };
    (access.key().exists() && access.certificate().exists()).then_some(access)
}

/// Whether one of the accesses in a directory still lets somebody in. One to a task that has the same number as `current` is
/// from before the controller's database was made anew, and would lead ssh astray.
pub(super) fn is_of_use(folder: &Path, current: &Access, now: u64) -> bool {
    let is_elder = |access: &Access| access.number == current.number && access.task != current.task;
    let found = Purpose::ALL.into_iter().filter_map(|purpose| read(folder, purpose));
    let mut good = found.filter(|access| access.until().saturating_add(KEPT.as_secs()) > now);
    good.any(|access| !is_elder(&access))
}

/// Tells credentials apart without telling any of them.
pub(super) fn credential(context: &Context) -> String {
    let digest = Token::parse(&context.token, Kind::User).map(|token| token.secret.digest()).unwrap_or_default();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn record_name(purpose: Purpose) -> String {
    format!("{}.json", purpose.name())
}

/// Whoever names a way does not turn others to it.
fn config_name(purpose: Purpose, via: Via) -> String {
    let way = match via {
        Via::Any => "",
        Via::Tunnel => "-tunnel",
        Via::Direct => "-direct",
    };
    format!("{}{way}.conf", purpose.name())
}

pub(super) fn certificate_name(purpose: Purpose) -> String {
    format!("{}-cert.pub", purpose.name())
}

pub(super) fn now() -> u64 {
    // A clock before 1970 is before every certificate.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::open::key, *};

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
        let (task, via) = (TaskId::fresh(), Via::Any);
        Access { number: 17, task, grant, route, opened: 1000, credential, folder, purpose, via }
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
            let served = access.serves(attempt, (Some(right), Via::Any), credential, now);
            assert_eq!(served, serves, "{attempt} {right:?} {credential} {now}");
        }
        assert!(access.serves(ours, (None, Via::Any), "ours", 1599));
        // The direct way may have been opened since.
        for (via, now, serves) in [(Via::Tunnel, 1020, true), (Via::Direct, 1019, true), (Via::Direct, 1020, false)] {
            assert_eq!(access.serves(ours, (None, via), "ours", now), serves, "{via:?} {now}");
        }
        let mut direct = access;
        direct.grant.address = Some("host.example:22".parse().unwrap());
        assert!(direct.serves(ours, (None, Via::Direct), "ours", 1599));
    }

    #[test]
    fn a_key_stays_and_a_record_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::at(root.path());
        let folder = folders.take(TaskId::fresh()).unwrap().unwrap();
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
        let is_of_use = |current: &Access, now| is_of_use(folder.path(), current, now);
        assert!(is_of_use(&access, 1900 + 3_599) && !is_of_use(&access, 1900 + 3_600));
        let other = |number| Access { number, task: TaskId::fresh(), ..access.clone() };
        assert!(is_of_use(&other(18), 1900) && !is_of_use(&other(17), 1900), "a number is one task's");
        access.forget();
        assert_eq!(read(folder.path(), Purpose::Observe), None);
    }
}

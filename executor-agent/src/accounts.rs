//! Accounts for separated attempts: real ones, made once, one leased to each attempt.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, lchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use sculpt_proto::id::AttemptId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    host::{self, Passwd},
    tree,
};

/// Name of the directory of the workspaces, which stands beside that of the homes.
const WORKSPACES: &str = "workspaces";

const PREFIX: &str = "sculpt-a";

/// Where every account can leave something.
const COMMON: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// For so many accounts it is tried: a directory that cannot be looked through cannot be for any.
const SWEEPS: u32 = 4;

/// How many accounts are looked through for a free one.
const MOST: u32 = 10_000;

/// Exit codes of useradd: the files of accounts cannot be written, mostly because somebody else does, and the name is taken.
const BUSY: i32 = 1;
const IN_USE: i32 = 9;

/// Only root can open it, so no agent can hold it.
const LOCK: &str = "/run/sculpt-accounts.lock";

/// How long others may write to the files of accounts, and how often it is tried again meanwhile.
const OTHERS_WRITE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// No account could be had for an attempt.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// A file or directory could not be read or made.
    #[error("could not {attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// useradd failed.
    #[error(
        "could not make the account {name}: {words}; make it with useradd, or start the executor without --separate"
    )]
    Make {
        /// Its name.
        name: String,
        /// What useradd said.
        words: String,
    },
}

/// The account that an attempt runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory, empty at the start of an attempt.
    pub home: PathBuf,
}

impl From<Passwd> for Account {
    fn from(line: Passwd) -> Self {
        Self { name: line.name, uid: line.uid, gid: line.gid, home: line.home }
    }
}

/// Leases accounts. Accounts whose home is not below ours belong to another executor and are left alone.
#[derive(Clone, Debug)]
pub struct Accounts {
    homes: PathBuf,
    leases: Arc<Mutex<BTreeMap<AttemptId, Account>>>,
}

impl Accounts {
    /// A pool whose homes stand below `homes`.
    pub fn new(homes: PathBuf) -> Self {
        Self { homes, leases: Arc::default() }
    }

    /// Takes note of a lease from before a restart.
    pub fn adopt(&self, attempt: AttemptId, account: Account) {
        self.lock().insert(attempt, account);
    }

    /// An account that no other attempt has, with an empty home; made when there is none. Blocks.
    pub fn lease(&self, attempt: AttemptId) -> Result<Account, AccountError> {
        let mut leases = self.lock();
        if let Some(account) = leases.get(&attempt) {
            return Ok(account.clone());
        }
        // What an attempt before has left running could meddle with the next one.
        let busy = tree::busy_accounts();
        let mut taken: BTreeSet<u32> = leases.values().map(|account| account.uid).chain(busy).collect();
        // Of an attempt whose files cannot be read no lease is known, and its workspace is not closed yet.
        taken.extend(self.owners());
        let _alone = alone()?;
        let mut tries = 0;
        let account = loop {
            tries += 1;
            let account = self.find(&taken)?;
            match sweep(account.uid) {
                Ok(()) => break account,
                Err(error) if tries == SWEEPS => return Err(error),
                // Somebody could still act as the attempt that comes, through what the one before has left.
                Err(error) => warn!(account = account.name, %error, "the account is not handed out"),
            }
            taken.insert(account.uid);
        };
        make_home(&account)?;
        leases.insert(attempt, account.clone());
        Ok(account)
    }

    /// Whether an attempt has the account `uid`. Then nothing ran under it before that attempt.
    pub fn leased(&self, uid: u32) -> bool {
        self.lock().values().any(|account| account.uid == uid)
    }

    /// Gives the account of an ended attempt back.
    pub fn release(&self, attempt: AttemptId) {
        self.lock().remove(&attempt);
    }

    /// Who owns a workspace beside the homes.
    fn owners(&self) -> BTreeSet<u32> {
        let workspaces = self.homes.with_file_name(WORKSPACES);
        let entries = fs::read_dir(workspaces).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.uid())).collect()
    }

    fn find(&self, taken: &BTreeSet<u32>) -> Result<Account, AccountError> {
        let known = host::passwd().map_err(|source| AccountError::Io {
            attempt: "read",
            path: "/etc/passwd".into(),
            source,
        })?;
        let known: BTreeMap<String, Passwd> = known.into_iter().map(|line| (line.name.clone(), line)).collect();
        let names = || (0..MOST).map(|number| format!("{PREFIX}{number}"));
        let free = |line: &&Passwd| line.home.starts_with(&self.homes) && !taken.contains(&line.uid) && line.uid != 0;
        if let Some(line) = names().filter_map(|name| known.get(&name)).find(free) {
            return Ok(line.clone().into());
        }
        for name in names().filter(|name| !known.contains_key(name)) {
            if let Some(account) = self.make(&name)? {
                return Ok(account);
            }
        }
        Err(AccountError::Make { name: format!("{PREFIX}{MOST}"), words: "all are taken".to_owned() })
    }

    /// Makes an account; none when somebody else has made one of this name meanwhile.
    fn make(&self, name: &str) -> Result<Option<Account>, AccountError> {
        let home = self.homes.join(name);
        let fail = |words: String| AccountError::Make { name: name.to_owned(), words };
        let shell = host::shell();
        let mut command = std::process::Command::new("useradd");
        command
            .args(["--system", "--no-create-home", "--user-group", "--shell", shell, "--comment", "sculpt attempt"])
            .arg("--home-dir")
            .arg(&home)
            .arg(name)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let begun = Instant::now();
        loop {
            let output = command.output().map_err(|error| fail(error.to_string()))?;
            match output.status.code() {
                Some(0) => break,
                Some(IN_USE) => return Ok(None),
                Some(BUSY) if begun.elapsed() < OTHERS_WRITE => thread::sleep(LOOK),
                _ => return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            }
        }
        let found = host::passwd().ok().and_then(|all| all.into_iter().find(|line| line.name == name));
        let made = found.map(Account::from);
        made.map(Some).ok_or_else(|| fail("useradd succeeded, and the account is not there".to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Account>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Among all executors of this host: useradd takes a name that another one is just making, and makes it anew.
fn alone() -> Result<fs::File, AccountError> {
    let fail = |source| AccountError::Io { attempt: "lock", path: LOCK.into(), source };
    let file = fs::File::options().create(true).append(true).mode(0o600).open(LOCK).map_err(fail)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < OTHERS_WRITE => thread::sleep(LOOK),
            Err(error) => return Err(fail(error.into())),
        }
    }
}

/// What the attempt before has left where everybody can is no business of the next either: a program that runs as its owner
/// would reach the next one's workspace.
fn sweep(uid: u32) -> Result<(), AccountError> {
    COMMON.iter().map(Path::new).filter(|place| place.is_dir()).try_for_each(|place| {
        let fail =
            |source| AccountError::Io { attempt: "remove what an attempt has left in", path: place.into(), source };
        sculpt_walk::remove_owned(place, uid).map_err(fail)
    })
}

/// What the attempt before has left in its home is no business of the next.
fn make_home(account: &Account) -> Result<(), AccountError> {
    let fail = |attempt: &'static str| {
        let path = account.home.clone();
        move |source| AccountError::Io { attempt, path, source }
    };
    sculpt_walk::remove(&account.home).map_err(fail("empty the home"))?;
    fs::DirBuilder::new().mode(0o700).create(&account.home).map_err(fail("make the home"))?;
    lchown(&account.home, Some(account.uid), Some(account.gid)).map_err(fail("give away the home"))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, process::Command};

    use super::*;

    #[test]
    fn what_an_account_has_left_where_everybody_can_does_not_serve_its_next_holder() {
        if !host::is_root() {
            return;
        }
        let homes = tempfile::tempdir().unwrap();
        let accounts = Accounts::new(homes.path().to_owned());
        let first = AttemptId::fresh();
        let account = accounts.lease(first).unwrap();
        let left = tempfile::tempdir_in("/var/tmp").unwrap();
        let program = left.path().join("program");
        fs::write(&program, "").unwrap();
        for path in [left.path(), &program] {
            lchown(path, Some(account.uid), Some(account.gid)).unwrap();
        }
        accounts.release(first);
        let next = accounts.lease(AttemptId::fresh());
        let _gone = Command::new("/usr/sbin/userdel").arg(&account.name).output();
        assert_eq!(next.unwrap(), account);
        assert!(!left.path().exists());
    }

    #[test]
    fn an_account_that_still_owns_a_workspace_is_not_handed_out() {
        if !host::is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let (homes, workspace) = (data.path().join("homes"), data.path().join(WORKSPACES).join("open"));
        fs::create_dir(&homes).unwrap();
        fs::create_dir_all(&workspace).unwrap();
        let owner = Accounts::new(homes.clone()).lease(AttemptId::fresh()).unwrap();
        lchown(&workspace, Some(owner.uid), Some(owner.gid)).unwrap();
        let next = Accounts::new(homes).lease(AttemptId::fresh());
        for account in [Some(&owner), next.as_ref().ok()].into_iter().flatten() {
            let _gone = Command::new("/usr/sbin/userdel").arg(&account.name).output();
        }
        assert_ne!(next.unwrap().uid, owner.uid);
    }

    /// Executors that share a host know nothing of each other, and the host's administrator knows nothing of them.
    #[test]
    fn accounts_that_are_made_at_the_same_time_are_different_ones() {
        if !host::is_root() {
            return;
        }
        let homes = tempfile::tempdir().unwrap();
        let lease = |executor: u32| {
            let homes = homes.path().join(executor.to_string());
            fs::create_dir(&homes).unwrap();
            thread::spawn(move || Accounts::new(homes).lease(AttemptId::fresh()))
        };
        let leases: Vec<_> = (0..6).map(lease).collect();
        let leased: Vec<_> = leases.into_iter().map(|lease| lease.join().unwrap()).collect();
        for account in leased.iter().flatten() {
            let _gone = Command::new("/usr/sbin/userdel").arg(&account.name).output();
        }
        let names: HashSet<String> = leased.into_iter().map(|account| account.unwrap().name).collect();
        assert_eq!(names.len(), 6);
    }
}

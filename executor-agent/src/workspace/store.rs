//! Base history per project, fetched from the controller by plain git. Workspaces borrow its objects, so nothing is
//! ever pruned here.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sculpt_proto::id::ProjectId;

use super::git::{self, GitError};
use crate::{
    connect::{ConnectError, Dialer},
    identity::{CredentialError, Keyring},
    layout::Layout,
    spec::Repository,
};

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(3_600);
const QUICK: Duration = Duration::from_secs(120);

/// A base commit could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's directory cannot be made.
    #[error("could not make the store {path}: {source}")]
    Make {
        /// The store.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What git is to show.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The controller could not be reached just now; trying again may help.
    #[error("the controller could not be reached for a fetch: {0}")]
    Away(GitError),
    /// Nor could its address be found.
    #[error(transparent)]
    Lost(#[from] ConnectError),
}

/// All stores; one fetch per project at a time.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    locks: Arc<Mutex<HashMap<ProjectId, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Stores {
    /// Makes the base commit with all of its history present; returns the store.
    pub async fn ensure(
        &self,
        layout: &Layout,
        dialer: &Dialer,
        repository: &Repository,
    ) -> Result<PathBuf, StoreError> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(repository.project).or_default())
        };
        let _one_at_a_time = lock.lock().await;
        let store = layout.store(repository.project);
        init(&store, &repository.base).await?;
        let kept = format!("refs/sculpt/bases/{}", repository.base);
        let mut look = git::trusted(&store);
        look.args(["rev-parse", "--quiet", "--verify"]).arg(&kept);
        // The ref is written by a fetch that was complete, so nothing else needs to be looked at.
        if git::output("look for the base commit", look, None, QUICK).await?.code == Some(0) {
            return Ok(store);
        }
        fetch(&store, dialer, &layout.keyring()?, repository, &kept).await?;
        Ok(store)
    }
}

async fn init(store: &Path, base: &str) -> Result<(), StoreError> {
    if store.join("objects").is_dir() && store.join("HEAD").is_file() {
        return Ok(());
    }
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Make { path, source }
    };
    // Made beside, so that a git that was killed leaves nothing half made; where there are objects, they are borrowed.
    let borrowed = store.join("objects").is_dir();
    let making = if borrowed { store.to_owned() } else { store.with_extension("new") };
    if !borrowed {
        sculpt_walk::remove(&making).map_err(fail(&making))?;
        sculpt_walk::remove(store).map_err(fail(store))?;
    }
    fs::create_dir_all(&making).map_err(fail(&making))?;
    let mut command = git::trusted(&making);
    command.args(["init", "--bare", "--quiet", "--template="]).arg(object_format(base));
    git::run("make the store", command, None, QUICK).await?;
    fs::rename(&making, store).map_err(fail(store))
}

/// The option that makes a repository for commits like this one.
pub(super) fn object_format(commit: &str) -> &'static str {
    if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" }
}

async fn fetch(
    store: &Path,
    dialer: &Dialer,
    keyring: &Keyring,
    repository: &Repository,
    kept: &str,
) -> Result<(), StoreError> {
    // Of a git that was killed: nobody else fetches this one now.
    let _absent = fs::remove_file(store.join(format!("{kept}.lock")));
    let (url, resolve) = dialer.proved_url().await?;
    let mut command = git::trusted(store);
    command
        .env("GIT_SSL_CERT", keyring.certificate_file())
        .env("GIT_SSL_KEY", keyring.key_file())
        .env("GIT_SSL_CAINFO", keyring.trust_file())
        .env("GIT_CONFIG_COUNT", "6")
        .env("GIT_CONFIG_KEY_0", "http.curloptResolve")
        .env("GIT_CONFIG_VALUE_0", resolve)
        .env("GIT_CONFIG_KEY_1", "protocol.https.allow")
        .env("GIT_CONFIG_VALUE_1", "always")
        .env("GIT_CONFIG_KEY_2", "protocol.version")
        .env("GIT_CONFIG_VALUE_2", "2")
        .env("GIT_CONFIG_KEY_3", "http.followRedirects")
        .env("GIT_CONFIG_VALUE_3", "false")
        .env("GIT_CONFIG_KEY_4", "fetch.unpackLimit")
        .env("GIT_CONFIG_VALUE_4", "1")
        .env("GIT_CONFIG_KEY_5", "http.proxy")
        .env("GIT_CONFIG_VALUE_5", "")
        .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
        .arg(format!("{url}{}", repository.git_path))
        .arg(format!("+{}:{kept}", repository.base));
    match git::run("fetch the base commit from the controller", command, None, FETCH).await {
        Ok(_) => Ok(()),
        Err(error @ GitError::Failed { .. }) if passing(&error.to_string()) => Err(StoreError::Away(error)),
        Err(error) => Err(error.into()),
    }
}

/// Whether git's words mean that the same fetch can succeed later. A line fails in more words than anybody can list, and each TLS
/// library has its own; what is refused for good has few.
fn passing(words: &str) -> bool {
    let broken = ["RPC failed", "early EOF", "unexpected disconnect", "hung up", "error: 408", "error: 429"];
    let refused =
        ["certificate", "returned error: 4", "Authentication failed", "not supported", "malformed", "redirect"];
    let any = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    any(&broken) || words.contains("unable to access") && !any(&refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_is_away_is_told_from_one_that_refuses() {
        for (reason, expected) in [
            ("Failed to connect to 127.0.0.1 port 1", true),
            ("Could not resolve host: x", true),
            ("Operation timed out after 1000 milliseconds", true),
            ("Send failure: Broken pipe", true),
            ("Recv failure: Connection reset by peer", true),
            ("gnutls_handshake() failed: The TLS connection was non-properly terminated.", true),
            ("GnuTLS recv error (-54): Error in the pull function.", true),
            ("OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to x", true),
            ("The requested URL returned error: 503", true),
            ("The requested URL returned error: 429", true),
            ("The requested URL returned error: 404", false),
            ("The requested URL returned error: 403", false),
            ("server certificate verification failed. CAfile: x CRLfile: none", false),
            ("SSL certificate problem: unable to get local issuer certificate", false),
            ("Unsupported protocol: protocol \"gopher\" not supported", false),
        ] {
            assert_eq!(passing(&format!("fatal: unable to access 'https://x/': {reason}")), expected, "{reason}");
        }
        assert!(passing("error: RPC failed; curl 56 GnuTLS recv error (-110)\nfatal: early EOF"));
        assert!(!passing("fatal: remote error: upload-pack: not our ref 1234"));
    }
}

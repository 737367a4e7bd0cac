//! Caches of the projects' repositories, rebuilt from rows and blobs; verification of packs; diffs.
//!
//! Truth is in the database and the blob store: refs are rows, packs are immutable blobs. What stands below
//! `cache/git` can be deleted at any time, also while the program runs; the next use makes it again. Objects come in
//! through [`Repositories::verify`] alone and go out through `git upload-pack` alone. Only this module names git2 and
//! starts the `git` program.

mod cache;
mod child;
mod compact;
mod diff;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod import;
pub mod names;
mod publish;
mod receive;
mod serve;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use sculpt_proto::id::ProjectId;
use tokio::sync::Semaphore;

use self::{cache::ProjectCache, child::Git};
pub use self::{
    cache::Reading,
    child::ChildError,
    compact::Compacted,
    diff::{Change, ChangeKind, Diff, DiffLimits, DiffPart},
    error::GitError,
    import::Verified,
    publish::{Publication, Published, SessionCheck, publish},
    receive::ReceivedPack,
    serve::{Answer, Question},
};
use crate::{blobs::Blobs, store::Store};

/// Where the caches stand and what they may use.
#[derive(Clone, Debug)]
pub struct GitSettings {
    /// Directory of the caches.
    pub cache: PathBuf,
    /// Directory of what is half-done, emptied at every start; on the file system of `cache`.
    pub scratch: PathBuf,
    /// The `git` program.
    pub program: PathBuf,
    /// Largest pack that is taken, in bytes.
    pub max_pack: u64,
    /// How many packs are verified, rebuilt or compacted at once.
    pub writers: usize,
    /// How many fetches and diffs are served at once; more wait.
    pub readers: usize,
}

impl GitSettings {
    /// What fits most, below the controller's data directory.
    pub fn below(data_dir: &Path) -> Self {
        Self {
            cache: data_dir.join("cache/git"),
            scratch: data_dir.join("tmp/git"),
            program: "git".into(),
            max_pack: 4 << 30,
            writers: 2,
            readers: 32,
        }
    }
}

/// The repositories of all projects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repositories {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    blobs: Blobs,
    settings: GitSettings,
    git: Git,
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    projects: Mutex<HashMap<ProjectId, Arc<ProjectCache>>>,
}

impl Repositories {
    /// Repositories made of what `store` and `blobs` hold. Deletes what an earlier process left half-done.
    pub fn new(store: Store, blobs: Blobs, settings: GitSettings) -> Result<Self, GitError> {
        match std::fs::remove_dir_all(&settings.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GitError::files("empty", &settings.scratch)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let home = settings.scratch.join("home");
        for directory in [&settings.cache, &home] {
            std::fs::create_dir_all(directory).map_err(GitError::files("make", directory))?;
        }
        // Children are started in another directory than ours.
        let absolute = |path: &Path| std::path::absolute(path).map_err(GitError::files("find", path));
        let settings =
            GitSettings { cache: absolute(&settings.cache)?, scratch: absolute(&settings.scratch)?, ..settings };
        let inner = Inner {
            git: Git::new(settings.program.clone(), absolute(&home)?),
            writers: Arc::new(Semaphore::new(settings.writers)),
            readers: Arc::new(Semaphore::new(settings.readers)),
            projects: Mutex::default(),
            store,
            blobs,
            settings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn project(&self, project: ProjectId) -> Arc<ProjectCache> {
        let mut projects = self.inner.projects.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(projects.entry(project).or_default())
    }

    /// An empty directory that goes with its owner.
    fn scratch(&self) -> Result<tempfile::TempDir, GitError> {
        let directory = &self.inner.settings.scratch;
        tempfile::Builder::new().prefix("work-").tempdir_in(directory).map_err(GitError::files("make", directory))
    }

    /// A place among those that use much processor time and disk.
    async fn writer(&self) -> tokio::sync::OwnedSemaphorePermit {
        seat(&self.inner.writers).await
    }

    /// A place among those that read.
    async fn reader(&self) -> tokio::sync::OwnedSemaphorePermit {
        seat(&self.inner.readers).await
    }
}

async fn seat(seats: &Arc<Semaphore>) -> tokio::sync::OwnedSemaphorePermit {
    match Arc::clone(seats).acquire_owned().await {
        Ok(permit) => permit,
        // Nobody closes these semaphores.
        Err(_) => std::future::pending().await,
    }
}

//! Commits in and out, with the real git on both sides.

mod cache;
mod compact;
mod diff;
mod executors;
mod fetch;
mod hostile;
mod import;
mod publish;
pub(crate) mod repo;
mod service;

use std::{collections::BTreeMap, path::Path};

use sculpt_controller::{
    blobs::Blobs,
    git::{GitError, GitSettings, Repositories},
    store::{Store, projects::Wish, refs, requests::Request},
};
use sculpt_proto::id::{ProjectId, RequestId};
use tempfile::TempDir;

use self::repo::Repo;
use crate::harness::{self, Fresh};

/// One project on a controller's store, without the controller.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    pub(crate) repositories: Repositories,
    pub(crate) project: ProjectId,
    data: TempDir,
    _fresh: Fresh,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (store, fresh) = harness::store().await;
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::at_directory(&data.path().join("blobs")).unwrap();
        let repositories = Repositories::new(store.clone(), blobs.clone(), GitSettings::below(data.path())).unwrap();
        let wish = Wish {
            name: "demo".to_owned(),
            exact_name: false,
            root_commit: "1".repeat(40),
            remote: String::new(),
            default_agent: None,
            commit_changes: None,
            record_typing: None,
        };
        let (project, _) = store.ensure_project(harness::admin(&store).await, request(), wish).await.unwrap();
        Self { store, blobs, repositories, project: project.id(), data, _fresh: fresh }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The cache's directory.
    pub(crate) fn cache(&self) -> std::path::PathBuf {
        self.data.path().join(format!("cache/git/{}.git", self.project))
    }

    /// Another process on the same data.
    pub(crate) fn restarted(&self) -> Repositories {
        Repositories::new(self.store.clone(), self.blobs.clone(), GitSettings::below(self.data())).unwrap()
    }

    /// Sends `pack` as the base `tip`.
    pub(crate) async fn send(&self, tip: &str, pack: &[u8]) -> Result<u64, GitError> {
        let mut received = self.repositories.receive().await?;
        for piece in pack.chunks(100_000) {
            received.write(piece).await?;
        }
        self.repositories.keep_base(self.project, tip, &mut received).await
    }

    /// Sends all of `commit`'s history.
    pub(crate) async fn send_all(&self, repo: &Repo, commit: &str) {
        self.send(commit, &repo.pack(commit, &[]).await).await.unwrap();
    }

    /// Whether `commit` is here with its history.
    pub(crate) async fn has(&self, commit: &str) -> bool {
        let asked = [commit.to_owned()];
        self.repositories.has_commits(self.project, &asked).await.unwrap() == asked
    }

    /// Makes refs, all at `target`.
    pub(crate) async fn make_refs(&self, names: Vec<String>, target: &str) {
        let (project, target) = (self.project, target.to_owned());
        let made = self.store.write(move |conn| {
            Box::pin(async move {
                refs::raise_revision(conn, project).await?;
                for name in &names {
                    refs::move_ref(conn, project, name, None, &target).await?;
                }
                Ok::<_, GitError>(())
            })
        });
        made.await.unwrap();
    }

    /// What is half-done: nothing, when a call has returned.
    pub(crate) fn half_done(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data.path().join("tmp/git")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "home").collect()
    }
}

pub(crate) fn request() -> Request {
    Request { id: RequestId::fresh(), method: "test", digest: [0; 32] }
}

pub(crate) fn no_labels() -> BTreeMap<String, String> {
    BTreeMap::new()
}

//! Why git work was not done.

use std::path::{Path, PathBuf};

use sculpt_proto::id::{ProjectId, TaskId};

use super::child::ChildError;
use crate::{
    blobs::BlobError,
    dispatch::DispatchError,
    store::{StoreError, packs::PackError, refs::RefError},
};

/// Why git work was not done. Nothing half-done stays after any of these.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Unknown or removed.
    #[error("there is no project {0}")]
    NoProject(ProjectId),
    /// The task works in an empty directory.
    #[error("task {0} has no repository, so there are no commits to compare")]
    NoRepository(TaskId),
    /// Nothing to show.
    #[error("the task has published no commits, so there is nothing to compare with its base")]
    NothingPublished(TaskId),
    /// 64 digits.
    #[error("{0} is a SHA-256 commit; only SHA-1 repositories are supported for now")]
    Sha256(String),
    /// Neither 40 nor 64 hexadecimal digits.
    #[error("{0:?} is not a full commit id")]
    NotAnId(String),
    /// It names a tree, a blob or a tag.
    #[error("{0} is not a commit")]
    NotACommit(String),
    /// The pack is damaged, or git refuses what is in it.
    #[error("the pack was refused: {reason}")]
    BadPack {
        /// What git said.
        reason: String,
    },
    /// Objects are missing.
    #[error(
        "{commit} is not complete: {reason}; send it again with all objects that the controller lacks \
             (from a shallow clone run `git fetch --unshallow` first)"
    )]
    Incomplete {
        /// The commit that was to be complete.
        commit: String,
        /// What git said.
        reason: String,
    },
    /// Over the limit.
    #[error("the pack is larger than the {limit} bytes that this controller takes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// Not a name that a ref may have.
    #[error("{0:?} cannot be the name of a ref")]
    BadName(String),
    /// Somebody else moved the task's branch.
    #[error("{branch} stands at {actual}, which no attempt of this task has published; it is left alone")]
    ForeignBranch {
        /// The ref.
        branch: String,
        /// Where it stands.
        actual: String,
    },
    /// A newer session speaks for this executor.
    #[error("a newer session of the executor has taken over; this one can publish no more")]
    Superseded,
    /// Fenced, or the state does not fit.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// A ref is not where it was.
    #[error(transparent)]
    Ref(#[from] RefError),
    /// A pack's row was not written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store did not do it.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The git program did not do it.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The cache cannot be read.
    #[error("read the repository")]
    Read(#[from] git2::Error),
    /// A file or directory cannot be used.
    #[error("{action} {}", path.display())]
    Files {
        /// A verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A stored pack is not what its row says.
    #[error("the blob {blob} does not hold the pack that its row names")]
    Damaged {
        /// Its name.
        blob: String,
    },
}

impl GitError {
    /// For `map_err`: `action` on `path` failed.
    pub(super) fn files(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Files { action, path, source }
    }
}

/// A full SHA-1 commit id.
pub(super) fn sha1(commit: &str) -> Result<(), GitError> {
    let hex = commit.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match commit.len() {
        40 if hex => Ok(()),
        64 if hex => Err(GitError::Sha256(commit.to_owned())),
        _ => Err(GitError::NotAnId(commit.to_owned())),
    }
}

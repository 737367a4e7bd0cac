//! The user's repository: inspected with git2, packed and fetched with the `git` program.

pub(crate) mod branches;
mod credential;
pub(crate) mod pack;
pub(crate) mod program;
pub(crate) mod project;
pub(crate) mod remote;
pub(crate) mod repository;
pub(crate) mod snapshot;

use std::path::PathBuf;

/// A commit id; the type does not leave its module under its library's name.
pub(crate) use git2::Oid as CommitId;

use crate::{exit::Exit, failure::Failure};

/// What can be wrong with a repository, or with running git on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("{0} is not in a git repository")]
    NoRepository(PathBuf),
    #[error("{}: {source}", path.display())]
    NoDirectory { path: PathBuf, source: std::io::Error },
    #[error("the repository {0} has no commit yet")]
    Empty(PathBuf),
    #[error("{0:?} names no commit of this repository")]
    UnknownBase(String),
    #[error("this clone is shallow: it lacks the history before commit {0}, so the commit cannot be sent")]
    Shallow(String),
    #[error("{0}")]
    Library(#[from] git2::Error),
    #[error("`git {doing}` {outcome}{detail}")]
    Program { doing: String, outcome: String, detail: String },
    #[error("`git` cannot be started: {0}")]
    NoProgram(std::io::Error),
    #[error("{doing}: {source}")]
    File { doing: &'static str, source: std::io::Error },
}

impl GitError {
    /// The failure of a command that wanted `attempted`, with what to do next.
    pub(crate) fn failure(&self, attempted: &str) -> Failure {
        let failure = |exit| Failure::new(exit, attempted, self.to_string());
        match self {
            Self::NoRepository(_) => failure(Exit::BadInput).next("go to a repository"),
            Self::NoDirectory { .. } => failure(Exit::BadInput).next("name the directory of a repository"),
            Self::Empty(_) => failure(Exit::BadInput).next("commit something first"),
            Self::UnknownBase(_) => failure(Exit::BadInput)
                .next("`git branch -a` and `git log` show what there is; fetch it first if it is elsewhere"),
            Self::Shallow(_) => failure(Exit::BadInput).next("git fetch --unshallow"),
            Self::NoProgram(_) => failure(Exit::Failed).next("install git 2.30 or newer"),
            Self::Library(error) if error.code() == git2::ErrorCode::Owner => failure(Exit::NotAllowed)
                .next("git config --global --add safe.directory DIRECTORY, if you trust what is in it"),
            Self::Library(_) | Self::Program { .. } | Self::File { .. } => failure(Exit::Failed),
        }
    }
}

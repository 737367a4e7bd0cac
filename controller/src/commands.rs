//! What the program does besides serving; for its host's administrator.

mod admin;
mod authority;
mod reach;

use std::path::PathBuf;

pub use self::{
    admin::AdminArgs,
    authority::AuthorityArgs,
    reach::{ReachError, Reached},
};
use crate::{
    access::FirstError,
    config::ConfigError,
    pki::{AuthorityError, SshError},
    store::StoreError,
};

/// What a command has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What was asked for.
    pub answer: String,
    /// For people, beside it.
    pub note: String,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Where the controller stands.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A command that changes nothing makes nothing either.
    #[error("there is no authority in {}; the controller makes it at its first start", .0.display())]
    None(PathBuf),
    /// What is there.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authorities of SSH.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Its database.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The admin.
    #[error("cannot make an admin: {0}")]
    Admin(#[from] FirstError),
    /// Who needs the authority.
    #[error("cannot see who still needs the previous authority ({0}); --force retires it all the same")]
    Unseen(#[source] Box<Self>),
    /// The database.
    #[error("cannot ask the database: {0}")]
    Store(#[from] StoreError),
    /// Some would be strangers.
    #[error(
        "the previous authority has certified executors that have not renewed since, and would have to join again: {0}; \
         wait until they have, or retire it all the same with --force"
    )]
    Needed(String),
}

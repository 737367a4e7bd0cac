//! What the program does besides serving; for its host's administrator.

mod admin;
mod authority;
mod reach;

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

pub use self::{
    admin::AdminArgs,
    authority::AuthorityArgs,
    reach::{ReachError, Reached},
};
use crate::{
    access::FirstError,
    config::{ConfigError, Place},
    pki::{AuthorityError, SshError, VouchError},
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
    /// What would be made here its owner could not read.
    #[error(
        "{} belongs to the account with uid {owner}, and this runs as uid {own}: what it makes the controller could not read. \
         Run it as that account, as by `sudo -u '#{owner}'`", path.display()
    )]
    Account {
        /// A directory of the controller.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the command.
        own: u32,
    },
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
    /// Who knows the next authority.
    #[error("cannot see who knows the next authority ({0}); --force activates it all the same")]
    Untellable(#[source] Box<Self>),
    /// The database.
    #[error("cannot ask the database: {0}")]
    Store(#[from] StoreError),
    /// Some would not believe the controller any more.
    #[error(
        "the present authority cannot vouch for the next one: {why}. So executors that have not learnt of that one yet would \
         not believe this controller any more, and would have to join again: {names}. Try again when they have, remove those \
         that do not come back (`sculpt executor rm`), or activate it all the same with --force"
    )]
    Untold {
        /// Who has not.
        names: String,
        /// Why it cannot.
        why: VouchError,
    },
    /// Some would be strangers.
    #[error(
        "the previous authority has certified executors that have not renewed since, and would have to join again: {0}; \
         wait until they have, or retire it all the same with --force"
    )]
    Needed(String),
}

/// Refuses to make files beside a controller of another account.
fn of_this_account(place: &Place) -> Result<(), CommandError> {
    let own = rustix::process::geteuid().as_raw();
    for path in [&place.data_dir, &place.authority] {
        // What is not there is said by who looks for it.
        if let Ok(owner) = fs::metadata(path).map(|found| found.uid())
            && owner != own
        {
            return Err(CommandError::Account { path: path.clone(), owner, own });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseSetting;

    #[test]
    fn what_belongs_to_another_account_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |path: &std::path::Path| Place {
            data_dir: path.to_owned(),
            authority: path.join("authority"),
            database: DatabaseSetting::BuiltIn,
        };
        of_this_account(&place(directory.path())).expect("it is ours");
        of_this_account(&place(&directory.path().join("none"))).expect("there is nothing");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(12_345), None).expect("it is given away");
            let error = of_this_account(&place(directory.path())).expect_err("it is another's").to_string();
            assert!(error.contains("uid 12345") && error.contains("sudo -u '#12345'"), "{error}");
        }
    }
}

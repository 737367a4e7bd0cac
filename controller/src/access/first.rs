//! The first admin: who has the controller's host.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use sculpt_tls::{
    Kind, Pin, Token,
    private::{self, PrivateError},
};

use crate::store::{Store, users::UserError};

/// Why there is no first admin.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The file of the token.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// Its directory, or its removal.
    #[error("cannot {what} {path}: {source}")]
    Path {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
}

/// Makes `account` an admin, known by the token in `path`, unless there was a user before. The token is on the disk before
/// it is good for anything; one that is good for nothing does not stay there.
pub async fn first_admin(store: &Store, path: &Path, pin: Option<Pin>, account: &str) -> Result<(), FirstError> {
    let failed = |what| move |source| FirstError::Path { what, path: path.display().to_string(), source };
    // What stood there before people had identities is no token.
    let kept = private::read(path)?.and_then(|text| Token::parse(&text, Kind::User).ok());
    let fresh = kept.is_none();
    let token = kept.unwrap_or_else(|| Token::fresh(Kind::User, pin));
    if fresh {
        make_directory(path)?;
        private::write(path, &format!("{}\n", token.reveal()))?;
    }
    let name = user_name(account);
    if store.ensure_first_admin(&name, token.secret.digest()).await? {
        tracing::info!(name, "made the first admin");
    } else if fresh || store.bearer(&token.secret.digest()).await.map_err(UserError::from)?.is_none() {
        // One that was kept is from a start that ended in between.
        fs::remove_file(path).map_err(failed("remove"))?;
    }
    Ok(())
}

/// Makes `name` an admin who is known by a fresh token and by no other; kept in `path` if there is one. For who has the
/// controller's host, when nobody else can do it any more.
pub async fn reset_admin(store: &Store, path: Option<&Path>, pin: Pin, name: &str) -> Result<Token, FirstError> {
    let token = Token::fresh(Kind::User, Some(pin));
    let Some(path) = path else {
        store.reset_admin(name, token.secret.digest()).await?;
        return Ok(token);
    };
    // On the disk before it is good for anything, beside the one that may be good until then.
    let fresh = path.with_extension("reset");
    make_directory(path)?;
    private::write(&fresh, &format!("{}\n", token.reveal()))?;
    if let Err(error) = store.reset_admin(name, token.secret.digest()).await {
        private::remove(&fresh)?;
        return Err(error.into());
    }
    private::rename(&fresh, path)?;
    Ok(token)
}

fn make_directory(path: &Path) -> Result<(), FirstError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|source| FirstError::Path { what: "make the directory of", path: path.display().to_string(), source })
}

/// `account` as a user's name.
pub fn user_name(account: &str) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "._@+-".contains(c) { c } else { '-' };
    let name: String = account.to_ascii_lowercase().chars().map(plain).take(64).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    match name {
        // The record calls others so.
        "" | "host" | "controller" => "admin".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::user_name;

    #[test]
    fn accounts_become_names() {
        for (account, name) in [
            ("root", "root"),
            ("Ada Lovelace", "ada-lovelace"),
            ("_www", "www"),
            ("1000", "1000"),
            ("ü", "admin"),
            ("Host", "admin"),
            ("_controller", "admin"),
        ] {
            assert_eq!(user_name(account), name);
        }
    }
}

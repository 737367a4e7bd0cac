//! The token of the first admin, who has the controller's host.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use sculpt_tls::{
    Kind, Pin, Token,
    private::{self, PrivateError},
};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The file.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// Its directory.
    #[error("cannot make the directory of {path}: {source}")]
    Directory {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The token in `path`. One is made where there is none, or what was a token before people had identities.
pub fn first_token(path: &Path, pin: Option<Pin>) -> Result<Token, FirstError> {
    let kept = private::read(path)?.and_then(|text| Token::parse(&text, Kind::User).ok());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    if let Some(parent) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|source| FirstError::Directory { path: path.display().to_string(), source })?;
    }
    let token = Token::fresh(Kind::User, pin);
    private::write(path, &format!("{}\n", token.reveal()))?;
    Ok(token)
}

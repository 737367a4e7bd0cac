//! Tokens in files that only their owner can read.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;

/// Random bytes of a fresh token.
const BYTES: usize = 32;

/// Least characters of a token that somebody else wrote into the file.
const SHORTEST: usize = 32;

/// A secret that a caller shows.
#[derive(Clone)]
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Others can read it.
    #[error(
        "{} can be read by others, so its token may be known to them. Run `chmod 600 {}`, or delete it to have a fresh one made",
        .0.display(),
        .0.display()
    )]
    Open(PathBuf),
    /// It holds nothing that is safe.
    #[error("{} does not hold a token of at least {SHORTEST} characters; delete it to have a fresh one made", .0.display())]
    Weak(PathBuf),
    /// It could not be read or made.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Token {
    /// The token in `path`; made when there is none.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let failed = |what| move |source| TokenError::File { what, path: path.to_owned(), source };
        let data = match fs::metadata(path) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::make(path),
            Err(error) => return Err(failed("look at")(error)),
        };
        if data.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::Open(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(failed("read"))?;
        let token = text.trim();
        if token.len() < SHORTEST || token.chars().any(char::is_whitespace) {
            return Err(TokenError::Weak(path.to_owned()));
        }
        Ok(Self(token.to_owned()))
    }

    /// Whether `shown` is it. Takes the same time whatever the difference is.
    pub fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// Writes a fresh one under another name first: a file that is there is whole.
    fn make(path: &Path) -> Result<Self, TokenError> {
        let failed = |what| move |source| TokenError::File { what, path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(failed("make the directory of"))?;
        }
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>());
        let fresh = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed("make"))?;
        writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed("write"))?;
        fs::rename(&fresh, path).map_err(failed("name"))?;
        Ok(Self(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_refused_when_others_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens/user");
        let made = Token::load(&path).expect("it is made");
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.len(), 44, "256 bits in base64url and a line end");
        assert!(Token::load(&path).expect("it is read").is(text.trim()));
        assert!(made.is(text.trim()) && !made.is("") && !made.is(&text.trim()[1..]));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("open it");
        let error = Token::load(&path).expect_err("it is refused").to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }

    #[test]
    fn a_short_one_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("user");
        fs::write(&path, "secret\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("close it");
        assert!(matches!(Token::load(&path), Err(TokenError::Weak(_))));
    }
}

//! Tokens: 256 random bits, and the pin of the authority that the other side must prove before it is shown them.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Pin;

/// What a token is for; it stands in its first letters, so that people, and programs that look for lost secrets, know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Lets a person call the controller.
    User,
    /// Lets a machine become an executor.
    Join,
}

impl Kind {
    const ALL: [Self; 2] = [Self::User, Self::Join];

    const fn prefix(self) -> &'static str {
        match self {
            Self::User => "sculpt_user_",
            Self::Join => "sculpt_join_",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user token",
            Self::Join => "join token",
        })
    }
}

/// The part of a token that proves something. Shown to nobody: what is stored is its [`digest`](Self::digest).
#[derive(Clone)]
pub struct Secret([u8; Secret::BYTES]);

impl Secret {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// 256 bits from the system's random source.
    pub fn fresh() -> Self {
        Self(rand::random())
    }

    /// SHA-256 of it. The secret is random and long, so nothing slower protects it better.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl PartialEq for Secret {
    /// Takes the same time whatever the difference is.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A token as people hand it over: `sculpt_user_` or `sculpt_join_`, then in base64url the secret, the pin if there is
/// one, and a checksum that tells a torn paste from a foreign token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is for.
    pub kind: Kind,
    /// What it proves.
    pub secret: Secret,
    /// The authority that the controller must prove; none: its certificate is a public one.
    pub pin: Option<Pin>,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins with none of the prefixes.
    #[error("this is not a token of sculpt, which begins with sculpt_user_ or sculpt_join_")]
    Foreign,
    /// Letters are missing, doubled or wrong.
    #[error("the token is damaged: it was not copied whole, or something was added")]
    Damaged,
    /// A token of the other kind.
    #[error("this is a {found}, and a {wanted} is needed")]
    Kind {
        /// What was given.
        found: Kind,
        /// What was expected.
        wanted: Kind,
    },
}

const CHECKSUM: usize = size_of::<u32>();

impl Token {
    /// A new one.
    pub fn fresh(kind: Kind, pin: Option<Pin>) -> Self {
        Self { kind, secret: Secret::fresh(), pin }
    }

    /// Reads a token of `wanted` kind; space around it is not part of it.
    pub fn parse(text: &str, wanted: Kind) -> Result<Self, TokenError> {
        let token: Self = text.trim().parse()?;
        if token.kind == wanted { Ok(token) } else { Err(TokenError::Kind { found: token.kind, wanted }) }
    }

    /// The text to hand over. Whoever has it, has what it proves.
    pub fn reveal(&self) -> String {
        let mut bytes = self.secret.0.to_vec();
        bytes.extend(self.pin.iter().flat_map(Pin::bytes));
        bytes.extend(checksum(self.kind, &bytes));
        format!("{}{}", self.kind.prefix(), BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (kind, rest) = Kind::ALL
            .iter()
            .find_map(|kind| Some((*kind, text.strip_prefix(kind.prefix())?)))
            .ok_or(TokenError::Foreign)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(rest).map_err(|_| TokenError::Damaged)?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TokenError::Damaged)?;
        if *sum != checksum(kind, content) {
            return Err(TokenError::Damaged);
        }
        let (secret, pin) = content.split_first_chunk::<{ Secret::BYTES }>().ok_or(TokenError::Damaged)?;
        let pin = match pin {
            [] => None,
            pin => Some(Pin::from_bytes(pin.try_into().map_err(|_| TokenError::Damaged)?)),
        };
        Ok(Self { kind, secret: Secret(*secret), pin })
    }
}

fn checksum(kind: Kind, content: &[u8]) -> [u8; CHECKSUM] {
    crc32c::crc32c_append(crc32c::crc32c(kind.prefix().as_bytes()), content).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_token() -> impl Strategy<Value = Token> {
        (prop_oneof![Just(Kind::User), Just(Kind::Join)], any::<[u8; 32]>(), any::<Option<[u8; 32]>>())
            .prop_map(|(kind, secret, pin)| Token { kind, secret: Secret(secret), pin: pin.map(Pin::from_bytes) })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(token in any_token()) {
            let text = format!(" {}\n", token.reveal());
            prop_assert_eq!(Token::parse(&text, token.kind), Ok(token));
        }

        #[test]
        fn a_torn_or_changed_one_is_told_from_a_foreign_one(token in any_token(), at in any::<prop::sample::Index>()) {
            let text = token.reveal();
            let start = token.kind.prefix().len();
            let at = start + at.index(text.len() - start);
            prop_assert_eq!(text[..at].parse::<Token>(), Err(TokenError::Damaged));
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(changed.parse::<Token>(), Err(TokenError::Damaged));
        }
    }

    #[test]
    fn the_other_kind_and_strangers_are_named() {
        let token = Token::fresh(Kind::Join, None);
        let error = Token::parse(&token.reveal(), Kind::User).expect_err("it is for machines");
        assert_eq!(error.to_string(), "this is a join token, and a user token is needed");
        for stranger in ["", "ghp_abc", "sculpt_", "SCULPT_USER_AAAA"] {
            assert_eq!(stranger.parse::<Token>(), Err(TokenError::Foreign), "{stranger}");
        }
    }

    #[test]
    fn nothing_but_reveal_shows_it() {
        let token = Token::fresh(Kind::User, Some(Pin::from_bytes([7; 32])));
        let shown = format!("{token:?}");
        let inside = BASE64_URL_SAFE_NO_PAD.encode(token.secret.0);
        assert!(!shown.contains(&inside[..16]), "{shown}");
        assert_ne!(Token::fresh(Kind::User, None).secret, token.secret);
    }
}

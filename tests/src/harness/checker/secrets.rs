//! I6: no secret in database, spool, logs, or what everybody sees of a process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use memchr::memmem;

use super::Facts;

/// What stands before the secret number in a private key on the curve P-256: its version, and that 32 bytes follow.
const BEFORE_NUMBER: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

/// What stands before the seed of a key on the curve Ed25519 in OpenSSH's form: that 64 bytes follow, the seed and the public
/// half.
const BEFORE_SEED: [u8; 4] = [0, 0, 0, 64];

/// Bytes of the secret of a token, of the secret number of a key, and of a seed.
const SECRET: usize = 32;

/// Something that must not be read by whoever reads backups, journals or logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// For messages, which must not repeat it.
    pub name: String,
    /// The ways in which it can be written: as it is handed over, and the bytes that it stands for.
    forms: Vec<Vec<u8>>,
    /// Whether a task's spec holds it by its nature: a variable of its environment.
    of_a_spec: bool,
    /// The one file that is there to hold it.
    pub home: Option<PathBuf>,
}

impl Secret {
    /// The value of a variable of a task.
    pub fn variable(name: impl Into<String>, value: &str) -> Self {
        Self { name: name.into(), forms: vec![value.as_bytes().to_vec()], of_a_spec: true, home: None }
    }

    /// A token, also without what it begins with.
    pub fn token(name: impl Into<String>, text: &str) -> Result<Self> {
        // `sculpt_user_…`; what follows may have more of these strokes.
        let encoded = text.trim().splitn(3, '_').nth(2).context("a token begins with its kind")?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).context("read a token")?;
        let secret = bytes.get(..SECRET).context("a token holds a secret")?.to_vec();
        // What follows the secret in it is known to everybody.
        let known = encoded.get(..SECRET * 4 / 3).context("a token holds a secret")?.as_bytes().to_vec();
        Ok(Self { name: name.into(), forms: vec![known, secret], of_a_spec: false, home: None })
    }

    /// The same, which `file` is there to hold.
    pub fn at_home(self, file: PathBuf) -> Self {
        Self { home: Some(file), ..self }
    }

    /// The private key in `file`; none when there is no such file.
    pub fn key(file: &Path) -> Result<Option<Self>> {
        let Ok(pem) = fs::read_to_string(file) else { return Ok(None) };
        let name = format!("the private key of {}", file.display());
        let lines: Vec<&str> = pem
            .lines()
            .skip_while(|line| !line.contains("PRIVATE KEY"))
            .skip(1)
            .take_while(|line| !line.starts_with("-----"))
            .collect();
        let bytes = BASE64_STANDARD.decode(lines.concat()).with_context(|| format!("read {name}"))?;
        let before: &[u8] = if pem.contains("OPENSSH") { &BEFORE_SEED } else { &BEFORE_NUMBER };
        let missing = || format!("find the secret of {name}");
        let at = memmem::find(&bytes, before).with_context(missing)? + before.len();
        let secret = bytes.get(at..at + SECRET).with_context(missing)?.to_vec();
        // Other lines may hold nothing that is not known to everybody.
        let middle = (at + SECRET / 2) * 4 / 3;
        let line = lines.first().and_then(|first| lines.get(middle / first.len())).with_context(missing)?;
        let forms = vec![line.as_bytes().to_vec(), secret];
        Ok(Some(Self { name, forms, of_a_spec: false, home: Some(file.to_owned()) }))
    }

    /// Whether `content` holds it: as it is, or as Postgres dumps bytes.
    fn is_in(&self, content: &[u8]) -> bool {
        self.forms.iter().filter(|form| !form.is_empty()).any(|form| {
            let hexadecimal: String = form.iter().map(|byte| format!("{byte:02x}")).collect();
            memmem::find(content, form).is_some() || memmem::find(content, hexadecimal.as_bytes()).is_some()
        })
    }
}

/// A text that was searched, and which secrets it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// A table, a file, or a part of a process, for messages.
    pub place: String,
    /// Whether specs stand here by their nature.
    pub holds_specs: bool,
    /// The secrets that were found in it.
    pub found: Vec<Secret>,
}

impl Text {
    /// Searches `content` for `secrets`.
    pub fn search(place: impl Into<String>, holds_specs: bool, content: &[u8], secrets: &[Secret]) -> Self {
        let found = secrets.iter().filter(|secret| secret.is_in(content)).cloned().collect();
        Self { place: place.into(), holds_specs, found }
    }
}

/// Secrets where they must not be.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for text in &facts.texts {
        for secret in text.found.iter().filter(|secret| !(secret.of_a_spec && text.holds_specs)) {
            wrong.push(format!("{} holds {}", text.place, secret.name));
        }
    }
    wrong
}

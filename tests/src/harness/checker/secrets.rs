//! I6: no secret in database, spool or logs.

use super::Facts;

/// Something that must not be read by whoever reads backups, journals or logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// For messages, which must not repeat it.
    pub name: String,
    /// The secret itself.
    pub value: String,
    /// Whether a task's spec holds it by its nature: a variable of its environment.
    pub of_a_spec: bool,
}

/// A text that was searched, and which secrets it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// A table or file, for messages.
    pub place: String,
    /// Whether specs stand here by their nature.
    pub holds_specs: bool,
    /// The secrets that were found in it.
    pub found: Vec<Secret>,
}

impl Text {
    /// Searches `content` for `secrets`: as they are, and as Postgres dumps bytes.
    pub fn search(place: impl Into<String>, holds_specs: bool, content: &[u8], secrets: &[Secret]) -> Self {
        let holds = |needle: &[u8]| content.windows(needle.len().max(1)).any(|part| part == needle);
        let found = secrets.iter().filter(|secret| {
            let hexadecimal: String = secret.value.bytes().map(|byte| format!("{byte:02x}")).collect();
            !secret.value.is_empty() && (holds(secret.value.as_bytes()) || holds(hexadecimal.as_bytes()))
        });
        Self { place: place.into(), holds_specs, found: found.cloned().collect() }
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

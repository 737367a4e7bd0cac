//! Rows that people name by the beginning of their uuid.

use uuid::Uuid;

/// Shortest beginning of a uuid that names anything.
pub(super) const SHORTEST: usize = 4;

/// The first and the last uuid that begin with `prefix`; nothing when none does.
pub(super) fn uuids(prefix: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = prefix.chars().filter(|c| *c != '-').collect();
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || digits.len() < SHORTEST || digits.len() > 32 {
        return None;
    }
    let from = Uuid::parse_str(&format!("{digits:0<32}")).ok()?;
    let to = Uuid::parse_str(&format!("{digits:f<32}")).ok()?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::uuids;

    #[test]
    fn prefixes_span_uuids() {
        let (from, to) = uuids("0199-AB").expect("a prefix");
        assert_eq!(from.to_string(), "0199ab00-0000-0000-0000-000000000000");
        assert_eq!(to.to_string(), "0199abff-ffff-ffff-ffff-ffffffffffff");
        let whole = "0199ab00-0000-7000-8000-00000000000f";
        assert_eq!(uuids(whole).map(|(from, to)| (from.to_string(), from == to)), Some((whole.to_owned(), true)));
        assert_eq!(uuids("019"), None, "too short");
        assert_eq!(uuids("01xz"), None, "not hexadecimal");
    }
}

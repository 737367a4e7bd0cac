//! PURE: bytes of a stream as text.

/// Bytes that may be cut anywhere, also inside a character.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The beginning of a character: at most three bytes.
    begun: Vec<u8>,
}

impl Text {
    /// What is text of these bytes and of those before them; what cannot be is replaced.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let rest = chunk.invalid();
            let may_go_on = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
            if may_go_on && chunks.peek().is_none() {
                self.begun = rest.to_vec();
            } else if !rest.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when nothing follows.
    pub(crate) fn end(self) -> String {
        String::from_utf8_lossy(&self.begun).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_borders_of_pieces_do_not_matter() {
        for bytes in [
            "plain".as_bytes(),
            "äöü ✓ 👩\u{200d}💻".as_bytes(),
            b"a\xffb\xc3\xc3\xa4\xe2\x9c",
            b"\xf0\x9f\x91",
            b"\xed\xa0\x80 \xf8\x88 \xc0\x80",
            "✓".repeat(100).as_bytes(),
        ] {
            let expected = String::from_utf8_lossy(bytes);
            for step in 1..=bytes.len() {
                let mut text = Text::default();
                let mut taken: String = bytes.chunks(step).map(|piece| text.take(piece)).collect();
                assert!(text.begun.len() < 4);
                taken.push_str(&text.end());
                assert_eq!(taken, expected, "{bytes:02x?} by {step}");
            }
        }
    }
}

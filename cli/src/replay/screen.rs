//! PURE: the screen that was printed on.

use std::borrow::Cow;

use sculpt_proto::v1::{LogSize, LogStream};

/// What executors give a terminal before anybody looks at it, for recordings that do not say.
const TERMINAL: (u16, u16) = (200, 50);

/// For what was printed on none.
const NO_TERMINAL: (u16, u16) = (80, 24);

/// Columns and rows that a recording names.
pub(crate) fn cells(size: LogSize) -> (u16, u16) {
    let side = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX).max(1);
    (side(size.columns), side(size.rows))
}

/// Columns and rows where a recording names none.
pub(crate) fn unknown(stream: LogStream) -> (u16, u16) {
    match stream {
        LogStream::Terminal => TERMINAL,
        LogStream::Stdout | LogStream::Stderr | LogStream::Unspecified => NO_TERMINAL,
    }
}

/// What a terminal gets to see: who prints on none ends lines as files have them, and leaves it to the terminal to go back
/// to the left.
pub(crate) fn printed(stream: LogStream, bytes: &[u8]) -> Cow<'_, [u8]> {
    match stream {
        LogStream::Terminal | LogStream::Unspecified => Cow::Borrowed(bytes),
        LogStream::Stdout | LogStream::Stderr => {
            let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
            let mut printed = Vec::with_capacity(bytes.len() + ends);
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                match line.split_last() {
                    Some((b'\n', text)) => {
                        printed.extend_from_slice(text);
                        printed.extend_from_slice(b"\r\n");
                    }
                    Some(_) | None => printed.extend_from_slice(line),
                }
            }
            Cow::Owned(printed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_had_no_terminal_gets_its_line_ends() {
        for (stream, bytes, expected) in [
            (LogStream::Terminal, &b"a\nb\r\n"[..], &b"a\nb\r\n"[..]),
            (LogStream::Stdout, b"a\nb", b"a\r\nb"),
            (LogStream::Stderr, b"\n\n", b"\r\n\r\n"),
            (LogStream::Stderr, b"\xff", b"\xff"),
            (LogStream::Stdout, b"", b""),
        ] {
            assert_eq!(printed(stream, bytes), expected, "{stream:?} {bytes:?}");
        }
    }

    #[test]
    fn a_screen_has_cells() {
        for (columns, rows, expected) in [(200, 50, (200, 50)), (0, 0, (1, 1)), (70_000, 3, (65_535, 3))] {
            assert_eq!(cells(LogSize { columns, rows }), expected);
        }
    }
}

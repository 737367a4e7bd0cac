//! An agent's terminal bytes on a person's terminal, or as plain text.
//!
//! Log bytes are data. Shown on a terminal they must not make it *answer* (the answer would be typed into the user's
//! shell), nor set the clipboard, nor leave it in a mode in which it sends reports. The bytes are parsed, and only what
//! is known to be harmless is written again in canonical form, so that no difference between two parsers lets a
//! sequence through.

use vte::{Params, Parser, Perform};

/// Bytes in a row from which nothing is shown before an unterminated sequence is given up.
const LONGEST_SILENCE: usize = 1 << 20;

/// What is left of the control sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Printable text, line ends and tabs.
    Text,
    /// Everything that neither asks the terminal nor makes it send reports.
    Harmless,
}

/// A filter for one log; sequences may be cut anywhere between two pieces.
pub struct Screen {
    parser: Parser,
    writer: Writer,
    silence: usize,
}

impl Screen {
    /// Strips every control sequence.
    pub fn plain() -> Self {
        Self::new(Keep::Text)
    }

    /// Keeps colours, movement and titles; strips what asks.
    pub fn terminal() -> Self {
        Self::new(Keep::Harmless)
    }

    fn new(keep: Keep) -> Self {
        let writer = Writer { keep, out: Vec::new(), heard: false, modes: Modes::default(), carriage: false };
        Self { parser: Parser::new(), writer, silence: 0 }
    }

    /// What may be shown of the next piece of the log.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        for piece in bytes.chunks(4096) {
            self.writer.heard = false;
            self.parser.advance(&mut self.writer, piece);
            self.silence = if self.writer.heard { 0 } else { self.silence + piece.len() };
            if self.silence > LONGEST_SILENCE {
                self.parser = Parser::new();
                self.silence = 0;
            }
        }
        std::mem::take(&mut self.writer.out)
    }

    /// What puts the terminal back into the state that a shell expects.
    pub fn restore(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.writer.keep == Keep::Harmless {
            let modes = std::mem::take(&mut self.writer.modes);
            for (touched, sequence) in [
                (modes.alternate, "\x1b[?1049l"),
                (modes.cursor_hidden, "\x1b[?25h"),
                (modes.scrolled, "\x1b[r"),
                (modes.charset, "\x1b(B\x0f"),
                (modes.keys, "\x1b[?1l\x1b>"),
                (modes.styled, "\x1b[0m"),
            ] {
                if touched {
                    out.extend_from_slice(sequence.as_bytes());
                }
            }
        }
        out
    }
}

/// What the log did to the terminal and did not undo.
#[derive(Default)]
struct Modes {
    alternate: bool,
    cursor_hidden: bool,
    scrolled: bool,
    charset: bool,
    keys: bool,
    styled: bool,
}

struct Writer {
    keep: Keep,
    out: Vec<u8>,
    /// A callback came since this was last cleared.
    heard: bool,
    modes: Modes,
    /// In plain text a carriage return counts only before a line end.
    carriage: bool,
}

impl Writer {
    fn end_carriage(&mut self) {
        if std::mem::take(&mut self.carriage) {
            self.out.push(b'\n');
        }
    }
}

impl Perform for Writer {
    fn print(&mut self, c: char) {
        self.heard = true;
        // A C1 control in two bytes is a control: some terminals obey it. Deletion is none that shows.
        if ('\u{7f}'..='\u{9f}').contains(&c) {
            return;
        }
        self.end_carriage();
        self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn execute(&mut self, byte: u8) {
        self.heard = true;
        match (self.keep, byte) {
            (Keep::Text, b'\r') => self.carriage = true,
            (Keep::Text, b'\n') => {
                self.carriage = false;
                self.out.push(b'\n');
            }
            (Keep::Text, b'\t') => {
                self.end_carriage();
                self.out.push(b'\t');
            }
            (Keep::Text, _) => {}
            // ENQ (5) asks; C1 controls (0x80 and above) come only from two-byte forms and are not needed.
            (Keep::Harmless, 0x07..=0x0f) => {
                self.modes.charset |= byte == 0x0e;
                self.out.push(byte);
            }
            (Keep::Harmless, _) => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.heard = true;
        if self.keep == Keep::Text || ignore {
            return;
        }
        if let Some(sequence) = harmless_csi(params, intermediates, action, &mut self.modes) {
            self.out.extend_from_slice(sequence.as_bytes());
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        self.heard = true;
        if self.keep == Keep::Text || ignore {
            return;
        }
        match (intermediates, byte) {
            // Save, restore, index, next line, tab stop, reverse index, keypad, reset.
            ([], b'7' | b'8' | b'D' | b'E' | b'H' | b'M' | b'=' | b'>' | b'c') => {
                self.modes.keys |= byte == b'=';
                self.out.extend_from_slice(&[0x1b, byte]);
            }
            ([set @ (b'(' | b')' | b'*' | b'+')], b'0' | b'A' | b'B') => {
                self.modes.charset = true;
                self.out.extend_from_slice(&[0x1b, *set, byte]);
            }
            ([b'#'], b'8') => self.out.extend_from_slice(b"\x1b#8"),
            // ESC Z asks what the terminal is.
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        self.heard = true;
        if self.keep == Keep::Text {
            return;
        }
        // Titles and links only: 52 is the clipboard, 4, 10 and 11 ask for colours.
        let kind = params.first().copied().unwrap_or_default();
        let body = params.get(1..).unwrap_or_default();
        if matches!(kind, b"0" | b"1" | b"2" | b"8") && body.iter().all(|part| legible(part)) {
            self.out.extend_from_slice(b"\x1b]");
            self.out.extend_from_slice(kind);
            for part in body {
                self.out.push(b';');
                self.out.extend_from_slice(part);
            }
            self.out.extend_from_slice(b"\x1b\\");
        }
    }

    fn hook(&mut self, _params: &Params, _intermediates: &[u8], _ignore: bool, _action: char) {
        self.heard = true;
    }

    fn put(&mut self, _byte: u8) {
        self.heard = true;
    }

    fn unhook(&mut self) {
        self.heard = true;
    }
}

/// Whether a terminal takes it as text. A C1 control in it would end the string, and the rest would be obeyed.
fn legible(part: &[u8]) -> bool {
    std::str::from_utf8(part).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// The sequence in canonical form, unless it asks the terminal or makes it send reports.
fn harmless_csi(params: &Params, intermediates: &[u8], action: char, modes: &mut Modes) -> Option<String> {
    let prefix = match (intermediates, action) {
        // Movement, erasing, inserting, scrolling, tabs, repetition, margins, style; save and restore.
        ([], '@' | 'A'..='M' | 'P' | 'S' | 'T' | 'X' | 'Z' | '`' | 'a' | 'b' | 'd'..='g' | 'r' | 's' | 'u') => "",
        ([], 'm') => {
            modes.styled = true;
            ""
        }
        // Insert mode; the other modes of this kind lock or echo the keyboard.
        ([], 'h' | 'l') if params.iter().all(|group| group == [4]) => "",
        ([b'?'], 'h' | 'l') => return private_modes(params, action, modes),
        // Selective erase, and the shape of the cursor.
        ([b'?'], 'J' | 'K') => "?",
        ([b' '], 'q') => return Some(format!("\x1b[{} q", joined(params))),
        ([b'!'], 'p') => return Some("\x1b[!p".to_owned()),
        _ => return None,
    };
    modes.scrolled |= action == 'r';
    Some(format!("\x1b[{prefix}{}{action}", joined(params)))
}

/// Private modes that change what is shown, not what is sent.
fn private_modes(params: &Params, action: char, modes: &mut Modes) -> Option<String> {
    let set = action == 'h';
    let mut kept = Vec::new();
    for param in params.iter() {
        let mode = param.first().copied().unwrap_or_default();
        match mode {
            47 | 1047 | 1049 => modes.alternate = set,
            25 => modes.cursor_hidden = !set,
            1 => modes.keys |= set,
            // Screen, origin, wrap, blinking cursor, margins, saved cursor, synchronised output.
            3 | 5 | 6 | 7 | 12 | 45 | 69 | 1048 | 2026 => {}
            // Mouse, focus, paste and size reports make the terminal send bytes.
            _ => continue,
        }
        kept.push(mode.to_string());
    }
    (!kept.is_empty()).then(|| format!("\x1b[?{}{action}", kept.join(";")))
}

fn joined(params: &Params) -> String {
    let join = |group: &[u16]| group.iter().map(u16::to_string).collect::<Vec<_>>().join(":");
    params.iter().map(join).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> Vec<u8> {
        let whole = Screen::terminal().feed(bytes);
        let mut cut = Screen::terminal();
        let piecewise: Vec<u8> = bytes.iter().flat_map(|byte| cut.feed(&[*byte])).collect();
        assert_eq!(whole, piecewise, "the borders of pieces must not matter");
        whole
    }

    #[test]
    fn sequences_that_ask_are_stripped() {
        for asking in [
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?996n",
            "\x1b[18t",
            "\x1b[21t",
            "\x1b[?25$p",
            "\x1b[x",
            "\x1b[>q",
            "\x1b[?u",
            "\x1b[>1u",
            "\x1bZ",
            "\x05",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b]10;?\x07",
            "\x1b]11;?\x1b\\",
            "\x1b]4;1;?\x07",
            "\x1b]52;c;?\x07",
            "\x1b]52;c;aGk=\x07",
            "\x1b]0;title\u{9c}\u{9b}6n\x07",
            "\x1b_Gi=1,a=q;AAAA\x1b\\",
            "\x1b[?1000h",
            "\x1b[?1004h",
            "\x1b[?2004h",
            "\x1b[>4;2m",
        ] {
            assert_eq!(shown(format!("a{asking}b").as_bytes()), b"ab", "{asking:?}");
        }
        // Without its introducer the rest is text.
        assert_eq!(shown("a\u{9b}6nb".as_bytes()), b"a6nb");
        assert_eq!(shown(b"a\x7fb"), b"ab");
    }

    #[test]
    fn what_shows_passes() {
        for harmless in [
            "\x1b[1;31mred\x1b[0m",
            "\x1b[38:2:1:2:3m",
            "\x1b[2J",
            "\x1b[10;20H",
            "\x1b[?25l",
            "\x1b]0;title\x1b\\",
            "äöü✓\r\n\t",
            "\x1b(0",
        ] {
            assert_eq!(String::from_utf8(shown(harmless.as_bytes())).unwrap(), harmless);
        }
    }

    #[test]
    fn plain_text_has_no_control_sequences() {
        let mut plain = Screen::plain();
        assert_eq!(plain.feed(b"\x1b[31mred\x1b[0m\r\n\x1b]0;t\x07next\x08\ttab\x1b[2"), b"red\nnext\ttab");
        assert_eq!(plain.feed(b"Kend"), b"end");
    }

    #[test]
    fn a_shell_gets_its_terminal_back() {
        let mut screen = Screen::terminal();
        screen.feed(b"\x1b[?1049h\x1b[?25l\x1b[1mx");
        assert_eq!(screen.restore(), b"\x1b[?1049l\x1b[?25h\x1b[0m");
        assert_eq!(screen.restore(), b"");
    }

    #[test]
    fn an_endless_sequence_is_given_up() {
        let mut screen = Screen::terminal();
        screen.feed(b"\x1b]0;");
        for _ in 0..300 {
            screen.feed(&[b'x'; 4096]);
        }
        assert!(screen.feed(b"seen").ends_with(b"seen"));
    }
}

//! What of a seat's output reaches the person's terminal. The client of tmux runs as the agent's account and on a terminal that
//! this account can write to, so its bytes are not tmux's alone: an agent could ask the person's terminal for what their
//! clipboard holds or what its title is, and the answer would be typed, perhaps into their own shell. The bytes are parsed, and
//! only what tmux needs is written again in canonical form, so that no difference between two parsers lets anything through.

use alacritty_terminal::vte::{Params, Parser, Perform};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::AsyncRead;
use tokio_util::{
    io::{ReaderStream, StreamReader},
    sync::CancellationToken,
};

/// What is read at once.
const CHUNK: usize = 32 * 1024;

/// Bytes in a row that show nothing, before an unterminated sequence is given up.
const LONGEST_SILENCE: usize = 1 << 20;

/// The longest title, in characters.
const LONGEST_TITLE: usize = 256;

/// Where a link may lead: to nothing of the person's own machine, and to no program of theirs but these are for.
const LINKS: [&str; 3] = ["https:", "http:", "mailto:"];

/// What tmux's client says when it is asked to end. To a person who gets up it sounds as if the agent had.
const LAST_WORDS: &str = "[terminated]";

/// The output of a seat's client, as the person gets it. `gets_up` is cancelled before the client is asked to end.
pub(super) fn shown(
    output: Box<dyn AsyncRead + Send + Unpin>,
    gets_up: CancellationToken,
) -> Box<dyn AsyncRead + Send + Unpin> {
    let mut filter = Filter::default();
    let pieces = ReaderStream::with_capacity(output, CHUNK);
    let shown = pieces.map(move |piece| piece.map(|piece| filter.feed(&piece, gets_up.is_cancelled())));
    Box::new(StreamReader::new(shown))
}

/// PURE: takes bytes, cut anywhere, and gives those that are shown.
#[derive(Default)]
struct Filter {
    parser: Parser,
    writer: Writer,
    silence: usize,
}

impl Filter {
    fn feed(&mut self, bytes: &[u8], gets_up: bool) -> Bytes {
        self.writer.gets_up = gets_up;
        for piece in bytes.chunks(4096) {
            self.writer.heard = false;
            self.parser.advance(&mut self.writer, piece);
            self.silence = if self.writer.heard { 0 } else { self.silence + piece.len() };
            if self.silence > LONGEST_SILENCE {
                (self.parser, self.silence) = (Parser::new(), 0);
            }
        }
        std::mem::take(&mut self.writer.out).into()
    }
}

#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    /// Something came to an end since this was last cleared.
    heard: bool,
    gets_up: bool,
    /// How much of the last words was held back: all of them, until their line has ended.
    held: usize,
}

impl Writer {
    fn write(&mut self, sequence: &str) {
        let held = std::mem::take(&mut self.held);
        if held < LAST_WORDS.len() {
            self.out.extend_from_slice(&LAST_WORDS.as_bytes()[..held]);
        }
        self.out.extend_from_slice(sequence.as_bytes());
    }
}

impl Perform for Writer {
    fn print(&mut self, character: char) {
        self.heard = true;
        if self.gets_up && LAST_WORDS[self.held..].starts_with(character) {
            self.held += 1;
        } else if !('\u{7f}'..='\u{9f}').contains(&character) {
            // A control in two bytes is a control to some terminals.
            self.write(character.encode_utf8(&mut [0; 4]));
        }
    }

    /// Of what controls by one byte, 5 asks who the terminal is.
    fn execute(&mut self, byte: u8) {
        self.heard = true;
        if self.held == LAST_WORDS.len() && b"\r\n".contains(&byte) {
            self.held = if byte == b'\n' { 0 } else { self.held };
        } else if (0x07..=0x0f).contains(&byte) {
            self.write(char::from(byte).encode_utf8(&mut [0; 4]));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.heard = true;
        if ignore || !passes(params, intermediates, action) {
            return;
        }
        let groups = params.iter().map(|group| joined(group.iter(), ":"));
        let numbers = joined(groups, ";");
        // As it was most likely written: a number that is left out is 0.
        let numbers = if numbers == "0" { "" } else { &numbers };
        let marks = std::str::from_utf8(intermediates).unwrap_or_default();
        let (before, after) = if marks.starts_with(['?', '>']) { (marks, "") } else { ("", marks) };
        self.write(&format!("\x1b[{before}{numbers}{after}{action}"));
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        self.heard = true;
        // Cursor, lines, tabs, keypad; sets of characters; but not Z, which asks, nor c, which takes all that they had set.
        let shows = match intermediates {
            [] => b"78DEHM=>".contains(&byte),
            [b'(' | b')' | b'*' | b'+'] => b"0AB".contains(&byte),
            [b'#'] => byte == b'8',
            _ => false,
        };
        if shows && !ignore {
            let marks = std::str::from_utf8(intermediates).unwrap_or_default();
            self.write(&format!("\x1b{marks}{}", char::from(byte)));
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        self.heard = true;
        let Ok(parts) = params.iter().map(|part| std::str::from_utf8(part)).collect::<Result<Vec<_>, _>>() else {
            return;
        };
        let Some((kind, body)) = parts.split_first() else { return };
        let legible = !body.iter().any(|part| part.contains(char::is_control));
        // Titles, links, and the colour of the cursor, for which a `?` asks.
        let shows = match *kind {
            "0" | "1" | "2" => legible && body.iter().map(|part| part.chars().count()).sum::<usize>() <= LONGEST_TITLE,
            "8" => legible && matches!(body, [_, link, ..] if leads_out(link)),
            "112" => body.is_empty(),
            "12" => legible && !body.iter().any(|part| part.contains('?')),
            _ => false,
        };
        if shows {
            self.write(&format!("\x1b]{}\x1b\\", parts.join(";")));
        }
    }

    /// Of these strings two pass, between which a terminal shows nothing that is half drawn. They have no body.
    fn hook(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.heard = true;
        let numbers = joined(params.iter().flatten(), ";");
        if !ignore && (intermediates, action) == (b"=", 's') && matches!(&*numbers, "1" | "2") {
            self.write(&format!("\x1bP={numbers}s\x1b\\"));
        }
    }

    fn put(&mut self, _: u8) {
        self.heard = true;
    }

    fn unhook(&mut self) {
        self.heard = true;
    }
}

/// Whether a sequence changes what is shown or how keys are told, or asks only what every terminal of a kind answers alike: tmux
/// has to know which kind it is.
fn passes(params: &Params, intermediates: &[u8], action: char) -> bool {
    let first = params.iter().next().and_then(|group| group.first().copied()).unwrap_or_default();
    match (intermediates, action) {
        ([], '@' | 'A'..='M' | 'P' | 'S' | 'T' | 'X' | 'Z' | '`' | 'a' | 'b' | 'd'..='g' | 'm' | 'r' | 's' | 'u') => {
            true
        }
        // Kinds of terminals.
        ([] | [b'>'], 'c') | ([b'>'], 'q') => true,
        // Inserting, and a cursor of another shape; the other modes of this kind lock or echo the keyboard.
        ([], 'h' | 'l') => params.iter().all(|group| matches!(group, [4 | 34])),
        // A title is put aside and taken back; the others of these ask, or move windows.
        ([], 't') => matches!(first, 22 | 23),
        // Keys, wrapping, cursor, margins, another screen, mouse, focus, pastes, whole pictures; what a terminal is set to beside
        // these is its person's own.
        ([b'?'], 'h' | 'l') => params.iter().all(|group| {
            matches!(group, [1 | 7 | 12 | 25 | 47 | 69 | 1000 | 1002..=1006 | 1047..=1049 | 2004 | 2026 | 7727])
        }),
        ([b'?'], 'J' | 'K' | 'c') => true,
        // How modified keys are told.
        ([b'>'], 'm') => first == 4,
        ([b' '], 'q') | ([b'!'], 'p') => true,
        // A coloured area is filled.
        ([b'$'], 'x') => true,
        _ => false,
    }
}

/// Whether a link is one that may be shown; without any, one ends.
fn leads_out(link: &str) -> bool {
    let begins = |scheme: &&str| link.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    link.is_empty() || LINKS.iter().any(begins)
}

fn joined(parts: impl Iterator<Item = impl ToString>, between: &str) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(bytes: &[u8], gets_up: bool) -> Vec<u8> {
        let whole = Filter::default().feed(bytes, gets_up);
        let mut cut = Filter::default();
        let bytewise: Vec<u8> = bytes.iter().flat_map(|byte| cut.feed(&[*byte], gets_up)).collect();
        assert_eq!(whole, bytewise, "the borders of pieces must not matter");
        bytewise
    }

    #[test]
    fn what_asks_a_terminal_or_takes_something_from_it_is_not_shown() {
        for asking in [
            "\x1b]52;c;?\x07",
            "\x1b]52;c;aGk=\x1b\\",
            "\x1b[21t",
            "\x1b[8;1;1t",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[x",
            "\x1b[1;1;1;1;1;1*y",
            "\x1b[5i",
            "\x1b[?25$p",
            "\x1b[?u",
            "\x1b[2h",
            "\x1b[?4m",
            "\x1b[>1;2m",
            "\x1bZ",
            "\x05",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1bP=3s\x1b\\",
            "\x1bP=1;1s\x1b\\",
            "\x1bP1s\x1b\\",
            "\x1bPq#0~\x1b\\",
            "\x1b[=c",
            "\x1b[1;1;1;1;1;1*x",
            "\x1b[>4n",
            "\x1b[?996n",
            "\x1b]7;file:///home\x07",
            "\x1b]8;;file:///etc/passwd\x1b\\",
            "\x1b]8;;vscode://x\x1b\\",
            "\x1b]8;id=1\x1b\\",
            "\x1b]112;#ff0000\x1b\\",
            "\x1bc",
            "\x1b[?1s",
            "\x1b[?1r",
            "\x1b[?5h",
            "\x1b[?1;3h",
            "\x1b[?2031h",
            "\x1b]11;?\x1b\\",
            "\x1b]4;1;?\x07",
            "\x1b]10;?\x07",
            "\x1b]12;?\x07",
            "\x1b]0;title\u{9c}\u{9b}6n\x07",
            "\x1b_Gi=1,a=q;AAAA\x1b\\",
            "\u{9b}",
        ] {
            assert_eq!(fed(format!("a{asking}b").as_bytes(), false), b"ab", "{asking:?}");
        }
    }

    #[test]
    fn what_tmux_needs_is_shown() {
        for needed in [
            "\x1b[?1049h\x1b[22;0;0t\x1b[?1h\x1b=\x1b[H\x1b[2J\x1b[?12l\x1b[?25h\x1b[?1000l\x1b[?1006l",
            "\x1b[1;30r\x1b[>c\x1b[>q\x1b[c\x1b[?2004h\x1b[?1004h\x1b[>4;2m\x1b[2 q\x1b[34h",
            // Rectangles, margins, and pictures that are shown when they are whole.
            "\x1b[32;1;1;10;40$x\x1b[?69h\x1b[1;40s\x1b[s\x1b[?69l\x1bP=1s\x1b\\\x1bP=2s\x1b\\\x1b[?2026h\x1b[?2026l",
            // Lines of other shapes and colours, above and through; how many times a character is there.
            "\x1b[4:3m\x1b[58:2:1:2:3m\x1b[59m\x1b[53m\x1b[55m\x1b[9m\x1b[29m\x1b[3;1H\x1b[5X\x1b[4b\x1b[>4;1m\x1b[>4m",
            "\x1b[38:2:1:2:3m\x1b[38;5;7m\x1b(B\x1b[m\x1b[K\x1b(0lqk\x0e\x0f\x07",
            "\x1b]0;a title\x1b\\\x1b]12;#ff0000\x1b\\\x1b]112\x1b\\äöü✓\r\n\t",
            "\x1b]8;;http://x\x1b\\\x1b]8;id=1;HTTPS://x/?a;b\x1b\\\x1b]8;;mailto:a@b\x1b\\\x1b]8;;\x1b\\",
            "\x1b[?12;25h\x1b[?1002h\x1b[?1003l\x1b[?1005l\x1b[?7727h\x1b[?7l\x1b7\x1b[?47h\x1b[?1c",
        ] {
            assert_eq!(String::from_utf8(fed(needed.as_bytes(), false)).unwrap(), needed);
        }
    }

    #[test]
    fn a_title_has_an_end() {
        for (length, shown) in [(LONGEST_TITLE, true), (LONGEST_TITLE + 1, false)] {
            let title = format!("\x1b]2;{}\x1b\\", "ü".repeat(length));
            assert_eq!(fed(title.as_bytes(), false) == title.as_bytes(), shown, "{length}");
        }
    }

    #[test]
    fn who_gets_up_does_not_hear_that_something_was_terminated() {
        for (said, gets_up, expected) in [
            ("\x1b[?1049l[terminated]\r\n", true, "\x1b[?1049l"),
            ("\x1b[?1049l[detached (from session main)]\r\n", true, "\x1b[?1049l[detached (from session main)]\r\n"),
            ("[terminated]\r\nx", true, "x"),
            ("[term\r\n[termi", true, "[term\r\n"),
            ("[terminated]\r\n", false, "[terminated]\r\n"),
        ] {
            assert_eq!(String::from_utf8(fed(said.as_bytes(), gets_up)).unwrap(), expected, "{said:?}");
        }
    }

    #[test]
    fn a_string_that_never_ends_hides_nothing_for_ever() {
        let mut filter = Filter::default();
        assert!(filter.feed(b"\x1b]0;not ended", false).is_empty());
        filter.feed(&vec![b'x'; LONGEST_SILENCE], false);
        assert!(filter.feed(b"shown", false).ends_with(b"shown"));
    }
}

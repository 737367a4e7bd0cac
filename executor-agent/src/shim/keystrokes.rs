//! PURE: what comes from a terminal, as what it may do to the line that somebody types. What a terminal sends by itself
//! (answers to what programs ask, the mouse, that it has the focus) is nothing; what is not known may do anything, and so may
//! what is not whole in the piece in which it begins.

use crate::answers::{self, PARAMETERS};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stroke {
    /// Adds to the line, where the cursor is.
    Text,
    /// Hands the line in.
    Enter,
    /// Throws everything away that was not handed in.
    Cancel,
    /// Throws away what stands before the cursor on this line.
    KillLine,
    /// Takes away what stands before the cursor.
    Erase,
    /// Moves the cursor, or changes what is there already.
    Move,
    /// May bring text without any being typed, or a further line.
    Bring,
}

const ESCAPE: u8 = 0x1b;
const PASTE_BEGINS: &[u8] = b"200";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// Where in a sequence of bytes the next one stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After a backslash, which makes an Enter part of the text for shells and agents alike.
    Backslash,
    Escape,
    /// After `ESC O`.
    Single,
    /// Within `ESC [`, with its parameters.
    Sequence(Vec<u8>),
    /// Bytes that an old mouse still has to say.
    Mouse(u8),
    /// Within pasted text, with so much of its end.
    Paste(usize),
}

/// Reads what comes from a terminal, piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keystrokes(State);

impl Keystrokes {
    /// The strokes in `bytes`. A lone escape at their end is the key of that name: terminals send a sequence in one piece.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Stroke> {
        let mut strokes = Vec::new();
        let mut rest = bytes;
        while let [first, then @ ..] = rest {
            let answer = if self.takes_answers() { answers::string(rest) } else { 0 };
            if answer == 0 {
                strokes.extend(self.step(*first));
                rest = then;
            } else {
                self.0 = State::Ground;
                rest = &rest[answer..];
            }
        }
        match self.0 {
            State::Escape => {
                self.0 = State::Ground;
                strokes.push(Stroke::Move);
            }
            // With Alt, these begin no more than themselves.
            State::Single | State::Sequence(_) | State::Mouse(_) if !bytes.is_empty() => strokes.push(Stroke::Bring),
            State::Ground
            | State::Backslash
            | State::Single
            | State::Sequence(_)
            | State::Mouse(_)
            | State::Paste(_) => {}
        }
        strokes
    }

    /// Whether an escape begins something here.
    fn takes_answers(&self) -> bool {
        matches!(self.0, State::Ground | State::Backslash)
    }

    fn step(&mut self, byte: u8) -> Option<Stroke> {
        let (next, stroke) = match std::mem::take(&mut self.0) {
            State::Backslash if byte == b'\r' => (State::Ground, Some(Stroke::Bring)),
            State::Ground | State::Backslash => ground(byte),
            State::Escape => escaped(byte),
            State::Single => (State::Ground, Some(cursor(byte))),
            State::Sequence(parameters) => sequence(parameters, byte),
            // Where the mouse is, and what it does, are printable.
            State::Mouse(_) if byte < 0x20 => (State::Ground, Some(Stroke::Bring)),
            State::Mouse(1) => (State::Ground, None),
            State::Mouse(left) => (State::Mouse(left - 1), None),
            State::Paste(matched) => pasted(matched, byte),
        };
        self.0 = next;
        stroke
    }
}

fn ground(byte: u8) -> (State, Option<Stroke>) {
    let stroke = match byte {
        ESCAPE => return (State::Escape, None),
        b'\\' => return (State::Backslash, Some(Stroke::Text)),
        b'\r' => Stroke::Enter,
        0x03 => Stroke::Cancel,
        0x15 => Stroke::KillLine,
        // Backspace in its two forms, and a word.
        0x08 | 0x17 | 0x7f => Stroke::Erase,
        // Begin, back, delete, end, forward, to the end, redraw; flow control and jobs.
        0x01 | 0x02 | 0x04..=0x06 | 0x0b | 0x0c | 0x11 | 0x13 | 0x14 | 0x1a | 0x1c => Stroke::Move,
        // History, completion, what was deleted, another line, an editor.
        0x00..=0x1f => Stroke::Bring,
        _ => Stroke::Text,
    };
    (State::Ground, Some(stroke))
}

fn escaped(byte: u8) -> (State, Option<Stroke>) {
    match byte {
        b'[' => (State::Sequence(Vec::new()), None),
        b'O' => (State::Single, None),
        ESCAPE => (State::Escape, Some(Stroke::Move)),
        // With Alt: words, history, or an Enter that hands nothing in.
        _ => (State::Ground, Some(Stroke::Bring)),
    }
}

fn sequence(mut parameters: Vec<u8>, byte: u8) -> (State, Option<Stroke>) {
    match byte {
        0x20..=0x3f if parameters.len() < PARAMETERS => {
            parameters.push(byte);
            (State::Sequence(parameters), None)
        }
        b'~' if parameters == PASTE_BEGINS => (State::Paste(0), Some(Stroke::Bring)),
        b'M' if parameters.is_empty() => (State::Mouse(3), None),
        0x40..=0x7e => (State::Ground, key(&parameters, byte)),
        // No terminal sends that.
        _ => (State::Ground, Some(Stroke::Bring)),
    }
}

fn key(parameters: &[u8], last: u8) -> Option<Stroke> {
    let private = parameters.first().is_some_and(|first| b"<=>?".contains(first));
    match (parameters, last) {
        // What the terminal is, what it can, and the mouse.
        _ if private => None,
        // The focus came or went; where the cursor is, or a function key that changes no text either way.
        ([], b'I' | b'O') | (_, b'R') => None,
        // What the terminal is, in its oldest form, and its state and size.
        (_, b'c' | b'n' | b't') => None,
        // Insert, delete, and a page; the arrows up and down are history.
        ([b'2' | b'3' | b'5' | b'6'] | [b'2' | b'3' | b'5' | b'6', b';', ..], b'~') => Some(Stroke::Move),
        (_, last) => Some(cursor(last)),
    }
}

fn cursor(last: u8) -> Stroke {
    match last {
        // Right, left, end, home, back through the fields, and the function keys.
        b'C' | b'D' | b'F' | b'H' | b'Z' | b'P' | b'Q' | b'R' | b'S' => Stroke::Move,
        _ => Stroke::Bring,
    }
}

/// Pasted text is one stroke, told at its beginning.
fn pasted(matched: usize, byte: u8) -> (State, Option<Stroke>) {
    let matched = match PASTE_ENDS.get(matched) {
        Some(expected) if *expected == byte => matched + 1,
        _ => usize::from(byte == ESCAPE),
    };
    (if matched == PASTE_ENDS.len() { State::Ground } else { State::Paste(matched) }, None)
}

#[cfg(test)]
mod tests {
    use Stroke::{Bring, Cancel, Enter, Erase, KillLine, Move, Text};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_told_from_what_a_terminal_says_by_itself() {
        let table: &[(&[u8], &[Stroke])] = &[
            (b"", &[]),
            (b"ls\r", &[Text, Text, Enter]),
            (b"\x03", &[Cancel]),
            (b"\x15\x7f\x08\x17", &[KillLine, Erase, Erase, Erase]),
            (b"\t\n\x10\x19\x07", &[Bring; 5]),
            (b"\x01\x0b\x1a", &[Move; 3]),
            (b"a\\\r", &[Text, Text, Bring]),
            (b"\\x\r", &[Text, Text, Enter]),
            (b"\x1b", &[Move]),
            (b"\x1b\x1b", &[Move, Move]),
            (b"\x1b\r", &[Bring]),
            (b"\x1bf", &[Bring]),
            (b"\x1b[A\x1b[B\x1bOA", &[Bring; 3]),
            (b"\x1b[C\x1b[D\x1b[1;5D\x1b[H\x1bOP\x1b[Z", &[Move; 6]),
            (b"\x1b[3~\x1b[5~\x1b[6;5~", &[Move; 3]),
            (b"\x1b[13;2u\x1b[27;2;13~", &[Bring; 2]),
            (b"\x1b[200~rm -rf x\r\x1b[\x1b[201~x", &[Bring, Text]),
            (b"\x1b[I\x1b[O\x1b[24;80R\x1b[1;1R\x1b[?1;2c\x1b[>0;276;0c\x1b[0n\x1b[8;50;200t", &[]),
            (b"\x1b[<0;10;5M\x1b[<0;10;5m\x1b[M\x20\x21\x22", &[]),
            (b"\x1b]11;rgb:0000/0000/0000\x07\x1bP>|XTerm(370)\x1b\\\x1b_Gi=1;OK\x1b\\", &[]),
            // With Alt; the Enter that comes with it is one.
            (b"\x1b_\r", &[Bring, Enter]),
            (b"\x1b^x\x1b]\x1bX\x1bP", &[Bring, Text, Bring, Bring, Bring]),
            (b"\x1b]\rls\r\x07", &[Bring, Enter, Text, Text, Enter, Bring]),
            (b"\x1b]11;rgb:00", &[Bring, Text, Text, Text, Text, Text, Text, Text, Text, Text]),
            (b"\x1b[M\r", &[Bring]),
            (b"\x1b[", &[Bring]),
            (b"\x1bO", &[Bring]),
            ("ä".as_bytes(), &[Text, Text]),
            (b"\x1b[\x01", &[Bring]),
        ];
        for (bytes, strokes) in table {
            assert_eq!(Keystrokes::default().read(bytes), *strokes, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        let mut keys = Keystrokes::default();
        for (piece, strokes) in [
            (&b"\x1b[20"[..], &[Bring][..]),
            (b"0~ls\r\x1b[2", &[Bring]),
            (b"01~", &[]),
            (b"\\", &[Text]),
            (b"\r", &[Bring]),
            (b"\r", &[Enter]),
            // No answer: `Alt-[` and a letter, `Alt-_` and an Enter.
            (b"\x1b[", &[Bring]),
            (b"c", &[]),
            (b"\x1b_", &[Bring]),
            (b"\r", &[Enter]),
        ] {
            assert_eq!(keys.read(piece), strokes, "{}", piece.escape_ascii());
        }
    }

    proptest! {
        /// Outside of a paste there is no piece with a key in it that is not seen.
        #[test]
        fn whatever_came_before_an_enter_is_seen(pieces in prop::collection::vec(prop::sample::select(vec![
            &b"\x1b"[..], b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b^", b"\x1bX", b"\x1b[",
            b"\x1bO", b"\x1b[M", b"\x1b[?", b"11;rgb:0/0/0", b"\x07", b"\x1b\\", b"ls",
        ]), 0..12)) {
            let mut keys = Keystrokes::default();
            for piece in pieces {
                keys.read(piece);
            }
            let strokes = [keys.read(b"\r"), keys.read(b"\r")].concat();
            prop_assert!(strokes.contains(&Enter), "{:?}", strokes);
            prop_assert_eq!(strokes.len(), 2);
        }
    }
}

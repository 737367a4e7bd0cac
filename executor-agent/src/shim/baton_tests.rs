//! The baton as a table, and against an editor of lines that keeps what was typed.

use std::time::Duration;

use proptest::prelude::*;

use super::{Baton, Draft, Input, QUIET, Stroke, Turn, Why};

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn every_key_does_to_every_draft_what_it_must() {
    use Draft::{Line, None, Unknown};
    use Stroke::{Bring, Cancel, Enter, Erase, KillLine, Move, Text};
    let table = [
        (Text, [Line, Line, Unknown]),
        (Enter, [None, None, None]),
        (Cancel, [None, None, None]),
        (KillLine, [None, None, Unknown]),
        (Erase, [None, Line, Unknown]),
        (Move, [None, Unknown, Unknown]),
        (Bring, [Unknown, Unknown, Unknown]),
    ];
    for (stroke, after) in table {
        assert_eq!([None, Line, Unknown].map(|draft| draft.after(stroke)), after, "{stroke:?}");
    }
}

#[test]
fn every_input_gives_every_turn_that_it_must() {
    use Input::{HandedBack, Keys, Paused, Said, Stuck};
    let [free, draft, paused] = [Turn::Free, Turn::Later(Why::Draft), Turn::Later(Why::Paused)];
    // What happens at second 1, 2, …; what holds right after the last of it, and when everybody has rested.
    let table: &[(&[Input<'_>], Turn, Turn)] = &[
        (&[], free, free),
        (&[Keys(b"ls\r")], Turn::At(at(11)), free),
        (&[Keys(b"ls\r"), Keys(b"x\r")], Turn::At(at(12)), free),
        (&[Keys(b"\x1b[I\x1b[24;80R")], free, free),
        (&[Keys(b"ls\r"), Keys(b"\x1b[O")], Turn::At(at(11)), free),
        (&[Keys(b"ls")], draft, draft),
        (&[Keys(b"ls"), Keys(b"\x7f\x7f")], draft, draft),
        (&[Keys(b"ls"), Keys(b"\x03")], Turn::At(at(12)), free),
        (&[Keys(b"ls"), Keys(b"\x15")], Turn::At(at(12)), free),
        (&[Keys(b"ls"), Keys(b"\x1b[D"), Keys(b"\x15")], draft, draft),
        (&[Keys(b"\x1b[A")], draft, draft),
        (&[Keys(b"\x1b[200~a\rb\x1b[201~")], draft, draft),
        (&[Keys(b"a\\\r")], draft, draft),
        (&[Keys(b"a\\\r"), Keys(b"b\r")], Turn::At(at(12)), free),
        (&[Keys(b"ls\r"), HandedBack], free, free),
        (&[Keys(b"ls"), HandedBack], draft, draft),
        (&[Keys(b"ls"), HandedBack, Keys(b"\r"), HandedBack], free, free),
        (&[HandedBack], free, free),
        (&[Said { enter: true }], free, free),
        (&[Said { enter: false }], draft, draft),
        (&[Said { enter: false }, Keys(b"\r")], Turn::At(at(12)), free),
        (&[Said { enter: false }, Keys(b"\x15")], draft, draft),
        (&[Stuck], draft, draft),
        (&[Stuck, HandedBack], draft, draft),
        (&[Stuck, Keys(b"\x03"), HandedBack], free, free),
        (&[Paused(true)], paused, paused),
        (&[Keys(b"ls"), Paused(true)], paused, paused),
        (&[Keys(b"ls"), Paused(true), Paused(false)], draft, draft),
        (&[Paused(true), Paused(false)], free, free),
    ];
    for (inputs, now, rested) in table {
        let mut baton = Baton::new(QUIET);
        let mut clock = 0;
        for input in *inputs {
            clock += 1;
            baton.apply(input.clone(), at(clock));
        }
        assert_eq!(baton.turn(at(clock)), *now, "{inputs:?}");
        assert_eq!(baton.turn(at(clock) + QUIET), *rested, "{inputs:?}, rested");
    }
}

#[test]
fn the_baton_is_free_exactly_when_they_have_rested() {
    let mut baton = Baton::new(at(3));
    baton.apply(Input::Keys(b"\r"), at(5));
    assert_eq!(baton.turn(at(8) - Duration::from_nanos(1)), Turn::At(at(8)));
    assert_eq!(baton.turn(at(8)), Turn::Free);
    assert_eq!(baton.turn(at(4)), Turn::At(at(8)), "a moment that was read too early");
}

/// An editor of lines that does what its keys say, with a history, as shells and agents have it.
#[derive(Default)]
struct Editor {
    text: Vec<u8>,
    cursor: usize,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Letter,
    Enter,
    AltEnter,
    Newline,
    Interrupt,
    KillLine,
    Backspace,
    Left,
    Right,
    Up,
    Paste,
    Focus,
}

impl Key {
    const ALL: [Self; 12] = [
        Self::Letter,
        Self::Enter,
        Self::AltEnter,
        Self::Newline,
        Self::Interrupt,
        Self::KillLine,
        Self::Backspace,
        Self::Left,
        Self::Right,
        Self::Up,
        Self::Paste,
        Self::Focus,
    ];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Letter => b"x",
            Self::Enter => b"\r",
            Self::AltEnter => b"\x1b\r",
            Self::Newline => b"\n",
            Self::Interrupt => b"\x03",
            Self::KillLine => b"\x15",
            Self::Backspace => b"\x7f",
            Self::Left => b"\x1b[D",
            Self::Right => b"\x1b[C",
            Self::Up => b"\x1b[A",
            Self::Paste => b"\x1b[200~a\rb\x1b[201~",
            Self::Focus => b"\x1b[I",
        }
    }
}

impl Editor {
    fn insert(&mut self, text: &[u8]) {
        self.text.splice(self.cursor..self.cursor, text.iter().copied());
        self.cursor += text.len();
    }

    fn press(&mut self, key: Key) {
        match key {
            Key::Letter => self.insert(b"x"),
            Key::AltEnter | Key::Newline => self.insert(b"\n"),
            Key::Paste => self.insert(b"a\rb"),
            Key::Enter | Key::Interrupt => *self = Self::default(),
            Key::Up => {
                self.text = b"earlier".to_vec();
                self.cursor = self.text.len();
            }
            Key::KillLine => {
                let line =
                    self.text[..self.cursor].iter().rposition(|byte| *byte == b'\n').map_or(0, |found| found + 1);
                self.text.drain(line..self.cursor);
                self.cursor = line;
            }
            Key::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = self.text.len().min(self.cursor + 1),
            Key::Backspace | Key::Focus => {}
        }
    }
}

proptest! {
    /// The promise: a message never joins what somebody has typed and not handed in.
    #[test]
    fn a_message_never_joins_a_draft(
        steps in prop::collection::vec((prop::sample::select(Key::ALL.to_vec()), 0..20_u64, any::<bool>()), 0..60),
    ) {
        let (mut baton, mut editor) = (Baton::new(QUIET), Editor::default());
        let (mut now, mut last) = (Duration::ZERO, None);
        for (key, pause, leaves) in steps {
            now += at(pause);
            baton.apply(Input::Keys(key.bytes()), now);
            editor.press(key);
            if !matches!(key, Key::Focus) {
                last = Some(now);
            }
            if leaves {
                baton.apply(Input::HandedBack, now);
                last = None;
            }
            for then in [now, now + QUIET] {
                if baton.turn(then) == Turn::Free {
                    prop_assert!(editor.text.is_empty(), "{:?} would be handed in", editor.text);
                    prop_assert!(last.is_none_or(|last| then >= last + QUIET), "somebody types");
                }
            }
        }
    }
}

//! PURE: the keys of somebody at a terminal who may not have all of tmux's: what goes on to it, and what means that they get up.

/// tmux's prefix, and what comes after it to get up.
const PREFIX: u8 = 0x02;
const DETACH: u8 = b'd';
/// An observer who is in no hurry to learn that gets up by two of these.
const INTERRUPT: u8 = 0x03;

/// Who types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hands {
    /// Everything goes on to tmux, which knows how to get up.
    Free,
    /// The program behind tmux has everything but what gets them up.
    Typing,
    /// Nothing goes on.
    Tied,
}

/// What has come so far.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    hands: Hands,
    /// A key whose meaning the next one decides.
    held: Option<u8>,
}

/// What becomes of some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pressed {
    /// Goes on to tmux.
    pub(super) passed: Vec<u8>,
    /// They get up after that.
    pub(super) leaves: bool,
}

impl Keys {
    pub(super) fn new(hands: Hands) -> Self {
        Self { hands, held: None }
    }

    /// Takes what was typed.
    pub(super) fn press(&mut self, data: &[u8]) -> Pressed {
        if self.hands == Hands::Free {
            return Pressed { passed: data.to_vec(), leaves: false };
        }
        let mut passed = Vec::with_capacity(data.len());
        for &key in data {
            let before = self.held.take();
            match (before, key) {
                (Some(PREFIX), DETACH) => return Pressed { passed, leaves: true },
                (Some(INTERRUPT), INTERRUPT) if self.hands == Hands::Tied => return Pressed { passed, leaves: true },
                // As tmux has it for who has its keys: the prefix twice is the program's once.
                (Some(PREFIX), PREFIX) if self.hands == Hands::Typing => passed.push(PREFIX),
                (Some(PREFIX), _) if self.hands == Hands::Typing => passed.extend([PREFIX, key]),
                (_, PREFIX | INTERRUPT) if self.hands == Hands::Tied => self.held = Some(key),
                (_, PREFIX) => self.held = Some(PREFIX),
                (_, key) if self.hands == Hands::Typing => passed.push(key),
                _ => {}
            }
        }
        Pressed { passed, leaves: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they come.
    type Pieces = &'static [&'static [u8]];

    fn press(hands: Hands, pieces: Pieces) -> (Vec<u8>, bool) {
        let mut keys = Keys::new(hands);
        let mut all = Vec::new();
        for piece in pieces {
            let Pressed { passed, leaves } = keys.press(piece);
            all.extend(passed);
            if leaves {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn what_goes_on_and_what_gets_them_up() {
        use Hands::{Free, Tied, Typing};
        let table: [(Hands, Pieces, &[u8], bool); 15] = [
            (Free, &[b"\x02d\x03\x03"], b"\x02d\x03\x03", false),
            (Typing, &[b"ls\r"], b"ls\r", false),
            (Typing, &[b"ls\x02dx"], b"ls", true),
            (Typing, &[b"\x02", b"d"], b"", true),
            (Typing, &[b"\x02", b"x"], b"\x02x", false),
            (Typing, &[b"\x02\x02d"], b"\x02d", false),
            (Typing, &[b"\x02", b"\x02", b"\x02d"], b"\x02", true),
            (Typing, &[b"\x02:kill-server\r"], b"\x02:kill-server\r", false),
            (Typing, &[b"\x03\x03"], b"\x03\x03", false),
            (Tied, &[b"rm -rf /\r"], b"", false),
            (Tied, &[b"\x02", b"d"], b"", true),
            (Tied, &[b"\x02x\x02d"], b"", true),
            (Tied, &[b"\x03", b"\x03"], b"", true),
            (Tied, &[b"\x03x\x03"], b"", false),
            (Tied, &[b"\x02\x03\x03"], b"", true),
        ];
        for (hands, pieces, passed, leaves) in table {
            assert_eq!(press(hands, pieces), (passed.to_vec(), leaves), "{hands:?} {pieces:?}");
        }
    }
}

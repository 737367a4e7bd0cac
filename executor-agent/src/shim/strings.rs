//! Keeps control strings that never end from filling the emulator's memory.

/// Bytes of one control string that are passed on; far beyond any title, link or colour.
const LIMIT: usize = 64 << 10;
const ESCAPE: u8 = 0x1b;
/// Ends any control string without effect.
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;
const BELL: u8 = 0x07;

/// Follows a stream far enough to know whether it is inside an operating system command.
#[derive(Default)]
pub(super) struct StringGuard {
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    /// Inside a string of which so many bytes were passed on.
    Inside(usize),
    /// Inside a string that has been given up.
    Skipping,
}

impl StringGuard {
    /// Gives `bytes` to `sink`, in pieces, without what overlong strings have beyond the limit.
    pub(super) fn pass(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (length, passed) = self.step(rest);
            if passed {
                sink(&rest[..length]);
            } else if matches!(self.state, State::Skipping) && length == 0 {
                sink(&[CANCEL]);
            }
            rest = &rest[length..];
        }
    }

    /// Takes the longest beginning of `rest` that is treated alike: its length, and whether it is passed on.
    fn step(&mut self, rest: &[u8]) -> (usize, bool) {
        match self.state {
            State::Ground => {
                let run = rest.iter().position(|byte| *byte == ESCAPE);
                if run.is_some() {
                    self.state = State::Escape;
                }
                (run.map_or(rest.len(), |at| at + 1), true)
            }
            State::Escape => {
                self.state = match rest[0] {
                    b']' => State::Inside(0),
                    ESCAPE => State::Escape,
                    _ => State::Ground,
                };
                (1, true)
            }
            State::Inside(passed) if passed >= LIMIT => {
                self.state = State::Skipping;
                (0, false)
            }
            State::Inside(passed) => {
                let room = &rest[..rest.len().min(LIMIT - passed)];
                match room.iter().position(|byte| ends(*byte)) {
                    // The terminator is left for the next step.
                    Some(0) => (self.end(rest[0]), true),
                    Some(at) => {
                        self.state = State::Inside(passed + at);
                        (at, true)
                    }
                    None => {
                        self.state = State::Inside(passed + room.len());
                        (room.len(), true)
                    }
                }
            }
            State::Skipping => match rest.iter().position(|byte| ends(*byte)) {
                Some(0) if rest[0] == ESCAPE => (self.end(ESCAPE), true),
                Some(0) => (self.end(rest[0]), false),
                at => (at.unwrap_or(rest.len()), false),
            },
        }
    }

    fn end(&mut self, terminator: u8) -> usize {
        self.state = if terminator == ESCAPE { State::Escape } else { State::Ground };
        1
    }
}

fn ends(byte: u8) -> bool {
    matches!(byte, ESCAPE | BELL | CANCEL | SUBSTITUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(guard: &mut StringGuard, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        guard.pass(bytes, |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn what_is_not_too_long_passes_unchanged() {
        let text = b"plain \x1b[1mbold\x1b]0;title\x07 \x1b]8;;http://x\x1b\\link\x1b\x1b]2;t\x18.";
        assert_eq!(passed(&mut StringGuard::default(), text), text);
        let mut guard = StringGuard::default();
        let bytewise: Vec<u8> = text.iter().flat_map(|byte| passed(&mut guard, &[*byte])).collect();
        assert_eq!(bytewise, text);
    }

    #[test]
    fn an_endless_string_is_cut_and_what_follows_it_is_seen() {
        let mut guard = StringGuard::default();
        let mut out = passed(&mut guard, b"a\x1b]0;");
        for _ in 0..100 {
            out.extend(passed(&mut guard, &[b'x'; 10_000]));
        }
        assert!(out.len() < LIMIT + 10, "{}", out.len());
        assert_eq!(out.last(), Some(&CANCEL));
        assert_eq!(passed(&mut guard, b"xx\x07after\x1b[m"), b"after\x1b[m");
    }
}

//! PURE: what is typed at a terminal, as what others are told of it.

use std::time::{Duration, SystemTime};

use crate::answers::answer;

/// A block of input is over when nothing was typed for so long.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// How much of a block is kept for where it is recorded.
const KEPT: usize = 8 << 10;

/// Input without a longer pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// How many bytes.
    pub(super) bytes: u64,
    /// The first one came.
    pub(super) began: SystemTime,
    /// The last one came.
    pub(super) ended: SystemTime,
    /// The first of them.
    pub(super) content: Vec<u8>,
}

impl Block {
    /// Both as one: what could not be told in time is told with what follows.
    pub(super) fn joined(first: Option<Self>, then: Option<Self>) -> Option<Self> {
        match (first, then) {
            (Some(mut first), Some(then)) => {
                first.add(&then.content, then.bytes);
                Some(Self { ended: then.ended.max(first.ended), ..first })
            }
            (one, other) => one.or(other),
        }
    }

    fn add(&mut self, content: &[u8], bytes: u64) {
        self.bytes += bytes;
        let room = KEPT - self.content.len();
        self.content.extend_from_slice(&content[..content.len().min(room)]);
    }

    /// From the first to the last.
    pub(super) fn took(&self) -> Duration {
        self.ended.duration_since(self.began).unwrap_or_default()
    }
}

/// The block that is being typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks(Option<Block>);

impl Blocks {
    /// Takes note of `data` at `now`. Returns the block before it when that is over.
    pub(super) fn typed(&mut self, data: &[u8], now: SystemTime) -> Option<Block> {
        let typed = typed(data);
        let over = self.over(now);
        if typed.is_empty() {
            return over;
        }
        let none = Block { bytes: 0, began: now, ended: now, content: Vec::new() };
        let block = self.0.get_or_insert(none);
        block.add(&typed, typed.len() as u64);
        // A clock that goes back does not turn a block around.
        block.ended = now.max(block.began);
        over
    }

    /// The block, if it is over at `now`.
    pub(super) fn over(&mut self, now: SystemTime) -> Option<Block> {
        self.0.take_if(|block| now.duration_since(block.ended).is_ok_and(|quiet| quiet >= QUIET))
    }

    /// The block, over or not: somebody gets up.
    pub(super) fn finish(&mut self) -> Option<Block> {
        self.0.take()
    }

    /// Whether one is being typed.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

/// What of that which came from a terminal was typed there. The rest are its own answers to what programs ask it, and what it
/// says when a person turns to it or away.
fn typed(data: &[u8]) -> Vec<u8> {
    let mut rest = data;
    let mut typed = Vec::with_capacity(data.len());
    while let Some(first) = rest.first() {
        let answer = answer(rest);
        if answer == 0 {
            typed.push(*first);
        }
        rest = &rest[answer.max(1)..];
    }
    typed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(millis)
    }

    #[test]
    fn a_block_ends_with_a_pause() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.typed(b"ls", at(0)), None);
        assert_eq!(blocks.typed(b"\r", at(1_999)), None);
        assert_eq!(blocks.over(at(3_998)), None);
        let first = Block { bytes: 3, began: at(0), ended: at(1_999), content: b"ls\r".to_vec() };
        assert_eq!(blocks.clone().over(at(3_999)), Some(first.clone()));
        assert_eq!(blocks.typed(b"x", at(4_000)), Some(first));
        assert_eq!(
            blocks.finish(),
            Some(Block { bytes: 1, began: at(4_000), ended: at(4_000), content: b"x".to_vec() })
        );
        assert!(!blocks.is_open() && blocks.finish().is_none());
    }

    #[test]
    fn blocks_that_wait_become_one() {
        let block = |content: &str, began, ended| {
            Some(Block { bytes: 1_000, began: at(began), ended: at(ended), content: content.into() })
        };
        let (first, then) = (block("abc", 0, 1_000), block("defg", 5_000, 6_000));
        let joined = Block::joined(first.clone(), then.clone()).unwrap();
        assert_eq!(joined, Block { bytes: 2_000, ..block("abcdefg", 0, 6_000).unwrap() });
        assert_eq!(joined.took(), Duration::from_secs(6));
        assert_eq!(Block::joined(first.clone(), None), first);
        assert_eq!(Block::joined(None, then.clone()), then);
        assert_eq!(Block::joined(None, None), None);
    }

    #[test]
    fn all_of_it_is_counted_and_its_beginning_kept() {
        let mut blocks = Blocks::default();
        for _ in 0..3 {
            assert_eq!(blocks.typed(&[b'x'; KEPT - 1], at(0)), None);
        }
        let block = blocks.finish().unwrap();
        assert_eq!((block.bytes, block.content.len()), (3 * (KEPT as u64 - 1), KEPT));
    }

    #[test]
    fn a_clock_that_goes_back_ends_no_block_and_turns_none_around() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.typed(b"a", at(9_000)), None);
        assert_eq!(blocks.typed(b"b", at(1_000)), None);
        assert_eq!(
            blocks.finish(),
            Some(Block { bytes: 2, began: at(9_000), ended: at(9_000), content: b"ab".to_vec() })
        );
    }

    #[test]
    fn what_a_terminal_answers_by_itself_nobody_has_typed() {
        for (data, typed) in [
            (&b"\x1b[I"[..], 0),
            (b"\x1b[O\x1b[I", 0),
            (b"\x1b[?1;2c", 0),
            (b"\x1b[>0;276;0c", 0),
            (b"\x1b[24;80R", 0),
            (b"\x1bP>|XTerm(370)\x1b\\", 0),
            (b"\x1b]11;rgb:0000/0000/0000\x07", 0),
            (b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\a", 1),
            (b"\x1b[A", 3),
            (b"\x1b[1;5R", 6),
            (b"\x1bOP", 3),
            (b"\x1b", 1),
            (b"\x1b]not ended", 11),
            // With Alt, and what looks as if it ended a string.
            (b"\x1b]\rrm -rf x\r\x07", 13),
            (b"\x1b_ls\r\x1b\\", 7),
            ("ä\r".as_bytes(), 3),
            (b"", 0),
        ] {
            assert_eq!(super::typed(data).len(), typed, "{:?}", String::from_utf8_lossy(data));
        }
        let mut blocks = Blocks::default();
        assert_eq!(blocks.typed(b"\x1b[I", at(0)), None);
        assert!(!blocks.is_open());
    }

    proptest! {
        #[test]
        fn no_line_is_handed_in_that_is_not_kept(data in prop::collection::vec(prop::sample::select(vec![
            &b"\x1b]"[..], b"\x1bP>|", b"\x1b[?", b"11;rgb:", b"\x07", b"\x1b\\",
            b"\r", b"ls", b"1", b"c",
        ]), 0..40)) {
            let data = data.concat();
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\r').count();
            prop_assert_eq!(lines(&typed(&data)), lines(&data));
        }
    }
}

//! Frames of a log: which stream wrote how many bytes when, and the size that its terminal had come to have. Stored one
//! after the other, each preceded by its length.
//!
//! A size belongs to the first byte of its frame, and goes where that byte goes: what is trimmed, cut or sent again
//! neither loses nor doubles it.

use bytes::Buf as _;
use prost::Message as _;
use sculpt_proto::v1::{LogFrame, LogSize};

/// A stored run of frames that cannot be read, or a run that does not fit its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Their lengths do not add up.
    #[error("frames of {frames} bytes in all stand for {bytes} bytes")]
    Length {
        /// Sum of the frames' lengths.
        frames: u64,
        /// Length of the bytes.
        bytes: u64,
    },
    /// A frame without a byte.
    #[error("a frame is empty")]
    Empty,
    /// Of no terminal.
    #[error("no terminal has {columns} columns and {rows} rows")]
    Size {
        /// Its width.
        columns: u32,
        /// Its height.
        rows: u32,
    },
    /// Not what `encode` wrote.
    #[error("stored frames cannot be read")]
    Unreadable(#[from] prost::DecodeError),
}

/// Checks that `frames` stand for exactly `bytes` bytes, on terminals that can be.
pub fn check(frames: &[LogFrame], bytes: usize) -> Result<(), FrameError> {
    let sum: u64 = frames.iter().map(|frame| u64::from(frame.length)).sum();
    if sum != bytes as u64 {
        return Err(FrameError::Length { frames: sum, bytes: bytes as u64 });
    }
    if frames.iter().any(|frame| frame.length == 0) {
        return Err(FrameError::Empty);
    }
    let side = 1..=u32::from(u16::MAX);
    match frames
        .iter()
        .filter_map(|frame| frame.size)
        .find(|it| !side.contains(&it.columns) || !side.contains(&it.rows))
    {
        Some(LogSize { columns, rows }) => Err(FrameError::Size { columns, rows }),
        None => Ok(()),
    }
}

/// The frames of the bytes from `skip` on, at most `take` of them. The first and the last may be parts of a frame.
pub fn cut(frames: &[LogFrame], skip: u64, take: u64) -> Vec<LogFrame> {
    let (mut at, end) = (0_u64, skip.saturating_add(take));
    let mut kept = Vec::new();
    for frame in frames {
        let next = at + u64::from(frame.length);
        let (from, to) = (at.max(skip), next.min(end));
        if from < to {
            let length = u32::try_from(to - from).unwrap_or(frame.length);
            let size = frame.size.filter(|_| from == at);
            kept.push(LogFrame { length, size, ..*frame });
        }
        at = next;
    }
    kept
}

/// `frames` as they are stored. What one stream wrote in one millisecond and in one size becomes one frame.
pub fn encode(frames: &[LogFrame]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(frames.len() * 8);
    let mut pending: Option<LogFrame> = None;
    let put = |frame: LogFrame, stored: &mut Vec<u8>| stored.extend(frame.encode_length_delimited_to_vec());
    for frame in frames {
        let goes_on = |before: &LogFrame| {
            before.stream == frame.stream && before.time_ms == frame.time_ms && frame.size.is_none()
        };
        pending = Some(match pending {
            Some(before) if goes_on(&before) => match before.length.checked_add(frame.length) {
                Some(length) => LogFrame { length, ..before },
                None => {
                    put(before, &mut stored);
                    *frame
                }
            },
            Some(before) => {
                put(before, &mut stored);
                *frame
            }
            None => *frame,
        });
    }
    if let Some(frame) = pending {
        put(frame, &mut stored);
    }
    stored
}

/// What [`encode`] stored.
pub fn decode(mut stored: &[u8]) -> Result<Vec<LogFrame>, FrameError> {
    let mut frames = Vec::new();
    while stored.has_remaining() {
        frames.push(LogFrame::decode_length_delimited(&mut stored)?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<LogFrame>> {
        let size = proptest::option::weighted(0.3, (1_u32..3).prop_map(|side| LogSize { columns: side, rows: side }));
        let frame = (1_u32..9, 1_i32..4, 0_u64..4, size);
        proptest::collection::vec(
            frame.prop_map(|(length, stream, time_ms, size)| LogFrame { length, stream, time_ms, size }),
            0..20,
        )
    }

    /// One entry per byte: what a reader can tell of it.
    fn spread(frames: &[LogFrame]) -> Vec<(i32, u64, Option<LogSize>)> {
        let bytes = |f: &LogFrame| {
            let (stream, time_ms, size) = (f.stream, f.time_ms, f.size);
            (0..f.length).map(move |at| (stream, time_ms, size.filter(|_| at == 0)))
        };
        frames.iter().flat_map(bytes).collect()
    }

    proptest! {
        #[test]
        fn stored_frames_tell_the_same_of_every_byte(frames in frames()) {
            prop_assert_eq!(spread(&decode(&encode(&frames)).unwrap()), spread(&frames));
        }

        #[test]
        fn a_cut_tells_the_same_of_every_byte_that_is_left(frames in frames(), skip in 0_u64..200, take in 0_u64..200) {
            let all = spread(&frames);
            let wanted: Vec<_> = all.iter().skip(skip as usize).take(take as usize).copied().collect();
            prop_assert_eq!(spread(&cut(&frames, skip, take)), wanted);
        }
    }

    #[test]
    fn frames_must_add_up() {
        let frame = LogFrame { length: 3, stream: 1, ..LogFrame::default() };
        assert_eq!(check(&[frame, frame], 6), Ok(()));
        assert_eq!(check(&[frame], 4), Err(FrameError::Length { frames: 3, bytes: 4 }));
        assert_eq!(check(&[frame, LogFrame { length: 0, ..frame }], 3), Err(FrameError::Empty));
        let endless = LogFrame { length: u32::MAX, ..frame };
        assert!(check(&[endless, endless], 3).is_err());
    }

    #[test]
    fn a_terminal_has_a_size() {
        for (columns, rows, can_be) in [
            (200, 50, true),
            (1, 1, true),
            (65_535, 65_535, true),
            (0, 50, false),
            (200, 0, false),
            (65_536, 50, false),
        ] {
            let frame = LogFrame { length: 1, stream: 1, time_ms: 0, size: Some(LogSize { columns, rows }) };
            assert_eq!(check(&[frame], 1).is_ok(), can_be, "{columns}x{rows}");
        }
    }
}

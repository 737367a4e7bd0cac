//! What a chunk of a log is made of.

use sculpt_proto::v1::{LogChunk, LogSize, LogStream};

/// Bytes of one frame; there is at least one.
pub(crate) struct Piece<'a> {
    pub(crate) offset: u64,
    pub(crate) stream: LogStream,
    /// Milliseconds since the agent's start.
    pub(crate) time_ms: u64,
    /// What the terminal's size had become, if it had changed.
    pub(crate) size: Option<LogSize>,
    pub(crate) bytes: &'a [u8],
}

/// The frames of a chunk with their bytes; bytes that no frame counts are of an unknown stream.
pub(crate) fn pieces(chunk: &LogChunk) -> Vec<Piece<'_>> {
    let mut rest = &chunk.data[..];
    let mut pieces = Vec::with_capacity(chunk.frames.len() + 1);
    let mut offset = chunk.offset;
    let unknown = (usize::MAX, LogStream::Unspecified, 0, None);
    let frames = chunk.frames.iter().map(|frame| (frame.length as usize, frame.stream(), frame.time_ms, frame.size));
    for (length, stream, time_ms, size) in frames.chain([unknown]) {
        let (bytes, after) = rest.split_at(length.min(rest.len()));
        if !bytes.is_empty() {
            pieces.push(Piece { offset, stream, time_ms, size, bytes });
        }
        offset += bytes.len() as u64;
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::LogFrame;

    use super::*;

    #[test]
    fn no_byte_of_a_chunk_is_left_out() {
        let frame = |length, stream: LogStream| LogFrame { length, stream: stream.into(), ..LogFrame::default() };
        let chunk = |frames| LogChunk { offset: 10, data: b"outerrmore".to_vec().into(), frames };
        let found = |chunk: &LogChunk| {
            let pieces = pieces(chunk);
            let texts = pieces.iter().map(|piece| (piece.offset, piece.stream, piece.bytes.to_vec()));
            texts.collect::<Vec<_>>()
        };
        let (out, errors, unknown) = (LogStream::Stdout, LogStream::Stderr, LogStream::Unspecified);
        let apart = chunk(vec![frame(3, out), frame(3, errors), frame(0, out), frame(4, out)]);
        let expected = [(10, out, b"out".to_vec()), (13, errors, b"err".to_vec()), (16, out, b"more".to_vec())];
        assert_eq!(found(&apart), expected);
        assert_eq!(found(&chunk(Vec::new())), [(10, unknown, b"outerrmore".to_vec())]);
        assert_eq!(
            found(&chunk(vec![frame(6, out)])),
            [(10, out, b"outerr".to_vec()), (16, unknown, b"more".to_vec())]
        );
        assert_eq!(found(&chunk(vec![frame(99, errors)])), [(10, errors, b"outerrmore".to_vec())]);
    }
}

//! The bytes of a segment; all numbers little-endian.
//!
//! ```text
//! segment  magic "sculptsp" · version u32 · start offset u64 · crc32c u32 of what stands before it
//! frame    crc32c u32 of all that follows · kind u8 · zero [u8; 3] · length u32 · extra u32 · offset u64 · time_ms u64 · data
//! ```
//! `kind` is 1 terminal, 2 stdout, 3 stderr, 4 resize (no data; `extra` is columns << 16 | rows, else 0).

use std::path::{Path, PathBuf};

use super::{Size, Stream};

const MAGIC: &[u8; 8] = b"sculptsp";
const VERSION: u32 = 1;

/// Bytes before the first frame of a segment.
pub(super) const SEGMENT_HEADER: usize = 24;
/// Bytes of a frame before its data.
pub(super) const FRAME_HEADER: usize = 32;
/// Largest data of one frame; fits one message of the log protocol.
pub(super) const MAX_FRAME: usize = 256 << 10;

const SUFFIX: &str = ".spool";

/// File name of the segment that begins at `start`.
pub(super) fn segment_name(start: u64) -> String {
    format!("{start:020}{SUFFIX}")
}

/// Segments of a spool by start offset; other files are not ours. A directory that does not exist has none.
pub(super) fn segments(directory: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(start) = name.and_then(|digits| digits.parse().ok()) {
            found.push((start, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The header of a segment that begins at `start`.
pub(super) fn segment_header(start: u64) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&start.to_le_bytes());
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks a segment's header; `bytes` has at least its length.
pub(super) fn check_segment(bytes: &[u8], start: u64) -> Result<(), &'static str> {
    let header = &bytes[..SEGMENT_HEADER];
    if header[..8] != *MAGIC {
        return Err("it does not begin as a spool segment does");
    }
    if u32_at(header, 8) != VERSION {
        return Err("it was written by another version");
    }
    if u32_at(header, 20) != crc32c::crc32c(&header[..20]) {
        return Err("the checksum of its header is wrong");
    }
    if u64_at(header, 12) != start {
        return Err("its name is not its offset");
    }
    Ok(())
}

/// What one frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes of a stream.
    Bytes(Stream),
    /// The terminal has this size from here on; no bytes.
    Resize(Size),
}

/// A frame as it stands in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What it holds.
    pub(super) content: Content,
    /// How many bytes.
    pub(super) length: u32,
    /// Milliseconds since the agent's start.
    pub(super) time_ms: u64,
    /// Offset of its first byte.
    pub(super) offset: u64,
}

/// The header of a frame, with the checksum over it and `data`.
pub(super) fn frame_header(content: Content, offset: u64, time_ms: u64, data: &[u8]) -> [u8; FRAME_HEADER] {
    let (kind, extra) = match content {
        Content::Bytes(Stream::Terminal) => (1, 0),
        Content::Bytes(Stream::Stdout) => (2, 0),
        Content::Bytes(Stream::Stderr) => (3, 0),
        Content::Resize(Size { columns, rows }) => (4, u32::from(columns) << 16 | u32::from(rows)),
    };
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut header = [0; FRAME_HEADER];
    header[4] = kind;
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&extra.to_le_bytes());
    header[16..24].copy_from_slice(&offset.to_le_bytes());
    header[24..].copy_from_slice(&time_ms.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), data);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What stands at the beginning of `bytes`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole frame; its data follows its header.
    Frame(Header),
    /// A frame of which this many bytes are needed.
    Short(usize),
    /// No frame.
    Bad(&'static str),
}

/// Reads the frame at the beginning of `bytes`, which should be that of `offset`, and checks it.
pub(super) fn parse_frame(bytes: &[u8], offset: u64) -> Parsed {
    if bytes.len() < FRAME_HEADER {
        return Parsed::Short(FRAME_HEADER);
    }
    let length = u32_at(bytes, 8);
    if length as usize > MAX_FRAME {
        return Parsed::Bad("a frame is longer than frames are");
    }
    let whole = FRAME_HEADER + length as usize;
    if bytes.len() < whole {
        return Parsed::Short(whole);
    }
    let crc = u32_at(bytes, 0);
    if crc != crc32c::crc32c(&bytes[4..whole]) {
        return Parsed::Bad("the checksum of a frame is wrong");
    }
    let extra = u32_at(bytes, 12);
    let content = match bytes[4] {
        1 => Content::Bytes(Stream::Terminal),
        2 => Content::Bytes(Stream::Stdout),
        3 => Content::Bytes(Stream::Stderr),
        4 if length == 0 => Content::Resize(Size { columns: (extra >> 16) as u16, rows: extra as u16 }),
        _ => return Parsed::Bad("a frame is of an unknown kind"),
    };
    if u64_at(bytes, 16) != offset {
        return Parsed::Bad("a frame does not follow the one before it");
    }
    Parsed::Frame(Header { content, length, time_ms: u64_at(bytes, 24), offset })
}

/// The offset in what may be a frame's header; none when it is certainly not one that we wrote.
pub(super) fn claimed_offset(bytes: &[u8]) -> Option<u64> {
    let possible = bytes.len() >= FRAME_HEADER
        && (1..=4).contains(&bytes[4])
        && bytes[5..8] == [0; 3]
        && u32_at(bytes, 8) as usize <= MAX_FRAME;
    possible.then(|| u64_at(bytes, 16))
}

/// Whether a whole frame, wherever it belongs, stands at the beginning of `bytes`.
pub(super) fn is_whole_frame(bytes: &[u8]) -> bool {
    claimed_offset(bytes).is_some_and(|offset| matches!(parse_frame(bytes, offset), Parsed::Frame(_)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

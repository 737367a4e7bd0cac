//! Fuzz target: a spool that was damaged in any way is read without a panic, and never gives a byte at a wrong offset.

use std::fs;

use arbitrary::{Arbitrary, Unstructured};

use super::{
    Reader, Size, Stream,
    format::{self, Content, SEGMENT_HEADER},
    recover,
};

/// More makes a run slow and finds nothing that less does not.
const MOST_FRAMES: usize = 24;

/// What is written, and what becomes of it before it is read.
#[derive(Debug, Arbitrary)]
struct Plan<'a> {
    segments: Vec<Vec<Written<'a>>>,
    harms: Vec<Harm<'a>>,
    /// Where a reader begins, and how much it takes at once.
    reads: [(u16, u8); 3],
}

#[derive(Debug, Arbitrary)]
enum Written<'a> {
    Bytes { stream: u8, time_ms: u64, data: &'a [u8] },
    Resize { columns: u16, rows: u16 },
}

#[derive(Debug, Arbitrary)]
enum Harm<'a> {
    /// The machine lost power while the last segment grew.
    Tear {
        back: u16,
    },
    Flip {
        segment: u8,
        at: u16,
        bits: u8,
    },
    Cut {
        segment: u8,
        at: u16,
    },
    Remove {
        segment: u8,
    },
    Append {
        segment: u8,
        rubbish: &'a [u8],
    },
    /// A frame whose checksum is right and whose place is not.
    Stray {
        segment: u8,
        offset: u64,
        data: &'a [u8],
    },
    /// A segment that nobody wrote.
    Segment {
        start: u64,
        rubbish: &'a [u8],
    },
}

/// Segments by their start, and all bytes that were written.
struct Spool {
    segments: Vec<(u64, Vec<u8>)>,
    bytes: Vec<u8>,
}

impl Spool {
    fn write(plan: &[Vec<Written<'_>>]) -> Self {
        let (mut segments, mut bytes, mut frames) = (Vec::new(), Vec::new(), 0);
        for (index, written) in plan.iter().enumerate() {
            let start = bytes.len() as u64;
            // A writer goes on in a new segment only when there are bytes in the one before.
            if index > 0 && segments.last().is_some_and(|(before, _)| *before == start) {
                continue;
            }
            let mut file = format::segment_header(start).to_vec();
            for written in written {
                frames += 1;
                if frames > MOST_FRAMES {
                    break;
                }
                let (content, time_ms, data) = match written {
                    Written::Bytes { stream, time_ms, data } => {
                        let stream = [Stream::Terminal, Stream::Stdout, Stream::Stderr][usize::from(stream % 3)];
                        (Content::Bytes(stream), *time_ms, *data)
                    }
                    Written::Resize { columns, rows } => {
                        (Content::Resize(Size { columns: *columns, rows: *rows }), 0, &[][..])
                    }
                };
                file.extend(format::frame_header(content, bytes.len() as u64, time_ms, data));
                file.extend(data);
                bytes.extend(data);
            }
            segments.push((start, file));
        }
        Self { segments, bytes }
    }

    /// Whether what is left is what a power cut leaves: nothing but a torn tail.
    fn suffer(&mut self, harms: &[Harm<'_>]) -> bool {
        let mut only_torn = true;
        for harm in harms {
            let count = self.segments.len().max(1);
            let of = |segment: u8| usize::from(segment) % count;
            only_torn &= matches!(harm, Harm::Tear { .. });
            match harm {
                Harm::Tear { back } => {
                    if let Some((_, file)) = self.segments.last_mut() {
                        file.truncate(file.len() - usize::from(*back) % (file.len() + 1));
                    }
                }
                Harm::Flip { segment, at, bits } => {
                    if let Some((_, file)) = self.segments.get_mut(of(*segment)).filter(|(_, file)| !file.is_empty()) {
                        let at = usize::from(*at) % file.len();
                        file[at] ^= bits;
                    }
                }
                Harm::Cut { segment, at } => {
                    if let Some((_, file)) = self.segments.get_mut(of(*segment)) {
                        file.truncate(usize::from(*at));
                    }
                }
                Harm::Remove { segment } if !self.segments.is_empty() => drop(self.segments.remove(of(*segment))),
                Harm::Remove { .. } => {}
                Harm::Append { segment, rubbish } => {
                    if let Some((_, file)) = self.segments.get_mut(of(*segment)) {
                        file.extend_from_slice(rubbish);
                    }
                }
                Harm::Stray { segment, offset, data } => {
                    if let Some((_, file)) = self.segments.get_mut(of(*segment)) {
                        let header = format::frame_header(Content::Bytes(Stream::Stdout), *offset, 0, data);
                        // The one that would be right is no stray.
                        if *offset > self.bytes.len() as u64 {
                            file.extend(header.iter().chain(*data));
                        }
                    }
                }
                Harm::Segment { start, rubbish } => {
                    if !self.segments.iter().any(|(there, _)| there == start) {
                        self.segments.push((*start, rubbish.to_vec()));
                    }
                }
            }
        }
        only_torn
    }

    /// Reads from `from` until nothing more or an error comes; the offset that was reached.
    fn read(&self, directory: &std::path::Path, from: u64, step: usize) -> Result<u64, super::Error> {
        let mut reader = Reader::open(directory, from)?;
        while let Some(chunk) = reader.read(step)? {
            let start = usize::try_from(chunk.offset).unwrap_or(usize::MAX);
            let written = self.bytes.get(start..start.saturating_add(chunk.data.len()));
            assert_eq!(written, Some(&chunk.data[..]), "bytes at {start} are not those that were written there");
            assert!(chunk.data.len() <= step.max(1));
            let framed: usize = chunk.frames.iter().map(|frame| frame.length as usize).sum();
            assert_eq!(framed, chunk.data.len(), "frames do not stand for the bytes");
            assert!(!chunk.data.is_empty(), "nothing is no chunk");
            assert_eq!(reader.offset(), chunk.offset + chunk.data.len() as u64);
        }
        Ok(reader.offset())
    }
}

/// Writes, harms, reads, recovers and reads again.
pub fn spool(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut spool = Spool::write(&plan.segments);
    let only_torn = spool.suffer(&plan.harms);
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("make a directory: {error}"));
    for (start, file) in &spool.segments {
        fs::write(directory.path().join(format::segment_name(*start)), file)
            .unwrap_or_else(|error| panic!("write a segment: {error}"));
    }
    for (from, step) in plan.reads {
        let from = u64::from(from) % (spool.bytes.len() as u64 + 2);
        let _damaged = spool.read(directory.path(), from, usize::from(step));
    }
    // A segment's name can say any offset, and then the spool ends there.
    let Ok(recovered) = recover(directory.path()) else { return };
    let read = spool.read(directory.path(), 0, 1 << 20);
    let again = recover(directory.path()).unwrap_or_else(|error| panic!("recover a second time: {error}"));
    assert_eq!((again.end, again.torn_bytes), (recovered.end, 0), "nothing is torn any more");
    if only_torn {
        let whole = spool.segments.last().map_or(0, |(start, file)| whole_frames(file, *start));
        assert_eq!(recovered.end, whole, "a torn tail costs no whole frame");
        assert_eq!(recovered.quarantined, Vec::<std::path::PathBuf>::new(), "torn is not damaged");
        assert_eq!(read.unwrap_or_else(|error| panic!("read what was recovered: {error}")), recovered.end);
    }
}

/// Where a segment's last whole frame ends, found by lengths alone.
fn whole_frames(file: &[u8], start: u64) -> u64 {
    let (mut at, mut end) = (SEGMENT_HEADER, start);
    while let Some(length) = file.get(at + 8..at + 12) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        at += format::FRAME_HEADER + length;
        if at > file.len() {
            break;
        }
        end += length as u64;
    }
    end
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("spool", super::spool);
    }
}

//! Reads a spool, also while it is written.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    Error, Frame, Size,
    format::{self, Content, FRAME_HEADER, Header, MAX_FRAME, Parsed, SEGMENT_HEADER},
};

/// What is read at once while frames are small.
const WINDOW: usize = 64 << 10;

/// Consecutive bytes of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// What they are made of: lengths add up to that of `data`; the first may be the rest of a frame, the last its
    /// beginning.
    pub frames: Vec<Frame>,
}

/// A position in a spool.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    offset: u64,
    segment: Option<Segment>,
    /// The terminal's size for the next byte, when it has changed since the last.
    resized: Option<Size>,
}

impl Reader {
    /// A reader whose next byte is that at `offset`, which may be the end.
    pub fn open(directory: &Path, offset: u64) -> Result<Self, Error> {
        let mut reader = Self { directory: directory.to_owned(), offset, segment: None, resized: None };
        reader.find_segment()?;
        Ok(reader)
    }

    /// The spool.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Up to `max_bytes` bytes (at least 1); none when everything that is written has been read. Calling it again
    /// later, when the shim has told of growth, goes on from there. Blocks on the disk.
    pub fn read(&mut self, max_bytes: usize) -> Result<Option<Chunk>, Error> {
        let max_bytes = max_bytes.max(1);
        let mut chunk = Chunk { offset: self.offset, ..Chunk::default() };
        while chunk.data.len() < max_bytes {
            match self.frame() {
                Ok(Some(header)) => self.take(&header, max_bytes, &mut chunk),
                Ok(None) => break,
                // What stands before it is given out first; the next call meets the error again.
                Err(_) if !chunk.frames.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(if chunk.frames.is_empty() { None } else { Some(chunk) })
    }

    /// The next whole frame, wherever it stands.
    fn frame(&mut self) -> Result<Option<Header>, Error> {
        if self.segment.is_none() && !self.find_segment()? {
            return Ok(None);
        }
        loop {
            let Some(segment) = &mut self.segment else { return Ok(None) };
            if let Some(header) = segment.frame()? {
                return Ok(Some(header));
            }
            if !self.next_segment()? {
                return Ok(None);
            }
        }
    }

    /// Moves what is wanted of the frame at the segment's position into `chunk`.
    fn take(&mut self, header: &Header, max_bytes: usize, chunk: &mut Chunk) {
        let Some(segment) = &mut self.segment else { return };
        let end = header.offset + u64::from(header.length);
        let stream = match header.content {
            Content::Bytes(stream) => stream,
            Content::Resize(size) => {
                self.resized = Some(size);
                segment.pass(header);
                return;
            }
        };
        if end > self.offset {
            let skip = (self.offset - header.offset) as usize;
            let room = max_bytes - chunk.data.len();
            let data = &segment.data(header)[skip..];
            let data = &data[..data.len().min(room)];
            chunk.data.extend_from_slice(data);
            let (length, size) = (data.len() as u32, self.resized.take());
            chunk.frames.push(Frame { stream, length, time_ms: header.time_ms, size });
            self.offset += data.len() as u64;
        }
        if self.offset >= end {
            segment.pass(header);
        }
    }

    /// Opens the segment that holds the current offset; false while the spool is empty.
    fn find_segment(&mut self) -> Result<bool, Error> {
        let segments = segments(&self.directory)?;
        let missing = || Error::Missing { directory: self.directory.clone(), offset: self.offset };
        if segments.is_empty() && self.offset == 0 {
            return Ok(false);
        }
        let holder = segments.into_iter().rfind(|(start, _)| *start <= self.offset);
        let (start, path) = holder.ok_or_else(missing)?;
        let mut segment = Segment::open(path, start)?;
        let whole = loop {
            let Some(header) = segment.frame()? else { break false };
            // A resize exactly at the offset belongs to what comes.
            if header.offset >= self.offset || header.offset + u64::from(header.length) > self.offset {
                break true;
            }
            segment.pass(&header);
        };
        if !whole && segment.offset < self.offset {
            return Err(missing());
        }
        self.segment = Some(segment);
        Ok(true)
    }

    /// Goes on to the segment that follows the current one, if it is there.
    fn next_segment(&mut self) -> Result<bool, Error> {
        let Some(current) = &mut self.segment else { return Ok(false) };
        let segments = segments(&self.directory)?;
        let Some((start, path)) = segments.into_iter().find(|(start, _)| *start > current.start) else {
            return Ok(false);
        };
        // The writer may have ended this segment after we looked at its end and before we saw the next one.
        if current.frame()?.is_some() {
            return Ok(true);
        }
        if !current.at_end() {
            return Err(current.damaged("a frame is torn, but another segment follows"));
        }
        if start != self.offset {
            return Err(Error::Missing { directory: self.directory.clone(), offset: self.offset });
        }
        self.segment = Some(Segment::open(path, start)?);
        Ok(true)
    }
}

fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let fail = |source| Error::Io { attempt: "list the directory", path: directory.to_owned(), source };
    format::segments(directory).map_err(fail)
}

/// One file, read in windows.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    start: u64,
    /// Offset of the frame at `position`.
    offset: u64,
    /// Where in the file the next frame begins.
    position: u64,
    window: Vec<u8>,
    /// How much of the window holds what the file holds.
    filled: usize,
    /// Where in the file the window begins.
    window_at: u64,
    headed: bool,
}

impl Segment {
    pub(super) fn open(path: PathBuf, start: u64) -> Result<Self, Error> {
        let opened = File::open(&path);
        let file = opened.map_err(|source| Error::Io { attempt: "open", path: path.clone(), source })?;
        let (window, position) = (vec![0; WINDOW], SEGMENT_HEADER as u64);
        Ok(Self { path, file, start, offset: start, position, window, filled: 0, window_at: 0, headed: false })
    }

    /// Whether the segment's header stands there whole; one that is not a header is an error.
    pub(super) fn headed(&mut self) -> Result<bool, Error> {
        if !self.headed {
            self.fill(SEGMENT_HEADER)?;
            if self.filled < SEGMENT_HEADER {
                return Ok(false);
            }
            format::check_segment(self.seen(), self.start).map_err(|problem| self.damaged(problem))?;
            self.headed = true;
        }
        Ok(true)
    }

    /// The whole frame at the position; none while there is no whole one.
    pub(super) fn frame(&mut self) -> Result<Option<Header>, Error> {
        if !self.headed()? {
            return Ok(None);
        }
        let mut wanted = FRAME_HEADER;
        loop {
            let at = (self.position - self.window_at) as usize;
            match format::parse_frame(self.seen().get(at..).unwrap_or_default(), self.offset) {
                Parsed::Frame(header) => return Ok(Some(header)),
                Parsed::Bad(problem) => return Err(self.damaged(problem)),
                Parsed::Short(needed) => {
                    wanted = wanted.max(needed);
                    let before = self.filled.saturating_sub(at);
                    self.window_at = self.position;
                    self.fill(wanted)?;
                    if self.filled <= before || self.filled < FRAME_HEADER {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Data of the frame that [`Self::frame`] gave.
    fn data(&self, header: &Header) -> &[u8] {
        let at = (self.position - self.window_at) as usize + FRAME_HEADER;
        &self.window[at..at + header.length as usize]
    }

    /// Steps over the frame that [`Self::frame`] gave.
    pub(super) fn pass(&mut self, header: &Header) {
        self.position += FRAME_HEADER as u64 + u64::from(header.length);
        self.offset += u64::from(header.length);
    }

    /// Where in the file and in the spool the next frame begins.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.position, self.offset)
    }

    /// Whether the file ends where the next frame would begin.
    fn at_end(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() == self.position)
    }

    /// Reads a window that begins at `window_at` and has `wanted` bytes if the file has.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        if self.window.len() < wanted {
            self.window = vec![0; FRAME_HEADER + MAX_FRAME];
        }
        self.filled = 0;
        while self.filled < self.window.len() {
            match self.file.read_at(&mut self.window[self.filled..], self.window_at + self.filled as u64) {
                Ok(0) => break,
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { attempt: "read", path: self.path.clone(), source }),
            }
        }
        Ok(())
    }

    fn seen(&self) -> &[u8] {
        &self.window[..self.filled]
    }

    fn damaged(&self, problem: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), position: self.position, problem }
    }
}

//! Appends to a spool.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Content, Error, Stream,
    flush::Flusher,
    format::{self, FRAME_HEADER, MAX_FRAME, SEGMENT_HEADER},
};

/// First and longest pause before the disk is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Settings of a writer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// What was written is on its way to the disk this soon.
    pub flush_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, flush_after: Duration::from_millis(150) }
    }
}

/// Is told why the disk takes nothing at the moment, and with `None` that it does again.
pub type OnBlocked = Box<dyn FnMut(Option<&io::Error>) + Send>;

/// The only writer of a spool.
pub struct Writer {
    directory: PathBuf,
    options: Options,
    file: Arc<File>,
    /// Bytes of the current segment's file that hold whole frames.
    file_length: u64,
    end: u64,
    flusher: Flusher,
    on_blocked: OnBlocked,
}

impl Writer {
    /// Makes an empty spool in `directory`, which must not hold one. `on_blocked` is told of a disk that refuses.
    pub fn create(directory: &Path, options: Options, on_blocked: OnBlocked) -> Result<Self, Error> {
        let fail = |attempt| move |source| Error::Io { attempt, path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(fail("make the directory"))?;
        if !format::segments(directory).map_err(fail("list the directory"))?.is_empty() {
            return Err(fail("make a new spool in")(io::ErrorKind::AlreadyExists.into()));
        }
        let file = Arc::new(new_segment(directory, 0).map_err(fail("make a segment in"))?);
        let flusher = Flusher::start(directory, options.flush_after).map_err(fail("watch over"))?;
        let file_length = SEGMENT_HEADER as u64;
        Ok(Self { directory: directory.to_owned(), options, file, file_length, end: 0, flusher, on_blocked })
    }

    /// Offset after the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds `data`; blocks for as long as the disk refuses it, so that nothing is lost and its source has to wait.
    pub fn append(&mut self, stream: Stream, time_ms: u64, data: &[u8]) {
        for piece in data.chunks(MAX_FRAME) {
            self.frame(Content::Bytes(stream), time_ms, piece);
        }
    }

    /// Notes that the terminal has this size from here on.
    pub fn resize(&mut self, columns: u16, rows: u16, time_ms: u64) {
        self.frame(Content::Resize { columns, rows }, time_ms, &[]);
    }

    /// Brings everything to the disk; blocks until it is there.
    pub fn sync(&mut self) {
        let mut pause = RETRY.0;
        while let Err(error) = self.flusher.flush_now(&self.file) {
            self.wait(&error, &mut pause);
        }
        (self.on_blocked)(None);
    }

    fn frame(&mut self, content: Content, time_ms: u64, data: &[u8]) {
        if self.file_length >= self.options.segment_bytes {
            self.rotate();
        }
        let header = format::frame_header(content, self.end, time_ms, data);
        let mut done = 0;
        let mut pause = RETRY.0;
        let mut blocked = false;
        while done < FRAME_HEADER + data.len() {
            // A frame that is on disk in part goes on where it stopped: a reader takes it only when it is whole.
            let written = match done.checked_sub(FRAME_HEADER) {
                Some(of_data) => (&*self.file).write(&data[of_data..]),
                None => (&*self.file).write_vectored(&[IoSlice::new(&header[done..]), IoSlice::new(data)]),
            };
            match written {
                Ok(0) => self.wait(&io::ErrorKind::WriteZero.into(), &mut pause),
                Ok(bytes) => {
                    done += bytes;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => self.wait(&error, &mut pause),
            }
            blocked = true;
        }
        if blocked {
            (self.on_blocked)(None);
        }
        self.file_length += done as u64;
        self.end += data.len() as u64;
        self.flusher.touched(&self.file);
    }

    fn rotate(&mut self) {
        let mut pause = RETRY.0;
        let mut blocked = false;
        let file = loop {
            match new_segment(&self.directory, self.end) {
                Ok(file) => break file,
                Err(error) => self.wait(&error, &mut pause),
            }
            blocked = true;
        };
        if blocked {
            (self.on_blocked)(None);
        }
        self.file = Arc::new(file);
        self.file_length = SEGMENT_HEADER as u64;
        self.flusher.new_file();
    }

    fn wait(&mut self, error: &io::Error, pause: &mut Duration) {
        (self.on_blocked)(Some(error));
        thread::sleep(*pause);
        *pause = (*pause * 2).min(RETRY.1);
    }
}

/// Makes the segment that begins at `start`, replacing one whose header could not be written whole.
fn new_segment(directory: &Path, start: u64) -> io::Result<File> {
    let path = directory.join(format::segment_name(start));
    let mut file = File::options().create(true).truncate(true).write(true).open(path)?;
    file.write_all(&format::segment_header(start))?;
    Ok(file)
}

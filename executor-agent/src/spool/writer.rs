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
    Error, Size, Stream,
    flush::Flusher,
    format::{self, Content, FRAME_HEADER, MAX_FRAME, SEGMENT_HEADER},
};
use crate::disk;

/// First and longest pause before the disk is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Settings of a writer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// What was written is on its way to the disk this soon.
    pub flush_after: Duration,
    /// Disk space that is held back on top of what is written, for the last words of a writer on a full disk.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        // The reserve takes what two full pipes and one read can hold.
        Self { segment_bytes: 8 << 20, flush_after: Duration::from_millis(150), reserve_bytes: 5 << 19 }
    }
}

/// Whether a writer that is blocked may use what was held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// It waits until the disk has room.
    Keep,
    /// It may: little more will come.
    Spend,
}

/// Is told why the disk takes nothing at the moment, and with `None` that it does again.
pub type OnBlocked = Box<dyn FnMut(Option<&io::Error>) -> Reserve + Send>;

/// Disk space is taken in steps of this many bytes.
const STEP: u64 = 1 << 20;

/// The only writer of a spool.
pub struct Writer {
    directory: PathBuf,
    options: Options,
    file: Arc<File>,
    /// Bytes of the current segment's file that hold whole frames.
    file_length: u64,
    /// Bytes of it that have their place on the disk; all where the file system does not say.
    allocated: u64,
    end: u64,
    /// The last frame is a size. What is printed in it stands in the same segment, so that who reads from there meets it.
    resized: bool,
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
        let (file, allocated) = new_segment(directory, 0, options.reserve_bytes).map_err(fail("make a segment in"))?;
        let file = Arc::new(file);
        let flusher = Flusher::start(directory, options.flush_after).map_err(fail("watch over"))?;
        let file_length = SEGMENT_HEADER as u64;
        let directory = directory.to_owned();
        Ok(Self { directory, options, file, file_length, allocated, end: 0, resized: false, flusher, on_blocked })
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
        self.frame(Content::Resize(Size { columns, rows }), time_ms, &[]);
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
        if self.file_length >= self.options.segment_bytes && !self.resized {
            self.rotate();
        }
        self.make_room((FRAME_HEADER + data.len()) as u64);
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
        self.unblocked(blocked);
        self.file_length += done as u64;
        self.end += data.len() as u64;
        self.resized = matches!(content, Content::Resize(_));
        self.flusher.touched(&self.file);
    }

    /// Goes on in a new segment; on a full disk in the old one, if the reserve may be spent: it is there.
    fn rotate(&mut self) {
        let mut pause = RETRY.0;
        let mut blocked = false;
        let (file, allocated) = loop {
            match new_segment(&self.directory, self.end, self.options.reserve_bytes) {
                Ok(file) => break file,
                Err(error) if (self.on_blocked)(Some(&error)) == Reserve::Spend => return,
                Err(_) => sleep_longer(&mut pause),
            }
            blocked = true;
        };
        let old = std::mem::replace(&mut self.file, Arc::new(file));
        let old_length = std::mem::replace(&mut self.file_length, SEGMENT_HEADER as u64);
        self.allocated = allocated;
        // The reserve has moved on; a failure leaves some space taken until the spool is removed.
        let _kept = old.set_len(old_length);
        self.unblocked(blocked);
        self.flusher.new_file();
    }

    /// Waits until the disk has room for `bytes` more on top of the reserve, or until that may be spent.
    fn make_room(&mut self, bytes: u64) {
        let wanted = self.file_length + bytes + self.options.reserve_bytes;
        let mut pause = RETRY.0;
        let mut blocked = false;
        while self.allocated < wanted {
            let ample = wanted.next_multiple_of(STEP);
            let taken = disk::allocate(&self.file, ample).map(|can| if can { ample } else { u64::MAX });
            match taken.or_else(|_| disk::allocate(&self.file, wanted).map(|_| wanted)) {
                Ok(allocated) => self.allocated = allocated,
                Err(error) if (self.on_blocked)(Some(&error)) == Reserve::Spend => return,
                Err(_) => sleep_longer(&mut pause),
            }
            blocked |= self.allocated < wanted;
        }
        self.unblocked(blocked);
    }

    fn wait(&mut self, error: &io::Error, pause: &mut Duration) {
        (self.on_blocked)(Some(error));
        sleep_longer(pause);
    }

    fn unblocked(&mut self, blocked: bool) {
        if blocked {
            (self.on_blocked)(None);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gives back what was held back; what fails stays taken until the spool is removed.
        let _kept = self.file.set_len(self.file_length);
    }
}

fn sleep_longer(pause: &mut Duration) {
    thread::sleep(*pause);
    *pause = (*pause * 2).min(RETRY.1);
}

/// Makes the segment that begins at `start`, and says how much of it has its place. It appears with its header and its
/// reserve: a reader goes on to it as soon as it is there, and the reserve of the one before is given up.
fn new_segment(directory: &Path, start: u64, reserve: u64) -> io::Result<(File, u64)> {
    let path = directory.join(format::segment_name(start));
    let temporary = directory.join("next");
    let mut file = File::options().create(true).truncate(true).write(true).open(&temporary)?;
    let room = SEGMENT_HEADER as u64 + reserve;
    let placed = file.write_all(&format::segment_header(start)).and_then(|()| disk::allocate(&file, room));
    match placed.and_then(|can| fs::rename(&temporary, path).map(|()| can)) {
        Ok(can) => Ok((file, if can { room } else { u64::MAX })),
        Err(error) => {
            let _gone = fs::remove_file(temporary);
            Err(error)
        }
    }
}

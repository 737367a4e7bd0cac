//! Brings what was written to the disk, soon and off the writer's path.

use std::{
    fs::File,
    io, mem,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// A thread that flushes the files it was told of.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
    directory: File,
}

#[derive(Default)]
struct Work {
    files: Vec<Arc<File>>,
    directory: bool,
    over: bool,
}

impl Flusher {
    /// Watches over the files of `directory`; each change is flushed `after` it at the latest.
    pub(super) fn start(directory: &Path, after: Duration) -> io::Result<Self> {
        let work = Mutex::new(Work { directory: true, ..Work::default() });
        let shared = Arc::new(Shared { work, changed: Condvar::new(), directory: File::open(directory)? });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("flush".into()).spawn(move || run(&theirs, after))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// `file` was written to.
    pub(super) fn touched(&self, file: &Arc<File>) {
        let mut work = self.shared.lock();
        if !work.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            work.files.push(Arc::clone(file));
            self.shared.changed.notify_one();
        }
    }

    /// A file was made in the directory.
    pub(super) fn new_file(&self) {
        self.shared.lock().directory = true;
    }

    /// Flushes everything, `current` too, before it returns.
    pub(super) fn flush_now(&self, current: &Arc<File>) -> io::Result<()> {
        self.touched(current);
        self.shared.flush()
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_one();
        // So that no file is open any more when the writer has gone; a panic there has been told.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self) -> io::Result<()> {
        let (files, directory) = {
            let mut work = self.lock();
            (mem::take(&mut work.files), mem::take(&mut work.directory))
        };
        let flushed = files.iter().try_for_each(|file| file.sync_data());
        let flushed = flushed.and_then(|()| if directory { self.directory.sync_all() } else { Ok(()) });
        if flushed.is_err() {
            let mut work = self.lock();
            work.directory |= directory;
            work.files.extend(files);
        }
        flushed
    }
}

fn run(shared: &Shared, after: Duration) {
    loop {
        let mut work = shared.lock();
        while work.files.is_empty() && !work.over {
            work = shared.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        // What comes in the meantime shares the flush.
        let waited = shared.changed.wait_timeout_while(work, after, |work| !work.over);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if work.over {
            return;
        }
        drop(work);
        // A disk that fails is met by the writer too, which tells of it; here it is only tried again.
        let _ = shared.flush();
    }
}

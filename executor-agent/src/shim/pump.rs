//! Moves the agent's output to disk and then to whoever looks.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{
    screen::Screen,
    shared::{Event, Shared},
};
use crate::{
    host,
    spool::{Stream, Writer},
};

/// What is read before it is written down; also the largest frame.
const BUFFER: usize = 256 << 10;
/// After the agent's end, output that does not come for so long does not come at all.
const QUIET: Duration = Duration::from_millis(100);
/// A process that has escaped and goes on printing is listened to for so long after the agent's end.
const LISTEN: Duration = Duration::from_secs(3);

/// Somewhere output comes from.
pub(super) struct Source {
    pub(super) descriptor: Arc<OwnedFd>,
    pub(super) stream: Stream,
}

/// Tells the pump that the agent has ended.
pub(super) struct Drain {
    wake: OwnedFd,
    draining: AtomicBool,
}

impl Drain {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { wake: eventfd(0, EventfdFlags::CLOEXEC)?, draining: AtomicBool::new(false) }))
    }

    /// What has been printed is still taken, then it is over.
    pub(super) fn begin(&self) {
        self.draining.store(true, Ordering::Release);
        // Writing to an event counter that nobody else writes to does not fail.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(super) fn has_begun(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// The thread that owns the recording.
pub(super) struct Pump {
    pub(super) writer: Writer,
    pub(super) sources: Vec<Source>,
    /// The terminal's other side, held so that it is not hung up while the agent might open it again.
    pub(super) slave: Option<OwnedFd>,
    pub(super) screen: Option<Arc<Screen>>,
    pub(super) shared: Arc<Shared>,
    pub(super) drain: Arc<Drain>,
    /// CLOCK_BOOTTIME at the agent's start.
    pub(super) started: Duration,
}

impl Pump {
    /// Begins; [`Event::OutputEnded`] tells of the end.
    pub(super) fn start(mut self) -> io::Result<()> {
        thread::Builder::new().name("output".into()).spawn(move || {
            self.run();
            self.note_resize();
            self.writer.sync();
            self.shared.tell(Event::OutputEnded);
        })?;
        Ok(())
    }

    fn run(&mut self) {
        let mut buffer = vec![0; BUFFER];
        let mut drained_since = None;
        while !self.sources.is_empty() {
            let draining = self.drain.has_begun();
            if draining {
                self.slave = None;
                if drained_since.get_or_insert_with(Instant::now).elapsed() > LISTEN {
                    return;
                }
            }
            let ready = self.ready(draining);
            if draining && !ready.contains(&true) {
                return;
            }
            for (index, is_ready) in ready.into_iter().enumerate().rev() {
                if is_ready && !self.take(index, &mut buffer) {
                    self.sources.swap_remove(index);
                }
            }
        }
    }

    /// Waits for output; which sources have some.
    fn ready(&self, draining: bool) -> Vec<bool> {
        let sources = self.sources.iter().map(|source| PollFd::new(&*source.descriptor, PollFlags::IN));
        let mut descriptors: Vec<_> = sources.collect();
        let quiet = Timespec { tv_sec: 0, tv_nsec: i64::from(QUIET.subsec_nanos()) };
        if !draining {
            descriptors.push(PollFd::new(&self.drain.wake, PollFlags::IN));
        }
        // Interrupted or not, what the descriptors say is looked at.
        let _ = poll(&mut descriptors, draining.then_some(&quiet));
        descriptors.iter().take(self.sources.len()).map(|descriptor| !descriptor.revents().is_empty()).collect()
    }

    /// Takes what a source has, up to a buffer full; false at its end.
    fn take(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let mut length = 0;
        let mut open = true;
        // A terminal gives little at a time, a frame should hold more.
        while length < buffer.len() {
            match rustix::io::read(&*self.sources[index].descriptor, &mut buffer[length..]) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(bytes) => length += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A terminal whose other side is closed says EIO.
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        if length > 0 {
            self.record(self.sources[index].stream, &buffer[..length]);
        }
        open
    }

    fn record(&mut self, stream: Stream, bytes: &[u8]) {
        self.note_resize();
        let time = self.time_ms();
        self.writer.append(stream, time, bytes);
        // Who sits at the terminal comes before who reads the log.
        if let Some(screen) = &self.screen {
            screen.show(bytes);
        }
        let end = self.writer.end();
        self.shared.update(|state| state.log_end = end);
    }

    fn note_resize(&mut self) {
        if let Some(size) = self.screen.as_ref().and_then(|screen| screen.take_resize()) {
            let time = self.time_ms();
            self.writer.resize(size.columns, size.rows, time);
        }
    }

    fn time_ms(&self) -> u64 {
        u64::try_from(host::boottime().saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

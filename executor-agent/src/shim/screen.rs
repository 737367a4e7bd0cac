//! The agent's terminal as people see it: the emulator, the views, and the way to the keyboard.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendFlags, send},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    backlog::Backlog,
    lock,
    terminal::{Size, Terminal},
};

/// Bytes that wait for one view; one that is further behind skips and is repainted.
const BEHIND: usize = 1 << 20;
/// What the emulator takes between two chances for others to look at it.
const PIECE: usize = 64 << 10;
/// What is shown by who has read it. Each thread on the way of an echo costs who types, and no flood comes in such pieces.
const SMALL: usize = 512;
/// How long after a picture a view may tell of a size that it had before: tmux is up to 250 ms late with it, a busy host far more.
const CROSSES: Duration = Duration::from_secs(5);
/// How often a blocked writer looks whether there is still a terminal.
const LOOK: Duration = Duration::from_millis(200);

/// The terminal of a living agent.
pub(super) struct Screen {
    master: Arc<OwnedFd>,
    backlog: Backlog,
    state: Mutex<State>,
    typing: Mutex<()>,
}

/// The right to type, which one has at a time: what two people type, or a message, does not mix inside a piece.
pub(super) struct Hands<'a> {
    screen: &'a Screen,
    _turn: MutexGuard<'a, ()>,
}

struct State {
    terminal: Terminal,
    views: Vec<Arc<View>>,
    /// A size that the recording does not know of yet.
    resized: Option<Size>,
    ended: bool,
}

/// What waits for one view.
pub(super) struct View {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Where it is, for what need not wait.
    stream: UnixStream,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Arc<[u8]>>,
    bytes: usize,
    mode: Mode,
    /// What was taken last is being sent.
    sending: bool,
    /// When it was last given a picture.
    painted: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// It gets everything.
    #[default]
    Live,
    /// It was too slow and waits to be repainted.
    Skipping,
    /// It gets what waits and then the end.
    Ending,
    /// It has gone.
    Gone,
}

/// What is to be done for a view.
pub(super) enum Work {
    /// Send this.
    Send(Arc<[u8]>),
    /// Ask the screen to repaint it.
    Repaint,
    /// Tell it that nothing will come any more.
    End,
    /// Nothing: it has gone.
    Nothing,
}

impl Screen {
    /// The screen of the terminal behind `master`. What comes in large pieces is emulated by a thread of its own, which the
    /// recording does not wait for before it is far behind; a small one by who records it.
    pub(super) fn start(master: Arc<OwnedFd>, size: Size) -> io::Result<Arc<Self>> {
        let state = State { terminal: Terminal::new(size), views: Vec::new(), resized: Some(size), ended: false };
        let backlog = Backlog::default();
        let screen = Arc::new(Self { master, backlog, state: Mutex::new(state), typing: Mutex::new(()) });
        let shown = Arc::clone(&screen);
        thread::Builder::new().name("terminal".into()).spawn(move || {
            let mut taken = Vec::new();
            while shown.backlog.take(&mut taken) {
                taken.chunks(PIECE).for_each(|piece| shown.emulate(piece));
            }
        })?;
        Ok(screen)
    }

    /// A size that is to be recorded before the next output.
    pub(super) fn take_resize(&self) -> Option<Size> {
        lock(&self.state).resized.take()
    }

    /// Shows what the agent printed, soon; waits only when the emulator is too far behind. One thread calls this.
    pub(super) fn show(&self, bytes: &[u8]) {
        if bytes.len() <= SMALL && self.backlog.is_idle() {
            self.emulate(bytes);
        } else {
            self.backlog.put(bytes);
        }
    }

    /// Shows it, and answers for the terminal when no view will.
    fn emulate(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let answers = state.terminal.feed(bytes);
        let mut answered = false;
        if !state.views.is_empty() {
            let shared: Arc<[u8]> = bytes.into();
            for view in &state.views {
                answered |= view.push(&shared);
            }
        }
        drop(state);
        if !answered && !answers.is_empty() {
            // An agent that asks without ever reading the answers gets no more of them; it must not stall its output.
            let _ = rustix::io::write(&*self.master, &answers);
        }
    }

    /// Waits for whoever is typing.
    pub(super) fn hands(&self) -> Hands<'_> {
        Hands { screen: self, _turn: lock(&self.typing) }
    }

    /// Whether the agent wants to know what is pasted.
    pub(super) fn takes_pastes(&self) -> bool {
        lock(&self.state).terminal.takes_pastes()
    }

    /// Gives the terminal another size.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let (mut state, size) = (lock(&self.state), Size::clamped(columns, rows));
        let changes = !state.ended && state.terminal.size() != size;
        self.resize_locked(&mut state, size)?;
        if changes {
            let State { terminal, views, .. } = &mut *state;
            // The first lines of a larger picture have scrolled away in a view that had become smaller before it came.
            for view in views.iter().filter(|view| view.was_painted_within(CROSSES)) {
                view.restart(&terminal.repaint(false), false);
            }
        }
        Ok(())
    }

    fn resize_locked(&self, state: &mut MutexGuard<'_, State>, size: Size) -> io::Result<()> {
        if state.ended || state.terminal.size() == size {
            return Ok(());
        }
        let winsize = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_fd(), winsize)?;
        state.terminal.resize(size);
        state.resized = Some(size);
        Ok(())
    }

    /// Adds a view of this size; it begins with a picture of how the terminal stands.
    pub(super) fn attach(&self, columns: u16, rows: u16, stream: UnixStream) -> io::Result<Arc<View>> {
        let mut state = lock(&self.state);
        self.resize_locked(&mut state, Size::clamped(columns, rows))?;
        let view = Arc::new(View { queue: Mutex::default(), changed: Condvar::new(), stream });
        view.restart(&state.terminal.repaint(true), state.ended);
        state.views.push(Arc::clone(&view));
        Ok(view)
    }

    /// Lets a view that has skipped go on from a new picture.
    pub(super) fn repaint(&self, view: &View) {
        let mut state = lock(&self.state);
        let ended = state.ended;
        view.restart(&state.terminal.repaint(false), ended);
    }

    /// Forgets a view.
    pub(super) fn detach(&self, view: &Arc<View>) {
        view.leave();
        lock(&self.state).views.retain(|other| !Arc::ptr_eq(other, view));
    }

    /// Nothing will be shown any more; the last picture stays for those who look.
    pub(super) fn end(&self) {
        self.backlog.finish();
        let mut state = lock(&self.state);
        state.ended = true;
        for view in &state.views {
            view.end();
        }
    }
}

impl Hands<'_> {
    /// Types `bytes`; waits while the terminal takes nothing, for `patience` at most.
    pub(super) fn type_in(&self, mut bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
        let begun = Instant::now();
        while !bytes.is_empty() {
            if lock(&self.screen.state).ended {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the agent has ended"));
            }
            match rustix::io::write(&*self.screen.master, bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    if patience.is_some_and(|patience| begun.elapsed() > patience) {
                        let text = format!("the agent does not read; {} bytes were not typed", bytes.len());
                        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                    }
                    let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
                    let _ = poll(&mut [PollFd::new(&*self.screen.master, PollFlags::OUT)], Some(&look));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl View {
    /// Adds what is to be shown; whether the view will see it and so answers what it asks.
    fn push(&self, chunk: &Arc<[u8]>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.mode != Mode::Live {
            return false;
        }
        let sent = if queue.is_idle() { self.send_now(chunk) } else { 0 };
        if sent == chunk.len() {
            return true;
        }
        queue.keep(chunk, sent);
        self.changed.notify_one();
        queue.mode == Mode::Live
    }

    /// How much of a small chunk the view takes without waiting. What goes wrong is met by who sends the rest.
    fn send_now(&self, chunk: &[u8]) -> usize {
        if chunk.len() > SMALL {
            return 0;
        }
        send(&self.stream, chunk, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0)
    }

    fn restart(&self, picture: &[u8], ended: bool) {
        let mut queue = lock(&self.queue);
        if queue.mode != Mode::Gone {
            queue.bytes = picture.len();
            queue.chunks = VecDeque::from([picture.into()]);
            queue.mode = if ended { Mode::Ending } else { Mode::Live };
            queue.painted = Some(Instant::now());
        }
        self.changed.notify_one();
    }

    fn was_painted_within(&self, time: Duration) -> bool {
        lock(&self.queue).painted.is_some_and(|painted| painted.elapsed() < time)
    }

    fn end(&self) {
        let mut queue = lock(&self.queue);
        // One that skips is told of the end with its picture.
        if queue.mode == Mode::Live {
            queue.mode = Mode::Ending;
        }
        self.changed.notify_one();
    }

    /// It takes too long: what waits is dropped, and the next picture makes up for it.
    pub(super) fn skip(&self) {
        let mut queue = lock(&self.queue);
        if queue.mode != Mode::Gone {
            queue.skip();
        }
    }

    fn leave(&self) {
        lock(&self.queue).mode = Mode::Gone;
        self.changed.notify_one();
    }

    /// Waits for something to do.
    pub(super) fn work(&self) -> Work {
        let mut queue = lock(&self.queue);
        queue.sending = false;
        let idle = |queue: &mut Queue| queue.mode == Mode::Live && queue.chunks.is_empty();
        let waited = self.changed.wait_while(queue, idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        match queue.mode {
            Mode::Gone => Work::Nothing,
            Mode::Skipping => Work::Repaint,
            Mode::Live | Mode::Ending => match queue.chunks.pop_front() {
                Some(chunk) => {
                    queue.bytes -= chunk.len();
                    queue.sending = true;
                    Work::Send(chunk)
                }
                None => Work::End,
            },
        }
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.chunks.is_empty() && !self.sending
    }

    /// Keeps what was not sent of a chunk until it is its turn, or gives up on all when that is too much.
    fn keep(&mut self, chunk: &Arc<[u8]>, sent: usize) {
        let rest = chunk.len() - sent;
        if self.bytes + rest > BEHIND {
            return self.skip();
        }
        self.bytes += rest;
        self.chunks.push_back(if sent == 0 { Arc::clone(chunk) } else { chunk[sent..].into() });
    }

    fn skip(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
        self.mode = Mode::Skipping;
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;

//! What peers send into channels, between its receipt and its taking. russh gives a channel's window back as data is received,
//! not as it is taken, and all channels of a connection wait for one whose queue is full. So a channel's queue is emptied
//! whoever takes what was in it: a little is held in memory, what is more on disk. A peer is held back where that can be done, by
//! what its other channels hardly notice.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use russh::{ChannelMsg, ChannelReadHalf};
use sculpt_pairing::Rights;
use sculpt_space::Level;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{
    door::Entered,
    limits::Limits,
    request::Request,
    spill::Spill,
    stores::{FILES, Memory, Stores},
};
use crate::space::Standing;

/// How much a peer may have on its way in a channel.
pub(super) const WINDOW: u32 = 1 << 20;

/// The same while a channel of its connection waits for who takes: the less is on its way there, the sooner it is the others' turn.
const NARROW: u32 = 128 << 10;

/// What is taken at once.
const PIECE: usize = 32 * 1024;

/// Pieces that wait to be taken.
const PIECES: usize = 2;

/// What a channel was asked beside its data and nobody has heard.
const ASKED: usize = 64;

/// A wait shorter than this is saved for later.
const SHORTEST: Duration = Duration::from_millis(4);

/// What a channel is asked beside its data, until it closes or is lost.
pub(super) type Asked = mpsc::Receiver<Result<ChannelMsg, Lost>>;

/// A channel's data; none at its end. Without anybody to take it nothing is taken in any more.
pub(super) type Pieces = mpsc::Receiver<Bytes>;

/// Why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It was sent to nobody.
    #[error("closed, as much was sent into it before anything was asked to run in it")]
    Unasked,
    /// There is enough for a terminal.
    #[error("closed, as what was typed into it is not read, and no more is kept")]
    Typed,
    /// There is enough beside the data.
    #[error("closed, as more was asked of it than is heard")]
    Asked,
    /// There is enough of one person's.
    #[error(
        "closed, as what was sent into it is not read, and {FILES} files full of what is not are kept for you already"
    )]
    Full,
    /// So is the disk.
    #[error("closed, as what was sent into it is not read, and the disk of this host is nearly full: {}", .0.space)]
    NoRoom(Standing),
    /// The disk does not work.
    #[error("closed, as what was sent into it could not be kept until it is read: {0}")]
    Disk(#[from] io::Error),
}

/// Takes in what is sent into the channels of one connection.
#[derive(Clone, Debug)]
pub(super) struct Intakes {
    pub(super) disk: watch::Receiver<Standing>,
    pub(super) tasks: TaskTracker,
    pub(super) slow: Slow,
    pub(super) stores: Stores,
}

/// How many channels of a connection wait just now for who takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Slow(Arc<AtomicUsize>);

impl Slow {
    /// How much a peer may have on its way now.
    pub(super) fn window(&self) -> u32 {
        if self.0.load(Ordering::Relaxed) == 0 { WINDOW } else { NARROW }
    }

    fn one(&self) -> OneSlow {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneSlow(self.clone())
    }
}

/// One of them, for as long as this lives.
struct OneSlow(Slow);

impl Drop for OneSlow {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intakes {
    /// Takes in what comes into a session, in which nothing was asked to run yet.
    pub(super) fn session(&self, from: ChannelReadHalf, entered: &Entered) -> (Asked, Pieces) {
        self.take_in(from, entered, Limits::UNASKED, Some(entered.pass.rights))
    }

    /// Takes in what comes for who is connected already.
    pub(super) fn forward(&self, from: ChannelReadHalf, entered: &Entered) -> (Asked, Pieces) {
        self.take_in(from, entered, Limits::READ, None)
    }

    fn take_in(
        &self,
        mut from: ChannelReadHalf,
        entered: &Entered,
        limits: Limits,
        unasked: Option<Rights>,
    ) -> (Asked, Pieces) {
        let (asks, asked) = mpsc::channel(ASKED);
        let (intake, pieces) = self.begin(entered.place.directory(), &entered.pass.user, limits);
        let intake = Intake { unasked, ..intake };
        self.tasks.spawn(async move {
            let mut intake = intake;
            let taken = intake.run(&mut from, &asks).await;
            // russh waits for nobody who does not listen.
            drop(from);
            if let Err(lost) = taken {
                info!(%lost, "a person's channel was lost");
                intake.forget();
                // The data does not end before that is heard: it would look whole.
                let _gone = asks.send(Err(lost)).await;
                asks.closed().await;
            }
        });
        (asked, pieces)
    }

    fn begin(&self, directory: &Path, user: &str, limits: Limits) -> (Intake, Pieces) {
        let (to, pieces) = mpsc::channel(PIECES);
        let store = self.stores.of(user);
        let intake = Intake {
            to: Some(to),
            held: BytesMut::new(),
            memory: Memory::of(Arc::clone(&store)),
            spill: Spill::new(directory, store),
            limits,
            unasked: None,
            has_terminal: false,
            due: Duration::ZERO,
            disk: self.disk.clone(),
            slow: self.slow.clone(),
        };
        (intake, pieces)
    }
}

/// One channel's.
struct Intake {
    /// None: nothing more is for anybody.
    to: Option<mpsc::Sender<Bytes>>,
    held: BytesMut,
    /// For what is held.
    memory: Memory,
    /// What came after what is held.
    spill: Spill,
    limits: Limits,
    /// What somebody may ask who has asked nothing to run. None: they have, or need not.
    unasked: Option<Rights>,
    has_terminal: bool,
    /// How long to wait before more goes to disk.
    due: Duration,
    disk: watch::Receiver<Standing>,
    slow: Slow,
}

impl Intake {
    /// Takes in what comes until it is closed and everything was taken, or nobody is there any more.
    async fn run(
        &mut self,
        from: &mut ChannelReadHalf,
        asks: &mpsc::Sender<Result<ChannelMsg, Lost>>,
    ) -> Result<(), Lost> {
        let (mut ended, mut closed, mut resized) = (false, false, None);
        while !(closed && self.to.is_none()) {
            let waits = self.unasked.is_none() && !self.is_empty();
            tokio::select! {
                () = asks.closed() => return Ok(()),
                given = self.give(), if waits => given?,
                room = asks.reserve(), if resized.is_some() => {
                    if let (Ok(room), Some(message)) = (room, resized.take()) {
                        room.send(Ok(message));
                    }
                }
                message = from.wait(), if !closed => match message {
                    Some(ChannelMsg::Data { data }) => self.receive(data).await?,
                    Some(ChannelMsg::Eof) => ended = true,
                    Some(ChannelMsg::Close) | None => {
                        (ended, closed) = (true, true);
                        // Nothing more comes that could wait for this.
                        let _gone = asks.send(Ok(ChannelMsg::Close)).await;
                    }
                    // No program has an input for errors; windows are russh's.
                    Some(ChannelMsg::ExtendedData { .. } | ChannelMsg::WindowAdjusted { .. }) => {}
                    Some(asked) => {
                        self.hear(&asked);
                        match asks.try_send(Ok(asked)) {
                            Ok(()) | Err(TrySendError::Closed(_)) => {}
                            // Only the last size counts.
                            Err(TrySendError::Full(Ok(size @ ChannelMsg::WindowChange { .. }))) => resized = Some(size),
                            Err(TrySendError::Full(_)) => return Err(Lost::Asked),
                        }
                    }
                },
            }
            if ended && self.is_empty() {
                self.to = None;
            }
        }
        Ok(())
    }

    /// What is asked to run says how much is kept for it.
    fn hear(&mut self, asked: &ChannelMsg) {
        self.has_terminal |= matches!(asked, ChannelMsg::RequestPty { .. });
        if let Some((rights, request)) = self.unasked.zip(Request::of(asked)) {
            (self.unasked, self.limits) = (None, Limits::of(request, rights, self.has_terminal));
        }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.spill.is_empty()
    }

    fn has_room(&self, length: usize) -> bool {
        self.spill.is_empty() && self.held.len() + length <= self.limits.held && self.memory.has(length)
    }

    fn hold(&mut self, data: &Bytes) -> bool {
        let holds = self.has_room(data.len()) && self.memory.grow(data.len());
        if holds {
            self.held.extend_from_slice(data);
        }
        holds
    }

    /// Takes `data` in: hands it on, holds it, or after a wait puts it on disk.
    async fn receive(&mut self, data: Bytes) -> Result<(), Lost> {
        let Some(to) = &self.to else { return Ok(()) };
        let at_once = self.unasked.is_none() && self.is_empty();
        let data = match at_once.then(|| to.try_send(data.clone())) {
            Some(Ok(())) => return Ok(()),
            Some(Err(TrySendError::Closed(_))) => return Ok(()),
            Some(Err(TrySendError::Full(_))) | None => data,
        };
        if self.hold(&data) {
            return Ok(());
        }
        self.wait_for(data.len()).await?;
        if self.to.is_none() || self.hold(&data) {
            return Ok(());
        }
        let Some(part) = self.limits.part else {
            return Err(if self.unasked.is_some() { Lost::Unasked } else { Lost::Typed });
        };
        let standing = *self.disk.borrow();
        match standing.level {
            Level::Full => Err(Lost::NoRoom(standing)),
            _ => self.spill.write(data, part).await,
        }
    }

    /// Waits for room for so much, but no longer than that may take.
    async fn wait_for(&mut self, length: usize) -> Result<(), Lost> {
        self.due += Duration::from_secs_f64(length as f64 / f64::from(self.limits.rate));
        if self.due < SHORTEST {
            return Ok(());
        }
        let _slow = self.slow.one();
        let within = std::mem::take(&mut self.due);
        let room = async {
            while !self.has_room(length) && self.to.is_some() && !self.is_empty() {
                self.give().await?;
            }
            Ok(())
        };
        timeout(within, room).await.unwrap_or(Ok(()))
    }

    /// Hands the oldest piece on, once there is room for it. Who gives up waiting has lost nothing.
    async fn give(&mut self) -> Result<(), Lost> {
        let Some(to) = &self.to else { return Ok(()) };
        let Ok(room) = to.reserve().await else {
            self.discard();
            return Ok(());
        };
        let piece = match self.held.len().min(PIECE) {
            0 => self.spill.take(PIECE).await?,
            length => {
                self.memory.shrink(length);
                self.held.split_to(length).freeze()
            }
        };
        room.send(piece);
        Ok(())
    }

    /// What nobody wants is not kept.
    fn discard(&mut self) {
        self.to = None;
        self.forget();
    }

    fn forget(&mut self) {
        self.held = BytesMut::new();
        self.memory.clear();
        self.spill.clear();
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;

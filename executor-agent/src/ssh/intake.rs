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
use sculpt_space::{ByteSize, Level};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::spill::Spill;
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

/// What a channel keeps for who takes it, and how.
const LIMITS: Limits = Limits { held: 512 << 10, spilled: 4 << 30, part: 256 << 20, rate: 2 << 20 };

/// A wait shorter than this is saved for later.
const SHORTEST: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes in memory.
    held: usize,
    /// Bytes on disk.
    spilled: u64,
    /// Bytes of a file.
    part: u64,
    /// Bytes a second that go to disk at most. Who takes faster than this is waited for, and nothing is written; who does not holds
    /// a connection up by no more than its packets take at this rate.
    rate: u32,
}

/// What a channel is asked beside its data, until it closes or is lost.
pub(super) type Asked = mpsc::Receiver<Result<ChannelMsg, Lost>>;

/// A channel's data; none at its end. Without anybody to take it nothing is taken in any more.
pub(super) type Pieces = mpsc::Receiver<Bytes>;

/// Why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// There is enough.
    #[error("closed, as {} of what was sent into it were not read, and no more is kept", ByteSize(*.0))]
    Full(u64),
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
    /// Takes in what comes; what is too much for the memory goes to `directory`.
    pub(super) fn take_in(&self, mut from: ChannelReadHalf, directory: &Path) -> (Asked, Pieces) {
        let (asks, asked) = mpsc::channel(ASKED);
        let (intake, pieces) = self.begin(directory, LIMITS);
        self.tasks.spawn(async move {
            let mut intake = intake;
            let taken = intake.run(&mut from, &asks).await;
            // russh waits for nobody who does not listen.
            drop(from);
            if let Err(lost) = taken {
                info!(%lost, "a person's channel was lost");
                // The data does not end before that is heard: it would look whole.
                let _gone = asks.send(Err(lost)).await;
                asks.closed().await;
            }
        });
        (asked, pieces)
    }

    fn begin(&self, directory: &Path, limits: Limits) -> (Intake, Pieces) {
        let (to, pieces) = mpsc::channel(PIECES);
        let intake = Intake {
            to: Some(to),
            held: BytesMut::new(),
            spill: Spill::new(directory, limits.part),
            limits,
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
    /// What came after what is held.
    spill: Spill,
    limits: Limits,
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
        let (mut ended, mut closed) = (false, false);
        while !(closed && self.to.is_none()) {
            let waits = !self.is_empty();
            tokio::select! {
                () = asks.closed() => return Ok(()),
                given = self.give(), if waits => given?,
                message = from.wait(), if !closed => match message {
                    Some(ChannelMsg::Data { data }) => self.receive(data).await?,
                    Some(ChannelMsg::Eof) => ended = true,
                    Some(ChannelMsg::Close) | None => {
                        (ended, closed) = (true, true);
                        let _gone = asks.send(Ok(ChannelMsg::Close)).await;
                    }
                    // No program has an input for errors; windows are russh's.
                    Some(ChannelMsg::ExtendedData { .. } | ChannelMsg::WindowAdjusted { .. }) => {}
                    Some(asked) => {
                        let _gone = asks.send(Ok(asked)).await;
                    }
                },
            }
            if ended && self.is_empty() {
                self.to = None;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.spill.is_empty()
    }

    fn has_room(&self, length: usize) -> bool {
        self.spill.is_empty() && self.held.len() + length <= self.limits.held
    }

    /// Takes `data` in: hands it on, holds it, or after a wait puts it on disk.
    async fn receive(&mut self, data: Bytes) -> Result<(), Lost> {
        let Some(to) = &self.to else { return Ok(()) };
        let data = match self.is_empty().then(|| to.try_send(data.clone())) {
            Some(Ok(())) => return Ok(()),
            Some(Err(TrySendError::Closed(_))) => return Ok(()),
            Some(Err(TrySendError::Full(_))) | None => data,
        };
        if !self.has_room(data.len()) {
            self.wait_for(data.len()).await?;
        }
        if self.has_room(data.len()) {
            self.held.extend_from_slice(&data);
            return Ok(());
        }
        let standing = *self.disk.borrow();
        if standing.level == Level::Full {
            return Err(Lost::NoRoom(standing));
        }
        match self.spill.length() {
            spilled if spilled >= self.limits.spilled => Err(Lost::Full(spilled)),
            _ => Ok(self.spill.write(data).await?),
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
            while !self.has_room(length) && self.to.is_some() {
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
            length => self.held.split_to(length).freeze(),
        };
        room.send(piece);
        Ok(())
    }

    /// What nobody wants is not kept.
    fn discard(&mut self) {
        self.to = None;
        self.held.clear();
        self.spill.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { held: 1000, spilled: 20_000, part: 3000, rate: 1 << 30 };

    fn intake() -> (Intake, Pieces, watch::Sender<Standing>, tempfile::TempDir) {
        let (directory, disk) = (tempfile::tempdir().unwrap(), watch::Sender::new(Standing::default()));
        let intakes = Intakes { disk: disk.subscribe(), tasks: TaskTracker::new(), slow: Slow::default() };
        let (intake, pieces) = intakes.begin(directory.path(), SMALL);
        (intake, pieces, disk, directory)
    }

    fn numbers(range: std::ops::Range<u32>) -> Bytes {
        range.flat_map(u32::to_be_bytes).collect::<Vec<u8>>().into()
    }

    #[tokio::test]
    async fn everything_is_taken_in_order_and_little_of_it_is_held() {
        let (mut intake, mut pieces, _disk, _directory) = intake();
        let mut taken = BytesMut::new();
        for round in 0..200 {
            intake.receive(numbers(round * 50..round * 50 + 50)).await.unwrap();
            assert!(intake.held.len() <= SMALL.held && intake.held.capacity() <= 4 * SMALL.held);
            // Now slowly, now fast.
            for _ in 0..round / 20 % 3 {
                if let Ok(piece) = pieces.try_recv() {
                    taken.extend_from_slice(&piece);
                    intake.give().await.unwrap();
                }
            }
        }
        assert!(!intake.spill.is_empty());
        while !intake.is_empty() {
            while let Ok(piece) = pieces.try_recv() {
                taken.extend_from_slice(&piece);
            }
            intake.give().await.unwrap();
        }
        drop(intake);
        while let Some(piece) = pieces.recv().await {
            taken.extend_from_slice(&piece);
        }
        assert!(taken == numbers(0..200 * 50));
    }

    #[tokio::test]
    async fn who_takes_is_waited_for_and_nothing_is_written() {
        let (mut intake, mut pieces, _disk, _directory) = intake();
        intake.limits.rate = 1;
        let taking = tokio::spawn(async move { while pieces.recv().await.is_some() {} });
        for _ in 0..100 {
            intake.receive(numbers(0..250)).await.unwrap();
            assert!(intake.spill.is_empty());
        }
        assert_eq!(intake.slow.window(), WINDOW);
        drop(intake);
        taking.await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_takes_is_lost_beyond_a_bound_and_on_a_full_disk() {
        let (mut intake, _pieces, _disk, _directory) = intake();
        let mut sent = 0;
        let lost = loop {
            match intake.receive(numbers(0..250)).await {
                Ok(()) => sent += 1000,
                Err(lost) => break lost,
            }
        };
        assert!(
            matches!(lost, Lost::Full(spilled) if spilled >= SMALL.spilled && spilled + 3000 == sent),
            "{lost} {sent}"
        );
        intake.discard();
        assert!(intake.is_empty() && intake.receive(numbers(0..250)).await.is_ok());
        let (mut intake, _pieces, disk, _directory) = self::intake();
        disk.send_replace(Standing { level: Level::Full, ..Standing::default() });
        let mut lost = Ok(());
        while lost.is_ok() {
            lost = intake.receive(numbers(0..250)).await;
        }
        assert!(matches!(lost, Err(Lost::NoRoom(_))) && intake.spill.is_empty());
    }
}

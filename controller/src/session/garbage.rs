//! Questions to an executor what it can remove, and its answers.

use std::collections::BTreeMap;

use sculpt_proto::{
    executor::v1::{Collect, Collected},
    v1::GarbageItem,
};
use tokio::sync::mpsc;

/// Questions to one executor that wait to be put.
const QUEUE: usize = 4;

/// Questions that wait for an answer.
const WAITING: usize = 8;

/// Pieces of an answer that wait for whoever asked; each is at most 256 KiB. An answer that is not read is dropped.
pub const PIECES: usize = 64;

/// What somebody wants to know, or to have done.
#[derive(Debug)]
pub struct Ask {
    /// Nothing is removed.
    pub dry_run: bool,
    /// Also what is kept for its age alone.
    pub all: bool,
    /// Where the answer goes; closed when it is whole, or without its end when the session ends.
    pub answer: mpsc::Sender<Piece>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// What there is.
    pub items: Vec<GarbageItem>,
    /// Nothing follows.
    pub last: bool,
}

/// The questions to one session's executor.
#[derive(Debug)]
pub struct Asks {
    queue: mpsc::Receiver<Ask>,
    waiting: BTreeMap<u64, mpsc::Sender<Piece>>,
    next: u64,
}

/// Where to ask, and what a session asks from.
pub fn asks() -> (mpsc::Sender<Ask>, Asks) {
    let (door, queue) = mpsc::channel(QUEUE);
    (door, Asks { queue, waiting: BTreeMap::new(), next: 1 })
}

impl Asks {
    /// The next question. May be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Collect {
        loop {
            let Some(ask) = self.queue.recv().await else { return std::future::pending().await };
            self.waiting.retain(|_, answer| !answer.is_closed());
            if self.waiting.len() < WAITING {
                let request = self.next;
                self.next += 1;
                self.waiting.insert(request, ask.answer);
                return Collect { request, dry_run: ask.dry_run, all: ask.all };
            }
        }
    }

    /// Passes a piece of an answer on; one that nobody asked for or reads is dropped.
    pub(super) fn answered(&mut self, collected: Collected) {
        let Collected { request, items, last } = collected;
        let Some(answer) = self.waiting.remove(&request) else { return };
        if answer.try_send(Piece { items, last }).is_ok() && !last {
            self.waiting.insert(request, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(request: u64, last: bool) -> Collected {
        Collected { request, items: vec![GarbageItem::default()], last }
    }

    #[tokio::test]
    async fn an_answer_reaches_whoever_asked_and_nobody_else() {
        let (door, mut asks) = asks();
        let (answer, mut pieces) = mpsc::channel(PIECES);
        door.send(Ask { dry_run: true, all: false, answer }).await.unwrap();
        let Collect { request, dry_run, all } = asks.next().await;
        assert!(dry_run && !all);
        asks.answered(piece(request + 1, true));
        asks.answered(piece(request, false));
        asks.answered(piece(request, true));
        asks.answered(piece(request, true));
        let got: Vec<bool> = std::iter::from_fn(|| pieces.try_recv().ok()).map(|piece| piece.last).collect();
        assert_eq!(got, [false, true]);
        assert!(pieces.recv().await.is_none(), "it is closed");
    }

    #[tokio::test]
    async fn an_executor_that_never_ends_its_answer_fills_no_memory() {
        let (door, mut asks) = asks();
        let (answer, mut pieces) = mpsc::channel(2);
        door.send(Ask { dry_run: true, all: false, answer }).await.unwrap();
        let request = asks.next().await.request;
        for _ in 0..1_000 {
            asks.answered(piece(request, false));
        }
        assert!(asks.waiting.is_empty());
        let got = std::iter::from_fn(|| pieces.try_recv().ok()).count();
        assert_eq!(got, 2);
        assert!(pieces.recv().await.is_none());
    }
}

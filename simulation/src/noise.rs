//! Messages that come twice, late, or again: no TCP brings that about, but the protocol promises that it is harmless.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;
use tonic::Status;

use crate::world::World;

/// Messages that are remembered, to come again.
const REMEMBERED: usize = 32;

/// A stream of messages, as it is or disturbed. Its first message always comes first: without it nobody would be met.
pub struct Noisy<S, T> {
    stream: S,
    world: World,
    /// Whether a message may come again when others have come since.
    lasting: fn(&T) -> bool,
    begun: bool,
    held: Option<T>,
    due: VecDeque<T>,
    heard: VecDeque<T>,
}

impl<S, T> Noisy<S, T> {
    /// Disturbed while `world` is noisy.
    pub fn new(stream: S, world: World, lasting: fn(&T) -> bool) -> Self {
        Self { stream, world, lasting, begun: false, held: None, due: VecDeque::new(), heard: VecDeque::new() }
    }
}

impl<S, T: Clone> Noisy<S, T> {
    /// What becomes of a message: whether it is due now, and what comes behind it.
    fn disturb(&mut self, message: T) -> Option<T> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(message);
        }
        let dice = self.world.dice.clone();
        if self.world.noisy() {
            match dice.roll(0..100) {
                0..15 => self.due.push_back(message.clone()),
                15..30 if self.held.is_none() => {
                    self.held = Some(message);
                    return None;
                }
                30..45 if !self.heard.is_empty() => {
                    let again = self.heard[dice.roll(0..self.heard.len())].clone();
                    self.due.push_back(again);
                }
                _ => {}
            }
        }
        self.due.extend(self.held.take());
        if (self.lasting)(&message) {
            if self.heard.len() == REMEMBERED {
                self.heard.pop_front();
            }
            self.heard.push_back(message.clone());
        }
        Some(message)
    }
}

impl<S, T> Stream for Noisy<S, T>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
    T: Clone + Unpin,
{
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.due.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(message)) => {
                    if let Some(message) = self.disturb(message) {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(self.held.take().map(Ok)),
            }
        }
    }
}

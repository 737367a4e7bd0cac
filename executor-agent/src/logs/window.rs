//! PURE: how far an attempt's log has been sent and committed. No clock, no I/O.

use std::collections::VecDeque;

/// The log of one attempt on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    state: State,
    /// Everything below is committed.
    committed: u64,
    /// Everything below has been sent.
    sent: u64,
    /// What has been sent and not committed, in order: start and end.
    under_way: VecDeque<(u64, u64)>,
    /// The end of what was ever sent on this stream.
    furthest: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Where the controller stands is not known.
    #[default]
    Fresh,
    /// It has been asked.
    Asked,
    /// It is known.
    Known,
    /// The controller does not take it on this stream.
    Parked,
}

/// What is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// An empty append that asks where the controller stands.
    Ask,
    /// Bytes from this offset on.
    From(u64),
}

impl Window {
    /// What is to be sent next of a log of `length` bytes.
    pub fn next(&self, length: u64) -> Next {
        match self.state {
            State::Fresh if length > 0 => Next::Ask,
            State::Known if self.sent < length => Next::From(self.sent),
            State::Fresh | State::Asked | State::Known | State::Parked => Next::Nothing,
        }
    }

    /// The question has been sent.
    pub fn asked(&mut self) {
        self.state = State::Asked;
    }

    /// Bytes from `start` to `end` have been sent.
    pub fn sent(&mut self, start: u64, end: u64) {
        self.under_way.push_back((start, end));
        self.sent = end;
        self.furthest = self.furthest.max(end);
    }

    /// Whether an acknowledgement of everything below `committed` is the last that what was sent can bring about.
    pub fn settled(&self, committed: u64) -> bool {
        committed >= self.furthest
    }

    /// The controller stands at `committed`. Acknowledgements come in the order of what was sent, so one below the
    /// start of the oldest piece under way says that the controller has not got what came before it: it is sent again
    /// from there.
    pub fn acked(&mut self, committed: u64, length: u64) {
        if self.state == State::Parked {
            return;
        }
        let committed = committed.min(length);
        let first = self.state != State::Known;
        self.state = State::Known;
        self.committed = committed;
        while self.under_way.front().is_some_and(|(_, end)| *end <= committed) {
            self.under_way.pop_front();
        }
        let behind = self.under_way.front().map_or(committed < self.sent, |(start, _)| *start > committed);
        if first || behind {
            self.under_way.clear();
            self.sent = committed;
        }
        self.sent = self.sent.max(committed);
    }

    /// The controller does not take it.
    pub fn park(&mut self) {
        self.state = State::Parked;
        self.under_way.clear();
    }

    /// How many bytes are under way.
    pub fn unacknowledged(&self) -> u64 {
        self.under_way.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether an answer is awaited.
    pub fn waits(&self) -> bool {
        self.state == State::Asked || !self.under_way.is_empty()
    }

    /// Whether the controller holds all of a log that ends at `length`.
    pub fn complete(&self, length: u64) -> bool {
        length == 0 || (self.state == State::Known && self.committed >= length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_asks_first_and_goes_on_where_the_controller_stands() {
        let mut window = Window::default();
        assert_eq!(window.next(0), Next::Nothing);
        assert_eq!(window.next(100), Next::Ask);
        window.asked();
        assert_eq!(window.next(100), Next::Nothing);
        window.acked(40, 100);
        assert_eq!(window.next(100), Next::From(40));
        window.sent(40, 100);
        assert_eq!((window.next(100), window.unacknowledged()), (Next::Nothing, 60));
        assert!(!window.settled(99) && window.settled(100));
        window.acked(100, 100);
        assert!(window.complete(100) && !window.waits());
    }

    #[test]
    fn a_controller_that_lost_its_tail_gets_it_again() {
        let mut window = Window::default();
        window.asked();
        window.acked(0, 100);
        window.sent(0, 50);
        window.acked(50, 100);
        window.sent(50, 70);
        window.sent(70, 100);
        window.acked(20, 100);
        assert_eq!(window.next(100), Next::From(20));
        // Answers to what was dropped change nothing.
        window.sent(20, 60);
        window.acked(20, 100);
        assert_eq!(window.next(100), Next::From(60));
        window.acked(60, 100);
        assert_eq!((window.next(100), window.unacknowledged()), (Next::From(60), 0));
    }

    #[test]
    fn what_is_not_taken_is_left_until_the_next_stream() {
        let mut window = Window::default();
        window.asked();
        window.park();
        window.acked(5, 10);
        assert_eq!(window.next(10), Next::Nothing);
        assert!(!window.waits() && !window.complete(10));
    }

    proptest! {
        /// A controller that takes appends in order, and now and then loses its tail, ends with the whole log.
        #[test]
        fn every_byte_arrives(length in 1_u64..500, steps in prop::collection::vec((0_u8..4, 1_u64..60), 1..200)) {
            let mut window = Window::default();
            let mut held = 0_u64;
            let mut appends: VecDeque<(u64, u64)> = VecDeque::new();
            let mut acks: VecDeque<u64> = VecDeque::new();
            let mut step = |kind: u8, size: u64, window: &mut Window, lossy: bool| {
                match kind {
                    0 => match window.next(length) {
                        Next::Ask => { window.asked(); appends.push_back((0, 0)); }
                        Next::From(start) => {
                            let end = length.min(start + size);
                            window.sent(start, end);
                            appends.push_back((start, end));
                        }
                        Next::Nothing => {}
                    },
                    1 => if let Some((start, end)) = appends.pop_front() {
                        if start <= held { held = held.max(end); }
                        acks.push_back(held);
                    },
                    2 => if let Some(committed) = acks.pop_front() { window.acked(committed, length); },
                    _ => if lossy { held = held.saturating_sub(size); },
                }
                held
            };
            for (kind, size) in steps {
                step(kind, size, &mut window, true);
            }
            // A lost tail is only seen by the next append, so the model's losses end with a new stream.
            let mut fresh = Window::default();
            let mut end = 0;
            for round in 0..10_000_u32 {
                end = step((round % 3) as u8, 50, if round < 600 { &mut window } else { &mut fresh }, false);
                if fresh.complete(length) { break; }
            }
            prop_assert!(fresh.complete(length));
            prop_assert_eq!(end, length);
        }
    }
}

//! PURE: how long the controller has certainly known that this executor is there. No clock, no I/O.
//!
//! A lease counts from the moment at which a message was *sent*: the controller has heard of us no earlier than that, so
//! it never replaces an attempt before the attempt's own clock has run out. What a new session confirms counts only once
//! its first full set of wishes is here: an attempt that was replaced meanwhile is fenced by then, and does not begin by
//! the lease of its successor.

use std::{collections::VecDeque, time::Duration};

/// Heartbeats that wait for their confirmation. One that finds no place is not remembered, which only shortens the lease.
const REMEMBERED: usize = 256;

/// What has been sent, and what of it the controller has confirmed. Times are CLOCK_BOOTTIME, which suspend does not stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// Never used twice in one process, so that what an earlier session confirms means nothing in a later one.
    sequence: u64,
    sent: VecDeque<(u64, Duration)>,
    /// What is confirmed in a session whose wishes are not known yet.
    early: Option<Duration>,
    told: bool,
    confirmed: Option<Duration>,
}

impl Leases {
    /// A session has begun with a Hello that was sent at `hello`.
    pub fn welcomed(&mut self, hello: Duration) {
        self.sent.clear();
        self.told = false;
        self.early = Some(hello);
    }

    /// What the controller wants is known in full.
    pub fn told(&mut self) {
        self.told = true;
        self.confirmed = self.confirmed.max(self.early.take());
    }

    /// The sequence of a heartbeat that is sent at `now`.
    pub fn beat(&mut self, now: Duration) -> u64 {
        self.sequence += 1;
        if self.sent.len() < REMEMBERED {
            self.sent.push_back((self.sequence, now));
        }
        self.sequence
    }

    /// The controller has committed that the heartbeat `leased` arrived.
    pub fn acked(&mut self, leased: u64) {
        if leased > self.sequence {
            return;
        }
        while let Some((_, at)) = self.sent.front().filter(|(sequence, _)| *sequence <= leased).copied() {
            self.sent.pop_front();
            self.confirm(at);
        }
    }

    /// When the newest message was sent that is known to have arrived; none before the first session.
    pub fn confirmed(&self) -> Option<Duration> {
        self.confirmed
    }

    fn confirm(&mut self, at: Duration) {
        let counts = if self.told { &mut self.confirmed } else { &mut self.early };
        *counts = (*counts).max(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What happens in a session, and the lease after it.
    enum Then {
        Hello(u64),
        Welcomed(u64),
        Beat(u64),
        Acked(u64),
    }
    use Then::{Acked, Beat, Hello, Welcomed};

    fn confirmed(story: &[Then]) -> Option<Duration> {
        let mut leases = Leases::default();
        for then in story {
            match then {
                Hello(hello) => leases.welcomed(at(*hello)),
                Welcomed(hello) => {
                    leases.welcomed(at(*hello));
                    leases.told();
                }
                Beat(now) => drop(leases.beat(at(*now))),
                Acked(leased) => leases.acked(*leased),
            }
        }
        leases.confirmed()
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_what_is_confirmed() {
        for (story, expected, what) in [
            (&[][..], None, "nothing is held without a session"),
            (&[Beat(5), Acked(0)], None, "an answer of 0 confirms no heartbeat"),
            (&[Welcomed(10)], Some(10), "Welcome confirms the Hello"),
            (&[Hello(10)], None, "but counts for nothing before the wishes are known"),
            (&[Hello(10), Beat(20), Acked(1)], None, "nor does a heartbeat"),
            (&[Welcomed(10), Beat(20), Acked(1), Hello(100)], Some(20), "and what was confirmed before stays"),
            (&[Welcomed(10), Beat(20), Acked(0)], Some(10), "the database lags"),
            (&[Welcomed(10), Beat(20), Acked(1)], Some(20), "from its sending, whenever the answer comes"),
            (&[Welcomed(10), Beat(20), Beat(30), Beat(40), Acked(3)], Some(40), "answers to 1 and 2 were lost"),
            (
                &[Welcomed(10), Beat(20), Beat(30), Acked(2), Acked(1), Acked(0)],
                Some(30),
                "answers overtook each other",
            ),
            (&[Welcomed(10), Beat(20), Beat(30), Acked(1), Acked(1)], Some(20), "an answer came twice"),
            (&[Welcomed(10), Beat(20), Acked(2)], Some(10), "nobody has sent number 2"),
            (&[Welcomed(10), Beat(20), Welcomed(100), Acked(1)], Some(100), "number 1 was an earlier session's"),
            (&[Welcomed(10), Beat(20), Welcomed(100), Beat(110), Acked(1)], Some(100), "the same, beside a new one"),
            (&[Welcomed(10), Beat(20), Acked(1), Welcomed(15)], Some(20), "a Hello that was long under way"),
            (&[Welcomed(10), Beat(20), Beat(4_000), Acked(1)], Some(20), "an hour of suspend passed before the answer"),
            (&[Welcomed(10), Beat(20), Beat(4_000), Acked(2)], Some(4_000), "and was over when it was sent"),
        ] {
            assert_eq!(confirmed(story), expected.map(at), "{what}");
        }
    }

    #[test]
    fn a_controller_that_confirms_nothing_costs_no_memory() {
        let mut leases = Leases::default();
        leases.welcomed(at(0));
        leases.told();
        let last = (1..=10_000).map(|second| leases.beat(at(second))).last();
        assert_eq!((last, leases.sent.len()), (Some(10_000), REMEMBERED));
        leases.acked(10_000);
        assert_eq!(leases.confirmed(), Some(at(REMEMBERED as u64)), "too short, never too long");
        assert_eq!(leases.beat(at(20_000)), 10_001);
        leases.acked(10_001);
        assert_eq!(leases.confirmed(), Some(at(20_000)));
    }
}

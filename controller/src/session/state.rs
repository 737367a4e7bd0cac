//! One executor's session as a pure reducer: what comes in, what goes out. No clock, no socket, no database.
//!
//! The database says what should be, the executor what is; this remembers what was said in this session and sends the
//! difference. Loss, duplication and reordering are harmless: a full set repairs them every [`REFRESH`].

mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sculpt_proto::id::AttemptId;

pub use self::words::{Census, Closed, Input, Observed, Output};
use crate::store::sessions::{Phase, Wish};

/// Silence after which the session is given up.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// How often the executor is to send a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often what should be is read again, whether anything was told or not.
pub const POLL: Duration = Duration::from_secs(5);

/// How often the full set is sent again.
pub const REFRESH: Duration = Duration::from_secs(60);

/// At most so often the database hears that the executor was heard of.
pub const SEEN: Duration = Duration::from_secs(5);

/// Attempts in one message: far below 256 KiB.
pub const PIECE: usize = 1000;

/// Attempts that an executor may name in one full set.
pub const MOST_OBSERVED: usize = 100_000;

/// Attempts that a session remembers: what the executor named, and what it was told or has told of since.
const MOST_KNOWN: usize = 2 * MOST_OBSERVED;

/// Where the reading of wishes stands: one read at a time, and one more after it if something changed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The first census has not been compared yet: nothing may be said.
    Waiting,
    No,
    Yes,
    Again,
}

/// The memory of a session. Times are since its start.
#[derive(Clone, Debug)]
pub struct Session {
    gathering: Census,
    /// Reported while a census was being gathered: the executor has them, whatever the census says.
    reported: BTreeSet<AttemptId>,
    /// Reported since the gathering of the last census began.
    telling: BTreeSet<AttemptId>,
    /// A census is being compared; the newest of those that came meanwhile waits.
    reconciling: bool,
    newer: Option<Census>,
    /// What the executor is known to have or was told of in this session.
    known: BTreeSet<AttemptId>,
    told: BTreeMap<AttemptId, Wish>,
    /// What the last census found it to owe something for: it may be released before it is ever told.
    owed: BTreeSet<AttemptId>,
    released: BTreeSet<AttemptId>,
    reading: Reading,
    /// The next set goes out in full.
    full: bool,
    closed: Option<String>,
    /// The newest heartbeat that was heard; the newest that a [`Output::Seen`] covers; the newest that is committed.
    beat: u64,
    noted: u64,
    leased: u64,
    heard: Duration,
    seen: Duration,
    polled: Duration,
    refreshed: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that has just been welcomed.
    pub fn new() -> Self {
        Self {
            gathering: Census::new(),
            reported: BTreeSet::new(),
            telling: BTreeSet::new(),
            reconciling: false,
            newer: None,
            known: BTreeSet::new(),
            told: BTreeMap::new(),
            owed: BTreeSet::new(),
            released: BTreeSet::new(),
            reading: Reading::Waiting,
            full: true,
            closed: None,
            beat: 0,
            noted: 0,
            leased: 0,
            heard: Duration::ZERO,
            seen: Duration::ZERO,
            polled: Duration::ZERO,
            refreshed: Duration::ZERO,
        }
    }

    /// Takes `input` in at `now`.
    pub fn step<R, A>(&mut self, now: Duration, input: Input<R, A>) -> Vec<Output<R, A>> {
        match input {
            Input::Observed { attempts, last } => {
                let mut outputs = self.hear(now);
                outputs.extend(self.observed(attempts, last));
                outputs
            }
            Input::Heartbeat { sequence, closed } => self.heartbeat(now, sequence, closed),
            Input::Report { attempt, report } => {
                let mut outputs = self.hear(now);
                self.known.insert(attempt);
                self.telling.insert(attempt);
                if !self.gathering.is_empty() || self.reading == Reading::Waiting {
                    self.reported.insert(attempt);
                }
                match self.known.len() {
                    ..=MOST_KNOWN => outputs.push(Output::Apply(report)),
                    _ => outputs.push(Output::Close(Closed::Flood)),
                }
                outputs
            }
            Input::Applied(answer) => vec![Output::Ack(answer)],
            Input::Leased(beat) => self.lease(beat),
            Input::Reconciled { released, owed, behind } => {
                self.released.extend(released);
                self.owed.extend(owed);
                // Who tells by itself is answered where it stands.
                let silent = behind.into_iter().filter(|(attempt, _)| !self.telling.contains(attempt));
                let mut outputs: Vec<_> = silent.map(|(_, answer)| Output::Ack(answer)).collect();
                outputs.extend(self.read_first());
                self.reconciling = false;
                if let Some(census) = self.newer.take() {
                    self.reconciling = true;
                    outputs.push(Output::Reconcile(census));
                }
                outputs
            }
            Input::Wishes(wishes) => self.wishes(now, wishes),
            Input::Adopted(attempts) if attempts.is_empty() => Vec::new(),
            Input::Adopted(attempts) => vec![Output::Adopt(attempts)],
            Input::Told => self.read(),
            Input::Tick => self.tick(now),
            Input::Superseded => vec![Output::Close(Closed::Superseded)],
        }
    }

    fn heartbeat<R, A>(&mut self, now: Duration, sequence: u64, closed: Option<String>) -> Vec<Output<R, A>> {
        self.beat = self.beat.max(sequence);
        let mut outputs = vec![Output::HeartbeatAck { sequence, leased: self.leased }];
        if closed == self.closed {
            outputs.extend(self.hear(now));
        } else {
            self.closed = closed;
            self.heard = now;
            outputs.push(self.note(now));
        }
        outputs
    }

    /// What the database has not committed is no lease: a replica that takes over knows nothing of it.
    fn lease<R, A>(&mut self, beat: u64) -> Vec<Output<R, A>> {
        if beat <= self.leased {
            return Vec::new();
        }
        self.leased = beat;
        vec![Output::HeartbeatAck { sequence: self.beat, leased: beat }]
    }

    fn hear<R, A>(&mut self, now: Duration) -> Vec<Output<R, A>> {
        self.heard = now;
        if now.saturating_sub(self.seen) < SEEN { Vec::new() } else { vec![self.note(now)] }
    }

    fn note<R, A>(&mut self, now: Duration) -> Output<R, A> {
        self.seen = now;
        self.noted = self.beat;
        Output::Seen { closed: self.closed.clone(), beat: self.beat }
    }

    fn observed<R, A>(&mut self, attempts: Vec<Observed>, last: bool) -> Vec<Output<R, A>> {
        self.gathering.extend(attempts.into_iter().map(|observed| (observed.attempt, observed)));
        if self.gathering.len() > MOST_OBSERVED {
            return vec![Output::Close(Closed::Flood)];
        }
        if !last {
            return Vec::new();
        }
        self.telling.clone_from(&self.reported);
        let mut census = std::mem::take(&mut self.gathering);
        for attempt in std::mem::take(&mut self.reported) {
            census.entry(attempt).or_insert(Observed {
                attempt,
                cluster: None,
                ended: false,
                reports: 0,
                unreadable: None,
            });
        }
        self.known.extend(census.keys());
        if self.known.len() > MOST_KNOWN {
            return vec![Output::Close(Closed::Flood)];
        }
        if self.reconciling {
            self.newer = Some(census);
            return Vec::new();
        }
        self.reconciling = true;
        vec![Output::Reconcile(census)]
    }

    fn read_first<R, A>(&mut self) -> Vec<Output<R, A>> {
        if self.reading == Reading::Waiting {
            self.reading = Reading::No;
        }
        self.read()
    }

    fn read<R, A>(&mut self) -> Vec<Output<R, A>> {
        match self.reading {
            Reading::Waiting => Vec::new(),
            Reading::No => {
                self.reading = Reading::Yes;
                vec![Output::Read]
            }
            Reading::Yes | Reading::Again => {
                self.reading = Reading::Again;
                Vec::new()
            }
        }
    }

    fn wishes<R, A>(&mut self, now: Duration, wishes: BTreeMap<AttemptId, Wish>) -> Vec<Output<R, A>> {
        let again = self.reading == Reading::Again;
        self.reading = Reading::No;
        // What the executor is not known to have is named only where it may still begin: it is not asked to stop what it never had.
        let wishes: BTreeMap<AttemptId, Wish> = wishes
            .into_iter()
            .filter(|(attempt, wish)| (wish.may_begin && wish.phase != Phase::Fence) || self.known.contains(attempt))
            .collect();
        let mut released = std::mem::take(&mut self.released);
        released.extend(std::mem::take(&mut self.owed).into_iter().filter(|attempt| !wishes.contains_key(attempt)));
        released.extend(self.told.keys().filter(|attempt| !wishes.contains_key(attempt)));
        released.retain(|attempt| !wishes.contains_key(attempt));
        let full = std::mem::take(&mut self.full);
        let attempts: Vec<(AttemptId, Wish)> = wishes
            .iter()
            .filter(|(attempt, wish)| full || self.told.get(attempt).is_none_or(|told| !told.says_the_same(wish)))
            .map(|(attempt, wish)| (*attempt, wish.clone()))
            .collect();
        self.known.extend(wishes.keys());
        self.told = wishes;
        if full {
            self.refreshed = now;
        }
        let mut outputs = pieces(full, attempts, released.into_iter().collect());
        if again {
            outputs.extend(self.read());
        }
        outputs
    }

    fn tick<R, A>(&mut self, now: Duration) -> Vec<Output<R, A>> {
        if now.saturating_sub(self.heard) >= WATCHDOG {
            return vec![Output::Close(Closed::Silent)];
        }
        let mut outputs = Vec::new();
        // A heartbeat that came right after another message is no lease yet, and the next one is far away.
        if self.beat > self.noted && now.saturating_sub(self.seen) >= SEEN {
            outputs.push(self.note(now));
        }
        if now.saturating_sub(self.refreshed) >= REFRESH && self.reading != Reading::Waiting {
            self.full = true;
            self.refreshed = now;
        }
        if now.saturating_sub(self.polled) >= POLL {
            self.polled = now;
            outputs.extend(self.read());
        }
        outputs
    }
}

/// One set in pieces that fit a message each.
fn pieces<R, A>(full: bool, attempts: Vec<(AttemptId, Wish)>, released: Vec<AttemptId>) -> Vec<Output<R, A>> {
    if !full && attempts.is_empty() && released.is_empty() {
        return Vec::new();
    }
    type Piece = (Vec<(AttemptId, Wish)>, Vec<AttemptId>);
    let mut sets: Vec<Piece> = attempts.chunks(PIECE).map(|piece| (piece.to_vec(), Vec::new())).collect();
    sets.extend(released.chunks(PIECE).map(|piece| (Vec::new(), piece.to_vec())));
    if sets.is_empty() {
        sets.push((Vec::new(), Vec::new()));
    }
    let count = sets.len();
    sets.into_iter()
        .enumerate()
        .map(|(at, (attempts, released))| Output::Desired {
            full: full && at == 0,
            last: !full || at + 1 == count,
            attempts,
            released,
        })
        .collect()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "state_model.rs"]
mod model;

//! PURE: what the controller wants against what is here, and which reports it has. No clock, no I/O.
//!
//! Loss, duplication and reordering of messages are harmless: wishes only grow stricter, acknowledgements only rise,
//! and a new session starts with everything that is not acknowledged.

mod input;

use std::collections::{BTreeMap, BTreeSet};

use sculpt_proto::id::{AttemptId, ClusterId};

pub use input::{Input, Refusal, Wanted, Wish};

/// What is to be done about it. Every effect may be done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the full set of what is here.
    Observe,
    /// Send these reports from the journal.
    Report {
        /// Whose.
        attempt: AttemptId,
        /// First sequence.
        from: u64,
        /// Last sequence.
        through: u64,
    },
    /// Begin an attempt.
    Start(Wanted),
    /// Hand a wish to an attempt.
    Wish(AttemptId, Wish),
    /// An attempt of which nothing has been reported is not wanted any more.
    Abandon(AttemptId),
    /// The controller holds everything of it.
    Release(AttemptId),
    /// It is wanted again: the controller has lost what it had acknowledged.
    Unrelease(AttemptId),
    /// Hand their specs to the controller, which takes them over.
    HandIn(Vec<AttemptId>),
    /// The controller has lost what it published: publish it again.
    PublishAgain(AttemptId),
    /// The first full set has been taken in.
    Ready,
    /// For the log.
    Warn(AttemptId, &'static str),
}

#[derive(Clone, Debug)]
struct Held {
    /// None until the spec is here.
    cluster: Option<ClusterId>,
    wish: Wish,
    last: u64,
    sent: u64,
    acked: u64,
    released: bool,
    broken: bool,
    damaged: bool,
    /// Its spec is being handed in.
    handing: bool,
    /// The controller does not take reports of it in this session.
    parked: bool,
    /// Its end was refused in this session, perhaps for what it says was published.
    again: bool,
    /// Where the last gap was; the same gap twice without progress ends the resending.
    gap: Option<u64>,
}

impl Held {
    fn new() -> Self {
        Self {
            cluster: None,
            wish: Wish::Run,
            last: 0,
            sent: 0,
            acked: 0,
            released: false,
            broken: false,
            damaged: false,
            handing: false,
            parked: false,
            again: false,
            gap: None,
        }
    }

    fn settled(&self) -> bool {
        self.acked >= self.last
    }
}

/// The session's memory.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    cluster: Option<ClusterId>,
    connected: bool,
    held: BTreeMap<AttemptId, Held>,
    gathering: Option<BTreeSet<AttemptId>>,
}

impl Machine {
    /// Takes in what has happened.
    pub fn apply(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Welcomed { cluster } => self.welcomed(cluster),
            Input::Lost => {
                self.connected = false;
                self.gathering = None;
                Vec::new()
            }
            Input::Desired { full, last, attempts, released } => self.desired(full, last, attempts, released),
            Input::Acked { attempt, through, refusal } => self.acked(attempt, through, refusal),
            Input::Present { attempt, cluster, last, released } => {
                let held = self.held.entry(attempt).or_insert_with(Held::new);
                held.cluster = Some(cluster);
                held.last = held.last.max(last);
                held.released |= released;
                self.report(attempt)
            }
            Input::Broken(attempt) => {
                let Some(held) = self.held.get_mut(&attempt) else { return Vec::new() };
                held.broken = true;
                if self.connected && held.settled() { vec![Effect::Observe] } else { Vec::new() }
            }
            Input::Delivered(attempt) => {
                let waits = |held: &Held| (held.broken || held.damaged) && held.settled();
                let named = self.connected && self.held.get(&attempt).is_some_and(waits);
                if named { vec![Effect::Observe] } else { Vec::new() }
            }
            Input::Damaged { attempt, cluster, over } => {
                let held = self.held.entry(attempt).or_insert_with(Held::new);
                held.cluster = cluster.or(held.cluster);
                held.damaged = true;
                (held.last, held.sent) = (held.acked, held.acked);
                if self.connected && over { vec![Effect::Observe] } else { Vec::new() }
            }
            Input::Adopt(attempts) => {
                let asked: Vec<AttemptId> = attempts.into_iter().filter(|attempt| self.adopt(*attempt)).collect();
                if asked.is_empty() { Vec::new() } else { vec![Effect::HandIn(asked)] }
            }
            Input::HandedIn { attempt, cluster } => self.handed_in(attempt, cluster),
            Input::PublishedAgain(attempt) => {
                let Some(held) = self.held.get_mut(&attempt) else { return Vec::new() };
                held.parked = false;
                self.report(attempt)
            }
            Input::Recorded { attempt, sequence } => {
                let held = self.held.entry(attempt).or_insert_with(Held::new);
                held.last = held.last.max(sequence);
                self.report(attempt)
            }
            Input::Gone(attempt) => {
                self.held.remove(&attempt);
                Vec::new()
            }
        }
    }

    /// What is wanted of an attempt.
    pub fn wish(&self, attempt: AttemptId) -> Option<Wish> {
        self.held.get(&attempt).map(|held| held.wish)
    }

    /// Whether the controller has committed every report of an attempt.
    pub fn settled(&self, attempt: AttemptId) -> bool {
        self.held.get(&attempt).is_none_or(Held::settled)
    }

    fn welcomed(&mut self, cluster: ClusterId) -> Vec<Effect> {
        self.cluster = Some(cluster);
        self.connected = true;
        self.gathering = None;
        let mut effects = vec![Effect::Observe];
        for held in self.held.values_mut() {
            held.sent = held.acked;
            (held.parked, held.again) = (false, false);
            held.gap = None;
        }
        let attempts: Vec<AttemptId> = self.held.keys().copied().collect();
        effects.extend(attempts.into_iter().flat_map(|attempt| self.report(attempt)));
        effects
    }

    fn desired(&mut self, full: bool, last: bool, attempts: Vec<Wanted>, released: Vec<AttemptId>) -> Vec<Effect> {
        if full {
            self.gathering = Some(BTreeSet::new());
        }
        let mut effects = Vec::new();
        for wanted in attempts {
            if let Some(set) = &mut self.gathering {
                set.insert(wanted.attempt);
            }
            effects.extend(self.wanted(wanted));
        }
        for attempt in released {
            if let Some(held) = self.held.get_mut(&attempt) {
                held.released = true;
                // Also again: it may have failed the last time.
                effects.push(Effect::Release(attempt));
            }
        }
        if last && let Some(set) = self.gathering.take() {
            // What has been reported is left alone: a wrong or restored database must not end it.
            let unwanted = self.held.iter().filter(|(id, held)| held.last == 0 && !held.damaged && !set.contains(id));
            effects.extend(unwanted.map(|(id, _)| Effect::Abandon(*id)));
            effects.push(Effect::Ready);
        }
        effects
    }

    fn wanted(&mut self, wanted: Wanted) -> Vec<Effect> {
        let ours = self.cluster;
        let Some(held) = self.held.get_mut(&wanted.attempt) else {
            self.held.insert(wanted.attempt, Held { wish: wanted.wish, ..Held::new() });
            return vec![Effect::Start(wanted)];
        };
        if wanted.wish == Wish::Fence && held.cluster.is_some() && held.cluster != ours {
            return vec![Effect::Warn(wanted.attempt, "a fence from another cluster than the one that minted it")];
        }
        let mut effects = Vec::new();
        if held.released {
            held.released = false;
            (held.sent, held.acked) = (0, 0);
            effects.push(Effect::Unrelease(wanted.attempt));
            effects.extend(self.report(wanted.attempt));
        }
        if let Some(held) = self.held.get_mut(&wanted.attempt) {
            let wish = held.wish.follow(wanted.wish);
            if wish != held.wish {
                held.wish = wish;
                effects.push(Effect::Wish(wanted.attempt, wish));
            }
        }
        effects
    }

    /// Whether its spec is to be handed in.
    fn adopt(&mut self, attempt: AttemptId) -> bool {
        let held = self.held.get_mut(&attempt).filter(|held| held.cluster.is_some());
        held.is_some_and(|held| !std::mem::replace(&mut held.handing, true))
    }

    /// Who has taken it over knows nothing of it yet, and a fence counts in that name alone.
    fn handed_in(&mut self, attempt: AttemptId, cluster: Option<ClusterId>) -> Vec<Effect> {
        let Some(held) = self.held.get_mut(&attempt) else { return Vec::new() };
        held.handing = false;
        if cluster.is_none() {
            return Vec::new();
        }
        held.cluster = cluster;
        (held.sent, held.acked) = (0, 0);
        (held.released, held.parked, held.again, held.gap) = (false, false, false, None);
        self.report(attempt)
    }

    fn acked(&mut self, attempt: AttemptId, through: u64, refusal: Option<Refusal>) -> Vec<Effect> {
        let ours = self.cluster;
        let Some(held) = self.held.get_mut(&attempt) else { return Vec::new() };
        let through = through.min(held.last);
        let Some(refusal) = refusal else {
            let owed = !held.settled();
            held.acked = held.acked.max(through);
            held.sent = held.sent.max(held.acked);
            held.gap = None;
            return if owed && held.broken && held.settled() { vec![Effect::Observe] } else { Vec::new() };
        };
        match refusal {
            Refusal::Gap if held.gap != Some(through) => {
                held.gap = Some(through);
                (held.sent, held.acked) = (through, through);
                self.report(attempt)
            }
            Refusal::Gap => Vec::new(),
            Refusal::Unknown => {
                held.parked = true;
                vec![Effect::Warn(attempt, "the controller does not know it; it goes on")]
            }
            Refusal::Illegal => {
                // One that was consumed all the same does not stand in the way of those after it.
                held.parked = through <= held.acked;
                held.acked = held.acked.max(through);
                held.sent = held.sent.max(held.acked);
                let mut effects = vec![Effect::Warn(attempt, "the controller refused a report as illegal")];
                if held.parked && through + 1 == held.last && !held.again {
                    // Every other step is consumed when it does not fit; an end is refused for what it says was published.
                    held.again = true;
                    (held.sent, held.acked) = (through, through);
                    effects.push(Effect::PublishAgain(attempt));
                }
                effects
            }
            Refusal::Fenced if held.cluster.is_some() && held.cluster != ours => {
                vec![Effect::Warn(attempt, "a fence from another cluster than the one that minted it")]
            }
            Refusal::Fenced => {
                // Consumed all the same. Its end is still owed: the controller keeps account of it until it is told.
                held.acked = held.acked.max(through);
                held.sent = held.sent.max(held.acked);
                let changed = held.wish != Wish::Fence;
                held.wish = Wish::Fence;
                if changed { vec![Effect::Wish(attempt, Wish::Fence)] } else { Vec::new() }
            }
        }
    }

    /// Everything in the journal that has not been sent in this session.
    fn report(&mut self, attempt: AttemptId) -> Vec<Effect> {
        match self.held.get_mut(&attempt) {
            Some(held) if self.connected && !held.parked && !held.released && held.sent < held.last => {
                let from = held.sent + 1;
                held.sent = held.last;
                vec![Effect::Report { attempt, from, through: held.last }]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "machine_laws.rs"]
mod laws;

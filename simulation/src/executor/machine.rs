//! A build host: what is on its disk, and the agents with their shims. It outlives every crash of the executor; a reboot
//! ends the agents and leaves the disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sculpt_executor::{report::Step, shim::Lease};
use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId};
use tokio::sync::watch;

use crate::{
    book::Archive,
    dice::Dice,
    guard::Guard,
    network::Clock,
    witness::{Ending, Witness},
    world::World,
};

/// A build host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The executor on it.
    pub id: ExecutorId,
    /// Its name on the network.
    pub name: String,
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// Its CLOCK_BOOTTIME.
    pub clock: Clock,
    world: World,
    witness: Witness,
    archive: Archive,
    dice: Dice,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    boot: u32,
    cluster: Option<ClusterId>,
    records: BTreeMap<AttemptId, Record>,
    agents: BTreeMap<AttemptId, Agent>,
}

/// An attempt on disk.
#[derive(Clone, Debug)]
pub struct Record {
    /// The encoded spec.
    pub spec: Vec<u8>,
    /// Reports, each with the time of its writing.
    pub journal: Vec<(Step, Duration)>,
    /// The controller holds everything.
    pub released: bool,
    /// The controller does not have what it published.
    pub unpublished: bool,
    /// What its agent printed.
    pub spool: Vec<u8>,
    /// How its agent ended, once that is recorded; a reboot leaves no record.
    pub exit: Option<Ending>,
    /// The boot in which its agent was started, once it was.
    pub launched: Option<u32>,
}

impl Record {
    /// The last step that moves it.
    pub fn last_step(&self) -> Option<&Step> {
        self.journal.iter().rev().map(|(step, _)| step).find(|step| step.moves())
    }

    /// Whether its last report is in the journal.
    pub fn ended(&self) -> bool {
        matches!(self.last_step(), Some(Step::Ended(_)))
    }
}

/// An agent and its shim.
#[derive(Debug)]
struct Agent {
    lines: u32,
    printed: u32,
    pace: Duration,
    next: Duration,
    code: i32,
    stop: Option<(Duration, Ending)>,
    /// How long its tree takes to go when its lease has run out.
    lingers: Duration,
    lease: Option<Lease>,
    /// Raised whenever something about it has changed.
    news: watch::Sender<u64>,
}

/// What is found of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was never started.
    Never,
    /// It lives.
    Alive,
    /// Its end is recorded.
    Recorded(Ending),
    /// It is gone without a record.
    Vanished,
}

impl Machine {
    /// A host with an empty disk.
    pub fn new(number: usize, slots: u32, world: World, witness: Witness, archive: Archive) -> Self {
        let id = ExecutorId(world.dice.uuid());
        let dice = world.dice.split();
        let name = format!("executor-{number}");
        let clock = Clock::any(&dice);
        Self { id, name, slots, clock, world, witness, archive, dice, inner: Arc::default() }
    }

    /// What its clock shows.
    pub fn boottime(&self) -> Duration {
        self.clock.at(self.world.now())
    }

    /// The cluster that its executor belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner().cluster
    }

    /// Its executor belongs to `cluster` from now on.
    pub fn join(&self, cluster: ClusterId) {
        self.inner().cluster = Some(cluster);
    }

    /// Every attempt on disk.
    pub fn records(&self) -> Vec<(AttemptId, Record)> {
        self.inner().records.iter().map(|(id, record)| (*id, record.clone())).collect()
    }

    /// Looks at one attempt on disk.
    pub fn peek<T>(&self, attempt: AttemptId, look: impl FnOnce(&Record) -> T) -> Option<T> {
        self.inner().records.get(&attempt).map(look)
    }

    /// The ids of every attempt on disk.
    pub fn ids(&self) -> Vec<AttemptId> {
        self.inner().records.keys().copied().collect()
    }

    /// One attempt on disk.
    pub fn record(&self, attempt: AttemptId) -> Option<Record> {
        self.inner().records.get(&attempt).cloned()
    }

    /// Writes a spec; it is on disk when this returns.
    pub fn write_spec(&self, attempt: AttemptId, spec: Vec<u8>) {
        let (journal, spool) = (Vec::new(), Vec::new());
        let record = Record { spec, journal, released: false, unpublished: false, spool, exit: None, launched: None };
        self.inner().records.entry(attempt).or_insert(record);
    }

    /// Writes a step; it is on disk when this returns. The sequence that it has.
    pub fn write_step(&self, attempt: AttemptId, step: Step) -> u64 {
        let now = self.world.now();
        let mut inner = self.inner();
        let Some(record) = inner.records.get_mut(&attempt) else { return 0 };
        self.world.tell(format_args!("{}: {attempt} is {step:?}", self.name));
        record.journal.push((step, now));
        record.journal.len() as u64
    }

    /// Notes that the controller holds everything of an attempt, or that it does not.
    pub fn write_released(&self, attempt: AttemptId, released: bool) {
        if let Some(record) = self.inner().records.get_mut(&attempt) {
            record.released = released;
        }
    }

    /// Notes that the controller does not have what an attempt published.
    pub fn write_unpublished(&self, attempt: AttemptId) {
        if let Some(record) = self.inner().records.get_mut(&attempt) {
            record.unpublished = true;
        }
    }

    /// What is found of an agent.
    pub fn look(&self, attempt: AttemptId) -> Found {
        let inner = self.inner();
        match inner.records.get(&attempt) {
            Some(Record { exit: Some(ending), .. }) => Found::Recorded(*ending),
            Some(Record { launched: None, .. }) | None => Found::Never,
            Some(_) if inner.agents.contains_key(&attempt) => Found::Alive,
            Some(_) => Found::Vanished,
        }
    }

    /// Starts an agent.
    pub fn launch(&self, attempt: AttemptId, lease: Option<Lease>) {
        let now = self.world.now();
        let mut inner = self.inner();
        let boot = inner.boot;
        let Some(record) = inner.records.get_mut(&attempt) else { return };
        record.launched = Some(boot);
        self.world.tell(format_args!("{}: {attempt} begins", self.name));
        self.witness.begins(&self.archive.rows(), attempt, self.id);
        // Some go on for minutes, so that a lease can run out under them.
        let pace = if self.dice.chance(40) { self.dice.millis(3_000..9_000) } else { self.dice.millis(20..2_000) };
        // Most trees go at once; some take about as long as the margin allows.
        let lingers = if self.dice.chance(50) { self.dice.millis(0..8_000) } else { self.dice.millis(8_000..45_000) };
        let agent = Agent {
            lines: self.dice.roll(0..40),
            printed: 0,
            pace,
            next: now + pace,
            code: *self.dice.pick(&[0, 0, 0, 3]),
            stop: None,
            lingers,
            lease: lease.filter(|_| !self.world.lacks(Guard::Lease)),
            news: watch::Sender::new(0),
        };
        inner.agents.insert(attempt, agent);
    }

    /// Follows a living agent.
    pub fn follow(&self, attempt: AttemptId) -> Option<watch::Receiver<u64>> {
        self.inner().agents.get(&attempt).map(|agent| agent.news.subscribe())
    }

    /// Asks a shim to end its agent within `grace`.
    pub fn stop(&self, attempt: AttemptId, grace: Duration, why: Ending) {
        let now = self.world.now();
        if let Some(agent) = self.inner().agents.get_mut(&attempt) {
            agent.stop.get_or_insert((now + grace, why));
        }
    }

    /// Tells a shim that the lease was confirmed.
    pub fn renew(&self, attempt: AttemptId, confirmed: Duration) {
        let now = self.boottime();
        if let Some(agent) = self.inner().agents.get_mut(&attempt) {
            agent.lease = agent.lease.map(|lease| lease.renewed(confirmed, now));
        }
    }

    /// Whether agents live here.
    pub fn busy(&self) -> bool {
        !self.inner().agents.is_empty()
    }

    /// Time has passed: agents print and end.
    pub fn pass(&self) {
        let (now, boottime) = (self.world.now(), self.boottime());
        let mut inner = self.inner();
        let Inner { records, agents, .. } = &mut *inner;
        let mut over = Vec::new();
        for (id, agent) in agents.iter_mut() {
            let Some(record) = records.get_mut(id) else { continue };
            while agent.next <= now && agent.printed < agent.lines {
                agent.printed += 1;
                agent.next += agent.pace;
                let line = format!("{id} line {}\n", agent.printed);
                self.witness.prints(*id, line.as_bytes());
                record.spool.extend_from_slice(line.as_bytes());
                agent.news.send_modify(|news| *news += 1);
            }
            let limit = agent.lease.filter(|lease| lease.ends() + agent.lingers <= boottime).map(|_| Ending::Lease);
            let stopped = agent.stop.filter(|(at, _)| *at <= now).map(|(_, why)| why);
            let done = (agent.printed == agent.lines && agent.next <= now).then_some(Ending::Itself(agent.code));
            if let Some(ending) = stopped.or(limit).or(done) {
                record.exit = Some(ending);
                over.push((*id, ending));
            }
        }
        for (id, ending) in over {
            self.world.tell(format_args!("{}: {id} has ended: {ending:?}", self.name));
            self.witness.ends(&self.archive.rows(), id, ending);
            // Its followers wake when the sender goes.
            agents.remove(&id);
        }
    }

    /// The host goes down and comes up: agents are gone without a record.
    pub fn reboot(&self) {
        let mut inner = self.inner();
        inner.boot += 1;
        for (id, _) in std::mem::take(&mut inner.agents) {
            self.witness.ends(&self.archive.rows(), id, Ending::Rebooted);
        }
    }

    /// Something happened here that must not.
    pub fn complain(&self, what: std::fmt::Arguments<'_>) {
        self.world.wrong(format_args!("{}: {what}", self.name));
    }

    /// Whether the agent of an attempt was started in this boot, or never.
    pub fn same_boot(&self, attempt: AttemptId) -> bool {
        let inner = self.inner();
        let launched = inner.records.get(&attempt).and_then(|record| record.launched);
        launched.is_none_or(|boot| boot == inner.boot)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

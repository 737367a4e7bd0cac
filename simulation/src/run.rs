//! One seed from its beginning to the verdict.

use std::{
    cell::Cell,
    path::Path,
    sync::{Arc, Once},
    time::Duration,
};

use sculpt_core::task::{Event, Intent};
use sculpt_proto::id::{ClusterId, TaskId};
use turmoil::Sim;

use crate::{
    book::{
        Archive, Book, Weather,
        rows::{AttemptRow, Next, Rows},
    },
    controller,
    dice::Dice,
    executor::{self, Ground, machine::Machine},
    faults::{self, Fault, Link, PROMOTION, Planned},
    guard::Guard,
    network,
    people::{self, Deed},
    witness::Witness,
    world::World,
};

/// What the network's clock moves by, in milliseconds: fine ones cost time, coarse ones let more happen at once.
const TICKS: [u64; 6] = [20, 100, 200, 200, 200, 200];

/// After the last fault and the last agent everything must have come to rest within this time.
const REST: Duration = Duration::from_secs(400);

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The same for every run of the seed.
    pub hash: u64,
    /// What must not have happened.
    pub wrong: Vec<String>,
    /// Everything that happened.
    pub lines: Vec<String>,
    /// How long it was, in simulated time.
    pub lasted: Duration,
    /// How many faults there were.
    pub faults: usize,
}

/// Runs `seed`, if need be without one of the guards.
pub fn run(seed: u64, ground: &Ground, without: Option<Guard>) -> Verdict {
    let dice = Dice::new(seed);
    let world = World::new(dice.split(), without);
    let witness = Witness::new(world.clone());
    let cluster = ClusterId(dice.uuid());
    let (controllers, executors) = (dice.roll(1..=2), dice.roll(1..=3));
    let archive = Archive::new(without, controllers);
    network::begin(dice.split(), controllers);
    let mut sim = turmoil::Builder::new()
        .rng_seed(dice.roll(0..=u64::MAX))
        .tick_duration(Duration::from_millis(*dice.pick(&TICKS)))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(dice.millis(2..400))
        .simulation_duration(Duration::from_secs(86_400))
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    for number in 0..controllers {
        let (archive, world, witness) = (archive.clone(), world.clone(), witness.clone());
        sim.host(network::controller(number), move || {
            let book = Book::open(number, archive.clone(), world.clone(), witness.clone(), cluster);
            controller::run(book, world.clone(), witness.clone(), cluster)
        });
    }
    let machines: Vec<Machine> = (0..executors)
        .map(|number| {
            let slots = dice.roll(1..=3);
            Machine::new(number, slots, world.clone(), witness.clone(), archive.clone())
        })
        .collect();
    let directory: Arc<Path> = ground.path().into();
    for machine in &machines {
        let (name, machine) = (machine.name.clone(), machine.clone());
        let (world, directory) = (world.clone(), directory.clone());
        sim.host(name, move || executor::run(machine.clone(), world.clone(), directory.clone()));
    }
    let span = dice.millis(20_000..150_000);
    let plan = faults::plan(&dice, controllers, executors, span);
    let deeds = people::plan(&dice, span);
    let faults = plan.len();
    let panics = panics();
    let (tasks, under_way, copy) = (Vec::new(), Vec::new(), Rows::default());
    let mut play = Play { sim, controllers, world, archive, witness, machines, deeds, tasks, under_way, copy };
    play.play(plan);
    if self::panics() > panics {
        play.world.wrong(format_args!("something has panicked"));
    }
    Verdict {
        hash: play.world.hash(),
        wrong: play.world.wrongs(),
        lines: play.world.lines(),
        lasted: play.sim.elapsed(),
        faults,
    }
}

/// How many panics there were on this thread: a task's own are caught by its runtime.
fn panics() -> u64 {
    thread_local! {
        static PANICS: Cell<u64> = const { Cell::new(0) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
    PANICS.get()
}

struct Play<'a> {
    sim: Sim<'a>,
    controllers: usize,
    world: World,
    archive: Archive,
    witness: Witness,
    machines: Vec<Machine>,
    /// What people are still to do; the first comes last.
    deeds: Vec<(Duration, Deed)>,
    tasks: Vec<TaskId>,
    under_way: Vec<Planned>,
    /// What the database falls back to.
    copy: Rows,
}

impl Play<'_> {
    fn play(&mut self, plan: Vec<Planned>) {
        let mut plan = plan.into_iter().peekable();
        let mut healed = Duration::ZERO;
        loop {
            let now = self.sim.elapsed();
            self.world.pass(now);
            while let Some(planned) = plan.next_if(|planned| planned.from <= now) {
                self.begin(planned);
            }
            let over: Vec<Planned> = self.under_way.extract_if(.., |planned| planned.until <= now).collect();
            for planned in over {
                self.end(planned);
                healed = now;
            }
            self.people(now);
            for machine in &self.machines {
                machine.pass();
            }
            if let Err(error) = self.sim.step() {
                self.world.wrong(format_args!("a host has failed: {error}"));
                return;
            }
            if !self.world.wrongs().is_empty() {
                return;
            }
            if plan.peek().is_some() || !self.under_way.is_empty() {
                continue;
            }
            if let Some((at, _)) = self.deeds.first() {
                healed = healed.max(*at);
                continue;
            }
            if self.machines.iter().any(Machine::busy) {
                healed = now;
            }
            if self.at_rest() || now > healed + REST {
                self.witness.judge(&self.archive.rows());
                return;
            }
        }
    }

    /// Whether nothing more is to be expected.
    fn at_rest(&self) -> bool {
        let rows = self.archive.rows();
        let over = rows.tasks.values().all(|task| match task.run {
            Next::Queued(_) => task.intent == Intent::Cancel,
            Next::Newest(attempt) => rows.attempts.get(&attempt).is_some_and(|row| row.attempt.ended()),
        });
        over && rows.attempts.values().all(AttemptRow::settled)
    }

    fn people(&mut self, now: Duration) {
        while let Some((_, deed)) = self.deeds.pop_if(|(at, _)| *at <= now) {
            match deed {
                Deed::Create(on_lost, lost_after) => {
                    self.tasks.push(self.archive.create(&self.world, on_lost, lost_after));
                }
                Deed::Stop(number) => {
                    if let Some(task) = self.tasks.get(number) {
                        self.witness.stopped(*task);
                        self.archive.wish(&self.world, *task, &Event::Stop);
                    }
                }
                Deed::Retry(number) => {
                    if let Some(task) = self.tasks.get(number) {
                        self.archive.wish(&self.world, *task, &Event::Retry);
                    }
                }
            }
        }
    }

    fn begin(&mut self, planned: Planned) {
        if self.under_way.iter().any(|other| other.fault.collides(planned.fault)) {
            return;
        }
        self.world.tell(format_args!("fault: {:?} until {:.3}", planned.fault, planned.until.as_secs_f64()));
        self.under_way.push(planned);
        match planned.fault {
            Fault::Cut(link) => self.ways(link, |sim, controller, executor| sim.partition(controller, executor)),
            Fault::CutUp(link) => {
                self.ways(link, |sim, controller, executor| sim.partition_oneway(executor, controller));
            }
            Fault::CutDown(link) => {
                self.ways(link, |sim, controller, executor| sim.partition_oneway(controller, executor));
            }
            Fault::Stall(link) => self.ways(link, |sim, controller, executor| sim.hold(controller, executor)),
            Fault::KillController(number) => self.crash(network::controller(number)),
            Fault::KillExecutor(number) => self.crash(self.machines[number].name.clone()),
            Fault::Reboot(number) => {
                self.crash(self.machines[number].name.clone());
                self.machines[number].reboot();
            }
            Fault::FoulDatabase(number) => self.archive.set_weather(number, Weather::Foul),
            Fault::SlowDatabase(number) => self.archive.set_weather(number, Weather::Fair(4_000)),
            Fault::HungDatabase(number) => self.archive.set_weather(number, Weather::Hung),
            Fault::Noise => self.world.set_noise(true),
            Fault::Failover => self.copy = self.archive.rows().clone(),
            // It begins with the end of a failover.
            Fault::Promotion => {}
        }
    }

    fn crash(&mut self, host: String) {
        network::Host::crash(|| self.sim.crash(host));
    }

    fn end(&mut self, planned: Planned) {
        self.world.tell(format_args!("fault over: {:?}", planned.fault));
        match planned.fault {
            Fault::Cut(link) | Fault::CutUp(link) | Fault::CutDown(link) => {
                self.ways(link, |sim, controller, executor| sim.repair(controller, executor));
            }
            Fault::Stall(link) => self.ways(link, |sim, controller, executor| sim.release(controller, executor)),
            Fault::KillController(number) => self.sim.bounce(network::controller(number)),
            Fault::KillExecutor(number) | Fault::Reboot(number) => self.sim.bounce(self.machines[number].name.clone()),
            Fault::FoulDatabase(number) | Fault::SlowDatabase(number) | Fault::HungDatabase(number) => {
                self.archive.set_weather(number, Weather::FAIR);
            }
            Fault::Noise => self.world.set_noise(false),
            Fault::Failover => {
                let lost = std::mem::replace(&mut *self.archive.rows(), self.copy.clone());
                self.witness.set_back(&lost, &self.copy);
                let until = self.sim.elapsed() + PROMOTION;
                self.under_way.push(Planned { from: planned.until, until, fault: Fault::Promotion });
                self.weather_everywhere(Weather::Foul);
            }
            Fault::Promotion => self.weather_everywhere(Weather::FAIR),
        }
    }

    fn weather_everywhere(&self, weather: Weather) {
        (0..self.controllers).for_each(|number| self.archive.set_weather(number, weather));
    }

    fn ways(&self, link: Link, change: impl Fn(&Sim<'_>, String, String)) {
        let all = 0..self.controllers;
        for number in all.filter(|number| link.controller.is_none_or(|controller| controller == *number)) {
            change(&self.sim, network::controller(number), self.machines[link.executor].name.clone());
        }
    }
}

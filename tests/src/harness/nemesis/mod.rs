//! The nemesis: seeded random harm to a running stack while people use it, then the checker.

mod expect;
mod faults;
mod harm;
mod person;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex as Immediate, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{sync::Mutex, task::JoinSet};

use self::person::Person;
pub use self::{
    expect::{Deeds, Plan, unexpected},
    faults::Faults,
    harm::{Harm, Line, PARTS, Part, candidates, postmaster},
};
use super::{Cli, Dice, Fault, Options, Proxy, Repo, Stack, checker, within};

/// How long everything may take to come to its end once nobody does harm any more.
const AFTERMATH: Duration = Duration::from_secs(300);

/// A time of harm.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The same throws for the same seed; the stack's own timing differs, and so what they meet.
    pub seed: u64,
    /// How often each kind of process is killed at least, spread over the time.
    pub kills: usize,
    /// How long a process stands still at most.
    pub stop: Duration,
    /// How long harm is done.
    pub duration: Duration,
    /// How many people use the stack at once.
    pub people: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was done.
    pub faults: Faults,
    /// How long harm was done.
    pub lasted: Duration,
    /// How many tasks, attempts, log bytes there were.
    pub tasks: usize,
    /// Attempts.
    pub attempts: usize,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// Everything that should not be.
    pub violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.lasted.as_secs_f64() / 60.0;
        let all = self.faults.all();
        writeln!(f, "faults: {all}, {:.0} a minute", all as f64 / minutes.max(0.01))?;
        write!(f, "{}", self.faults)?;
        writeln!(f, "tasks: {}, attempts: {}, log bytes: {}", self.tasks, self.attempts, self.log_bytes)?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// What everybody in a campaign shares. The stack is held only as long as it takes to look at it or to start a part.
struct World {
    stack: Mutex<Stack>,
    deeds: Immediate<Deeds>,
    executor_line: Proxy,
    people_line: Proxy,
    repo: Repo,
    account: String,
    executor_data: PathBuf,
}

impl World {
    async fn new(seed: u64) -> Result<Self> {
        // What is kept for a while after an end would be taken for something left over.
        let mut stack = Options::default().settings("keep_workspaces = '0s'\n").parts().await?;
        let executor_line = Proxy::start(stack.executor_address()?, seed).await?;
        let people_line = Proxy::start(stack.user_address()?, !seed).await?;
        stack.executor_dials(executor_line.url());
        stack.executor()?.kill().await?;
        stack.start_executor().await?;
        let repo = stack.repo()?;
        stack.users_dial(Some(people_line.address().to_string()));
        Ok(Self {
            account: stack.written().to_string_lossy().into_owned(),
            executor_data: stack.executor_data(),
            stack: Mutex::new(stack),
            deeds: Immediate::default(),
            executor_line,
            people_line,
            repo,
        })
    }

    fn line(&self, line: Line) -> &Proxy {
        match line {
            Line::Executor => &self.executor_line,
            Line::People => &self.people_line,
        }
    }

    fn deed<T>(&self, write: impl FnOnce(&mut Deeds) -> T) -> T {
        write(&mut self.deeds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `sculpt WORDS` in the repository, not yet run.
    async fn prepare<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Cli {
        self.stack.lock().await.sculpt(words).dir(self.repo.path())
    }
}

impl Campaign {
    /// Does harm for the time, mends everything, waits for all ends and judges. `tell` is told of each fault.
    pub async fn run(self, tell: impl Fn(&str)) -> Result<Report> {
        let mut dice = Dice::new(self.seed);
        let world = Arc::new(World::new(self.seed).await?);
        // Everybody's first look is at a stack that works.
        let watcher = world.prepare(["events", "-f", "-o", "json"]).await.follow()?;
        let watched = tokio::spawn(watcher.rest_until_killed());
        let crowd = tokio::spawn(crowd(Arc::clone(&world), self, dice.fork()));
        let harmed = harm(&world, self, &mut dice, &tell).await;
        for line in [Line::Executor, Line::People] {
            world.line(line).set(Fault::None);
        }
        let faults = harmed?;
        within(AFTERMATH, "all people to be done", async { crowd.await? }).await?;
        watched.abort();
        let _aborted = watched.await;
        let world = Arc::into_inner(world).context("nobody else uses the stack any more")?;
        world.judge(faults, self.duration).await
    }
}

/// Fault after fault until the time is over.
async fn harm(world: &World, campaign: Campaign, dice: &mut Dice, tell: impl Fn(&str)) -> Result<Faults> {
    let begun = Instant::now();
    let mut faults = Faults::default();
    while begun.elapsed() < campaign.duration {
        let share = begun.elapsed().as_secs_f64() / campaign.duration.as_secs_f64();
        // Where there is nothing of that kind now, chance goes on.
        let due = faults.behind((campaign.kills as f64 * share).ceil() as usize);
        let due = due.map(|part| Harm::kill(part, dice));
        for harm in due.into_iter().chain([Harm::random(dice, campaign.stop)]) {
            let at = begun.elapsed().as_secs_f64();
            let done = world.inflict(harm, dice).await.with_context(|| format!("{at:.1} s: {}", harm.kind()))?;
            if let Some(text) = done {
                tell(&format!("{at:7.1} s  {:<22} {text}", harm.kind()));
                faults.add(harm);
                tokio::time::sleep(dice.pause(20, 400)).await;
                break;
            }
        }
    }
    Ok(faults)
}

/// People come as long as harm is done; returns when the last one has gone.
async fn crowd(world: Arc<World>, campaign: Campaign, mut dice: Dice) -> Result<()> {
    let begun = Instant::now();
    let mut people = JoinSet::new();
    let mut number = 0;
    while begun.elapsed() < campaign.duration {
        while people.len() < campaign.people {
            number += 1;
            people.spawn(Person::new(number, &mut dice).live(Arc::clone(&world)));
        }
        // The time may run out while nobody goes.
        let next = tokio::time::timeout(Duration::from_secs(1), people.join_next()).await;
        if let Ok(Some(gone)) = next {
            gone??;
        }
    }
    while let Some(gone) = people.join_next().await {
        gone??;
    }
    Ok(())
}

impl World {
    async fn judge(self, faults: Faults, lasted: Duration) -> Result<Report> {
        let mut stack = self.stack.into_inner();
        let deeds = self.deeds.into_inner().unwrap_or_else(PoisonError::into_inner);
        stack.users_dial(None);
        let begun = Instant::now();
        let (facts, violations) = loop {
            // Tasks whose creation nobody heard of may still run.
            let facts = stack.facts().await?;
            let mut violations: Vec<String> = checker::judge(&facts).iter().map(ToString::to_string).collect();
            violations.extend(unexpected(&facts, &deeds));
            if violations.is_empty() || begun.elapsed() > AFTERMATH / 4 {
                break (facts, violations);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let mut report = Report {
            faults,
            lasted,
            tasks: facts.tasks.len(),
            attempts: facts.attempts.len(),
            log_bytes: facts.attempts.iter().map(|attempt| attempt.log_bytes).sum(),
            violations,
        };
        if report.violations.is_empty() {
            if let Err(error) = stack.finish().await {
                report.violations.push(format!("{error:#}"));
            }
        } else {
            stack.keep();
        }
        Ok(report)
    }
}

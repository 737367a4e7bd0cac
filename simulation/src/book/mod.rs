//! The database of a simulation: rows in memory that outlive every crash, moved under the rules of the real one. What is
//! decided purely in the controller is decided by the same functions here.

mod logs;
mod people;
mod queue;
mod reports;
pub mod rows;
mod sessions;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sculpt_controller::{bus::Bus, store::StoreError};
use sculpt_core::task::Effect;
use sculpt_proto::id::{ClusterId, ExecutorId};

use self::rows::Rows;
use crate::{guard::Guard, witness::Witness, world::World};

/// How the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It answers within this many milliseconds.
    Fair(u64),
    /// It refuses everything, or commits without an answer.
    Foul,
    /// It keeps everybody waiting.
    Hung,
}

impl Weather {
    /// As it mostly is.
    pub const FAIR: Self = Self::Fair(20);
}

/// How often is looked whether the weather has changed.
const PATIENCE: Duration = Duration::from_millis(500);

/// What survives the controllers.
#[derive(Clone, Debug)]
pub struct Archive {
    rows: Arc<Mutex<Rows>>,
    /// Of each controller's connection.
    weather: Arc<Mutex<Vec<Weather>>>,
}

impl Archive {
    /// An empty one, in fair weather for each of so many controllers.
    pub fn new(without: Option<Guard>, controllers: usize) -> Self {
        let rows = Rows { any_epoch: without == Some(Guard::Epoch), ..Rows::default() };
        Self { rows: Arc::new(Mutex::new(rows)), weather: Arc::new(Mutex::new(vec![Weather::FAIR; controllers])) }
    }

    /// The rows.
    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The weather changes for a controller.
    pub fn set_weather(&self, controller: usize, weather: Weather) {
        self.weathers()[controller] = weather;
    }

    fn weathers(&self) -> MutexGuard<'_, Vec<Weather>> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The database as one controller sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Book {
    controller: usize,
    archive: Archive,
    bus: Bus,
    world: World,
    witness: Witness,
    cluster: ClusterId,
}

impl Book {
    /// A connection of a controller that has just been started.
    pub fn open(controller: usize, archive: Archive, world: World, witness: Witness, cluster: ClusterId) -> Self {
        Self { controller, archive, bus: Bus::new(), world, witness, cluster }
    }

    /// What it tells the parts of its controller.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What survives this controller.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// One transaction. It takes its time before and after the commit, and a crash in between leaves what was committed.
    async fn transact<T>(&self, work: impl FnOnce(&mut Rows) -> T) -> Result<T, StoreError> {
        let (before, after, refuse, forget) = match self.clear().await {
            Some(most) => (self.world.dice.millis(0..most), self.world.dice.millis(0..most), false, false),
            None => (Duration::ZERO, Duration::ZERO, self.world.dice.chance(80), true),
        };
        tokio::time::sleep(before).await;
        if refuse {
            return Err(away().await);
        }
        let done = {
            let mut rows = self.archive.rows();
            let before = (self.world.lacks(Guard::Commit) && self.world.dice.chance(5)).then(|| rows.clone());
            let done = work(&mut rows);
            if let Some(before) = before {
                *rows = before;
            }
            done
        };
        tokio::time::sleep(after).await;
        if forget {
            return Err(away().await);
        }
        Ok(done)
    }

    /// Waits while everybody is kept waiting, and says how long an answer takes at most; none in foul weather.
    async fn clear(&self) -> Option<u64> {
        loop {
            let weather = self.archive.weathers()[self.controller];
            match weather {
                Weather::Fair(most) => return Some(most),
                Weather::Foul => return None,
                Weather::Hung => tokio::time::sleep(PATIENCE).await,
            }
        }
    }

    /// What follows a commit.
    fn after_commit(&self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Place => self.bus.place(),
                Effect::Tell(executor) => self.bus.tell(ExecutorId(*executor)),
            }
        }
    }
}

/// The error of a transaction that was cut off.
async fn away() -> StoreError {
    let cut = tokio::spawn(std::future::pending::<()>());
    cut.abort();
    match cut.await {
        Err(cut) => StoreError::Interrupted(cut),
        Ok(()) => unreachable!("a task that never ends was aborted"),
    }
}

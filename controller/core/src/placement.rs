//! Which executor a task goes to, and why one waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::liveness::Liveness;

/// Which agent a task needs of its executor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentNeed {
    /// A plain command.
    None,
    /// Whatever the executor's default is.
    Default,
    /// The one of this name.
    Named(String),
}

/// What a person asks of the executor of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// The pool.
    pub pool: String,
    /// Labels that it must have.
    pub requirements: BTreeMap<String, String>,
    /// The agent.
    pub agent: AgentNeed,
}

/// What a task needs and whose it is: all tasks of one class can be placed on the same executors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// What was asked for.
    pub needs: Needs,
    /// The only executor that will do, because it has what they go on with. Pool and labels do not count then: a person has
    /// named the place. Whose tasks that place takes counts all the same.
    pub executor: Option<Uuid>,
    /// The project they are of.
    pub project: Option<Uuid>,
    /// Who wants them.
    pub requester: String,
}

/// Executors of one name, and whose tasks they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Of which projects; `None`: of all, and of none.
    pub projects: Option<BTreeSet<Uuid>>,
    /// By whom; `None`: by everybody.
    pub users: Option<BTreeSet<String>>,
    /// Its attempts reach no network.
    pub no_network: bool,
}

/// Why a pool does not take a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unwelcome {
    /// It is of another project, or of none.
    #[error(
        "the pool {pool} takes tasks of certain projects only, and this is not one of those; an admin adds projects with \
         `sculpt pool set {pool}`, and `sculpt run --pool` names another pool"
    )]
    Project {
        /// The pool.
        pool: String,
    },
    /// Somebody else wants it.
    #[error(
        "the pool {pool} takes tasks of certain users only, and {requester} is not one of those; an admin adds users with \
         `sculpt pool set {pool}`, and `sculpt run --pool` names another pool"
    )]
    Requester {
        /// The pool.
        pool: String,
        /// Who wants it.
        requester: String,
    },
}

/// Whose tasks an executor can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Everybody's: it keeps attempts apart from itself and from each other.
    Everybody,
    /// Those of this user alone, with whose rights its attempts run; of nobody while that is not known.
    Owner(Option<String>),
}

/// What placement knows of an executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: Arc<Pool>,
    /// Whose tasks it can run.
    pub serves: Serves,
    /// Whether it can keep an attempt from the network.
    pub closes_network: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its agents.
    pub agents: Vec<String>,
    /// Which of them is the default.
    pub default_agent: Option<String>,
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// How many it has.
    pub used: u32,
    /// Whether it takes new work; why not, otherwise.
    pub closed: Option<String>,
    /// Whether it is heard of.
    pub liveness: Liveness,
}

/// Why tasks of a class are not placed now; ordered from far to near.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// No executor has ever been enrolled.
    NoExecutor,
    /// The one executor that would do is not among them.
    Elsewhere,
    /// None is in the pool.
    Pool,
    /// The pool does not take them.
    Unwelcome(Unwelcome),
    /// No executor of the pool has all labels. This is what the closest one lacks first, in the order of the keys; another
    /// one may have it.
    Label {
        /// The label's key.
        key: String,
        /// The label's wished value.
        value: String,
    },
    /// None that fits otherwise has the agent.
    Agent,
    /// Those that fit otherwise cannot keep attempts apart from themselves, and serve somebody else.
    Owned {
        /// The name of one of them.
        executor: String,
        /// Whom it serves.
        owner: Option<String>,
    },
    /// Those that fit otherwise cannot keep attempts from the network.
    Network {
        /// The name of one of them.
        executor: String,
    },
    /// Those that fit are silent.
    Unreachable {
        /// The name of one of them.
        executor: String,
    },
    /// Those that fit take no new work.
    Closed {
        /// The name of one of them.
        executor: String,
        /// In its own words.
        reason: String,
    },
    /// Those that fit are full.
    NoFreeSlot {
        /// How many slots they have in all.
        slots: u32,
    },
}

impl Pool {
    /// A pool without rules.
    pub fn open(name: impl Into<String>) -> Self {
        Self { name: name.into(), projects: None, users: None, no_network: false }
    }

    /// Whether it takes tasks of `project` by `requester`.
    pub fn admits(&self, project: Option<Uuid>, requester: &str) -> Result<(), Unwelcome> {
        let pool = || self.name.clone();
        if let Some(projects) = &self.projects
            && !project.is_some_and(|project| projects.contains(&project))
        {
            return Err(Unwelcome::Project { pool: pool() });
        }
        match &self.users {
            Some(users) if !users.contains(requester) => {
                Err(Unwelcome::Requester { pool: pool(), requester: requester.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Candidate {
    /// How many more attempts it can take now.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.used)
    }

    /// Whether it can ever run tasks of `class`, full or not.
    pub fn fits(&self, class: &Class) -> Result<(), Misfit> {
        match class.executor {
            Some(executor) if executor != self.id => return Err(Misfit::Elsewhere),
            None if self.pool.name != class.needs.pool => return Err(Misfit::Pool),
            Some(_) | None => {}
        }
        self.pool.admits(class.project, &class.requester).map_err(Misfit::Unwelcome)?;
        if class.executor.is_none() {
            self.is_labelled(&class.needs.requirements)?;
        }
        let agent = match &class.needs.agent {
            AgentNeed::None => true,
            AgentNeed::Default => self.default_agent.is_some(),
            AgentNeed::Named(name) => self.agents.contains(name),
        };
        if !agent {
            return Err(Misfit::Agent);
        }
        self.serves(&class.requester)?;
        if self.pool.no_network && !self.closes_network {
            return Err(Misfit::Network { executor: self.name.clone() });
        }
        Ok(())
    }

    fn is_labelled(&self, requirements: &BTreeMap<String, String>) -> Result<(), Misfit> {
        let lacked = requirements.iter().find(|(key, value)| self.labels.get(*key) != Some(value));
        lacked.map_or(Ok(()), |(key, value)| Err(Misfit::Label { key: key.clone(), value: value.clone() }))
    }

    fn serves(&self, requester: &str) -> Result<(), Misfit> {
        match &self.serves {
            Serves::Everybody => Ok(()),
            Serves::Owner(Some(owner)) if owner == requester => Ok(()),
            Serves::Owner(owner) => Err(Misfit::Owned { executor: self.name.clone(), owner: owner.clone() }),
        }
    }

    /// Whether it can take anything now.
    pub fn is_ready(&self) -> Result<(), Misfit> {
        if self.liveness != Liveness::Connected {
            return Err(Misfit::Unreachable { executor: self.name.clone() });
        }
        if let Some(reason) = &self.closed {
            return Err(Misfit::Closed { executor: self.name.clone(), reason: reason.clone() });
        }
        if self.free() == 0 {
            return Err(Misfit::NoFreeSlot { slots: self.slots });
        }
        Ok(())
    }

    /// Whether it can take a task of `class` now.
    pub fn takes(&self, class: &Class) -> Result<(), Misfit> {
        self.fits(class)?;
        self.is_ready()
    }
}

/// The executor that takes a task of `class` now: the one with the most free slots, the first by name among equals.
pub fn choose<'a>(class: &Class, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
    let open = candidates.iter().filter(|candidate| candidate.takes(class).is_ok());
    open.min_by(|a, b| b.free().cmp(&a.free()).then_with(|| a.name.cmp(&b.name)))
}

/// Why no executor takes a task of `class` now; `None` when one does. The nearest miss counts.
pub fn why(class: &Class, candidates: &[Candidate]) -> Option<Misfit> {
    let mut nearest = Misfit::NoExecutor;
    let mut slots = 0;
    for candidate in candidates {
        match candidate.takes(class) {
            Ok(()) => return None,
            Err(Misfit::NoFreeSlot { slots: more }) => {
                slots = more.saturating_add(slots);
                nearest = Misfit::NoFreeSlot { slots };
            }
            Err(misfit) => {
                if misfit > nearest {
                    nearest = misfit;
                }
            }
        }
    }
    Some(nearest)
}

/// A queued task, as the claim reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its id.
    pub task: Uuid,
    /// What it needs.
    pub class: Class,
}

/// Places `queue`, which is in the order of priority and age, and takes the slots that it uses from `candidates`.
/// A task that finds no place is passed over.
pub fn place(queue: &[Queued], candidates: &mut [Candidate]) -> Vec<(Uuid, Uuid)> {
    let mut placed = Vec::new();
    for queued in queue {
        let Some(id) = choose(&queued.class, candidates).map(|candidate| candidate.id) else { continue };
        if let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.id == id) {
            candidate.used += 1;
        }
        placed.push((queued.task, id));
    }
    placed
}

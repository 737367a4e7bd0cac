//! Event → apply → persist → effects: the only way a task's state changes.

use std::time::Duration;

use sculpt_core::task::{Effect, Event, IllegalTransition};
use sculpt_proto::id::{ExecutorId, TaskId};
use serde_json::json;

use crate::{
    access::{Caller, On, Steer},
    bus::Bus,
    store::{
        Connection, Store, StoreError,
        audit::{self, Act},
        task_state,
    },
};

/// Who moves a task, and why, for the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// A person's name; empty for the system and for executors.
    pub name: String,
    /// In their words; may be empty.
    pub reason: String,
}

impl Actor {
    /// The controller itself, or an executor.
    pub fn system() -> Self {
        Self::default()
    }

    /// A person.
    pub fn user(name: impl Into<String>) -> Self {
        Self { name: name.into(), reason: String::new() }
    }

    /// Who calls.
    pub(crate) fn caller(caller: &Caller, reason: impl Into<String>) -> Self {
        Self::user(caller.name()).because(reason)
    }

    /// The same, with a reason.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

/// What a person wishes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That it ends.
    Stop,
    /// Another attempt.
    Retry,
    /// Another attempt, in the workspace of the newest one.
    RetryInWorkspace,
}

impl Wish {
    fn event(self) -> Event {
        match self {
            Self::Stop => Event::Stop,
            Self::Retry => Event::Retry,
            Self::RetryInWorkspace => Event::RetryInWorkspace,
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Stop => "task.stop",
            Self::Retry | Self::RetryInWorkspace => "task.retry",
        }
    }
}

/// Why a task was not moved. On any of these nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NotFound(TaskId),
    /// The caller looked at an older revision.
    #[error("the task was changed meanwhile: its revision is {actual}, not {expected}; look at it again")]
    Revision {
        /// What the caller looked at.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The event does not fit the task's state.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The database did not take it.
    #[error("move task in the database")]
    Store(#[from] StoreError),
}

/// What became of a task, and what is to be done now that it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "its effects are due after the commit"]
pub struct Moved {
    /// The task.
    pub task: TaskId,
    /// Its number.
    pub number: u64,
    /// Its revision afterwards.
    pub revision: u64,
    /// Whether a person sees that it moved.
    pub journaled: bool,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

/// Moves tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dispatch {
    store: Store,
    bus: Bus,
}

impl Dispatch {
    /// Moves the tasks in `store` and tells `bus`.
    pub fn new(store: Store, bus: Bus) -> Self {
        Self { store, bus }
    }

    /// The database that it moves tasks in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The bus that it tells.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Moves `task` by `event` in a transaction of its own, and sends the effects. What a person wishes goes by
    /// [`Dispatch::steer_in`].
    pub async fn apply(&self, task: TaskId, event: Event, by: Actor) -> Result<Moved, DispatchError> {
        self.apply_if(task, None, event, by).await
    }

    /// The same, if the task's revision is `expected`; `None`: whatever it is.
    pub async fn apply_if(
        &self,
        task: TaskId,
        expected: Option<u64>,
        event: Event,
        by: Actor,
    ) -> Result<Moved, DispatchError> {
        let moved = self
            .store
            .write(move |conn| Box::pin(async move { Self::apply_if_in(conn, task, expected, event, &by).await }))
            .await?;
        self.after_commit(&moved);
        Ok(moved)
    }

    /// Moves a task as somebody wishes who may steer it, inside a larger transaction; the caller commits and then calls
    /// [`Dispatch::after_commit`].
    pub async fn steer_in(
        conn: &mut Connection,
        by: &On<Steer>,
        expected: Option<u64>,
        wish: Wish,
        reason: &str,
    ) -> Result<Moved, DispatchError> {
        let actor = Actor::caller(by.caller(), reason);
        let moved = Self::apply_if_in(conn, by.task(), expected, wish.event(), &actor).await?;
        let act = Act::new(wish.action(), format!("task:{}", moved.number)).within(by.project());
        audit::append(conn, &by.by(), act.with(json!({ "task_id": moved.task, "reason": reason }))).await?;
        Ok(moved)
    }

    /// Moves `task` inside a larger transaction; the caller commits and then calls [`Dispatch::after_commit`].
    pub async fn apply_in(
        conn: &mut Connection,
        task: TaskId,
        event: Event,
        by: &Actor,
    ) -> Result<Moved, DispatchError> {
        Self::apply_if_in(conn, task, None, event, by).await
    }

    /// The same, if the task's revision is `expected`; `None`: whatever it is.
    pub async fn apply_if_in(
        conn: &mut Connection,
        task: TaskId,
        expected: Option<u64>,
        event: Event,
        by: &Actor,
    ) -> Result<Moved, DispatchError> {
        let locked = task_state::lock(conn, task).await?.ok_or(DispatchError::NotFound(task))?;
        if let Some(expected) = expected
            && expected != locked.revision
        {
            return Err(DispatchError::Revision { expected, actual: locked.revision });
        }
        Self::move_locked(conn, &locked, &event, by, Duration::ZERO).await
    }

    /// Moves a task whose rows are locked by an event that happened `age` ago, and by what follows from it.
    pub(crate) async fn move_locked(
        conn: &mut Connection,
        locked: &task_state::Locked,
        event: &Event,
        by: &Actor,
        age: Duration,
    ) -> Result<Moved, DispatchError> {
        let mut after = locked.task.clone();
        let mut effects = after.apply(event, locked.ago(age))?;
        let mut revision = task_state::save(conn, locked, &after, event, by).await?;
        if let Some(next) = after.follow_up(&locked.task, event, locked.now) {
            let between = locked.moved(after.clone(), revision);
            effects.extend(after.apply(&next, locked.now)?);
            revision = task_state::save(conn, &between, &after, &next, &Actor::system()).await?;
        }
        Ok(Moved { task: locked.id, number: locked.number, revision, journaled: revision != locked.revision, effects })
    }

    /// Sends the effects of what was committed.
    pub fn after_commit(&self, moved: &Moved) {
        if moved.journaled {
            self.bus.journal();
        }
        for effect in &moved.effects {
            match effect {
                Effect::Place => self.bus.place(),
                Effect::Tell(executor) => self.bus.tell(ExecutorId(*executor)),
            }
        }
    }
}

//! Proofs that a caller may do something. Their fields are closed, and only [`Caller`] makes them: who is handed one need
//! not ask again, and who has none cannot call what takes one.

use std::marker::PhantomData;

use sculpt_core::rights::{Right, Visible};
use sculpt_proto::id::{ProjectId, TaskId, UserId};

use super::Caller;
use crate::store::audit::By;

/// A right as a type.
pub trait Need: sealed::Sealed + Send + Sync + 'static {
    /// The right.
    const RIGHT: Right;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}

            impl sealed::Sealed for $name {}

            impl Need for $name {
                const RIGHT: Right = Right::$name;
            }
        )*
    };
}

needs!(
    /// See.
    Read,
    /// Start tasks.
    Create,
    /// Stop, retry, answer.
    Steer,
    /// Type into agents' terminals.
    Drive,
    /// Run programs in agents' workspaces.
    Shell,
    /// Reach what agents' own processes listen on.
    Forward,
    /// Merge, and change or remove a project.
    Merge,
    /// Register projects.
    Found,
    /// Enrol, remove and tend executors.
    Fleet,
    /// Users, roles, tokens, locks, the record.
    Administer
);

/// The caller may do this in one project.
#[derive(Clone, Debug)]
pub struct In<R> {
    project: ProjectId,
    by: Caller,
    right: PhantomData<fn() -> R>,
}

/// The caller may do this to one task.
#[derive(Clone, Debug)]
pub struct On<R> {
    task: TaskId,
    project: Option<ProjectId>,
    by: Caller,
    right: PhantomData<fn() -> R>,
}

/// The caller may do this everywhere, and to the controller itself.
#[derive(Clone, Debug)]
pub struct May<R> {
    by: Caller,
    right: PhantomData<fn() -> R>,
}

/// What a caller sees. Made from what is seen, and good for nothing but to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sees {
    projects: Visible<ProjectId>,
    loose: Loose,
}

/// Which tasks without a project somebody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loose {
    /// All: an admin.
    All,
    /// Their own.
    Of(String),
    /// None.
    None,
}

/// The caller may look after the tokens of somebody.
#[derive(Clone, Debug)]
pub struct Whose {
    user: Option<UserId>,
    by: Caller,
}

impl<R> In<R> {
    pub(super) fn new(project: ProjectId, by: Caller) -> Self {
        Self { project, by, right: PhantomData }
    }

    /// Where.
    pub fn project(&self) -> ProjectId {
        self.project
    }

    /// Who.
    pub fn caller(&self) -> &Caller {
        &self.by
    }

    /// Who, for the record.
    pub fn by(&self) -> By {
        self.by.by()
    }
}

impl<R> On<R> {
    pub(super) fn new(task: TaskId, project: Option<ProjectId>, by: Caller) -> Self {
        Self { task, project, by, right: PhantomData }
    }

    /// In which project.
    pub fn project(&self) -> Option<ProjectId> {
        self.project
    }

    /// To which task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Who.
    pub fn caller(&self) -> &Caller {
        &self.by
    }

    /// Who, for the record.
    pub fn by(&self) -> By {
        self.by.by()
    }
}

impl<R> May<R> {
    pub(super) fn new(by: Caller) -> Self {
        Self { by, right: PhantomData }
    }

    /// Who.
    pub fn caller(&self) -> &Caller {
        &self.by
    }

    /// Who, for the record.
    pub fn by(&self) -> By {
        self.by.by()
    }
}

impl Sees {
    pub(super) fn new(projects: Visible<ProjectId>, loose: Loose) -> Self {
        Self { projects, loose }
    }

    /// What the controller itself looks at: everything.
    pub(crate) fn everything() -> Self {
        Self { projects: Visible::All, loose: Loose::All }
    }

    /// Whether nothing is hidden.
    pub(crate) fn is_everything(&self) -> bool {
        self.projects == Visible::All && self.loose == Loose::All
    }

    pub(crate) fn projects(&self) -> &Visible<ProjectId> {
        &self.projects
    }

    pub(crate) fn loose(&self) -> &Loose {
        &self.loose
    }
}

impl Whose {
    pub(super) fn own(by: Caller) -> Self {
        Self { user: Some(by.user()), by }
    }

    /// Everybody's.
    pub fn everybody(by: &May<Administer>) -> Self {
        Self { user: None, by: by.caller().clone() }
    }

    /// This user's.
    pub fn of(by: &May<Administer>, user: UserId) -> Self {
        Self { user: Some(user), by: by.caller().clone() }
    }

    /// Of whom; `None`: of everybody.
    pub(crate) fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Who looks after them.
    pub fn caller(&self) -> &Caller {
        &self.by
    }
}

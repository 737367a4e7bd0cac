//! The proof that a project's repository may be read.

use sculpt_core::rights::Right;
use sculpt_proto::id::ProjectId;

use super::Caller;
use crate::{
    session::who::Who,
    store::{Store, StoreError, attempts},
};

/// All of a project's repository may be read: by a person who reads the project, or by an executor that works in it.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    project: ProjectId,
}

impl Fetch {
    /// For a person; whether there is such a project is not asked.
    pub fn of_caller(caller: &Caller, project: ProjectId) -> Option<Self> {
        caller.grants().in_project(&project).has(Right::Read).then_some(Self { project })
    }

    /// For an executor, which reads the projects of the attempts that it holds.
    pub async fn of_executor(who: &Who, store: &Store, project: ProjectId) -> Result<Option<Self>, StoreError> {
        let works_there = match who.executor() {
            Some(executor) => attempts::works_in(&mut *store.read().await?, executor, project).await?,
            // Nobody was asked who it is, which no program for use leaves out.
            None => cfg!(any(test, feature = "unasked")),
        };
        Ok(works_there.then_some(Self { project }))
    }

    /// Of which project.
    pub fn project(self) -> ProjectId {
        self.project
    }
}

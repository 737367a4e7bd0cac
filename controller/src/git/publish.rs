//! What an attempt made becomes visible: its pack, its hidden ref and the task's branch, in one transaction with the task's
//! own move, which is where a fenced attempt is refused.

use sculpt_core::{attempt::Fence, review::Commit, task::Event};
use sculpt_proto::id::{AttemptId, ProjectId, TaskId};

use super::{GitError, ReceivedPack, Repositories, error::sha1, names};
use crate::{
    dispatch::{Actor, Dispatch, Moved},
    store::{
        Connection, StoreError,
        packs::{self, Pack},
        refs,
    },
};

/// What is to be published, and for whom.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The task.
    pub task: TaskId,
    /// Its attempt's token.
    pub fence: Fence,
    /// The task's project.
    pub project: ProjectId,
    /// The task's base commit.
    pub base: String,
    /// The attempt's newest commit.
    pub head: String,
    /// The task's branch, without `refs/heads/`.
    pub branch: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The head is the base: no ref has moved.
    Nothing,
    /// The attempt's ref and the branch stand at the head, now or since an earlier call.
    Moved,
}

/// Asked first in the transaction: whether the session that publishes still speaks for the executor, whose row it holds.
pub type SessionCheck =
    Box<dyn for<'c> FnOnce(&'c mut Connection) -> futures_util::future::BoxFuture<'c, Result<bool, StoreError>> + Send>;

/// Publishes what an attempt made. Idempotent: repeated for the same head, it does nothing.
pub async fn publish(
    repositories: &Repositories,
    dispatch: &Dispatch,
    publication: Publication,
    mut pack: ReceivedPack,
    check: SessionCheck,
) -> Result<Published, GitError> {
    sha1(&publication.head)?;
    if publication.head == publication.base {
        return Ok(Published::Nothing);
    }
    if !names::is_plain(&names::branch(&publication.branch)) {
        return Err(GitError::BadName(publication.branch));
    }
    if repositories.is_published(&publication).await? {
        return Ok(Published::Moved);
    }
    let verified = repositories.verify(publication.project, &publication.head, &mut pack).await?;
    sculpt_failpoints::pass("pack.before_store");
    let stored = repositories.upload(&verified).await?;
    sculpt_failpoints::pass("pack.stored");
    let project = publication.project;
    let work = dispatch.store().write(move |conn| Box::pin(write(conn, publication, stored, check)));
    let moved = work.await?;
    sculpt_failpoints::pass("refs.before_answer");
    dispatch.after_commit(&moved);
    repositories.keep_local(project, &verified).await;
    Ok(Published::Moved)
}

impl Repositories {
    async fn is_published(&self, publication: &Publication) -> Result<bool, GitError> {
        let mut conn = self.inner.store.read().await?;
        let name = names::attempt(publication.task, AttemptId(publication.fence.id));
        let at = refs::target(&mut conn, publication.project, &name).await?;
        Ok(at.as_ref() == Some(&publication.head))
    }
}

async fn write(
    conn: &mut Connection,
    publication: Publication,
    pack: Option<Pack>,
    check: SessionCheck,
) -> Result<Moved, GitError> {
    let Publication { task, fence, project, head, branch, .. } = publication;
    let event = Event::Published { fence, head: Commit(head.clone()) };
    if !check(conn).await? {
        return Err(GitError::Superseded);
    }
    let moved = Dispatch::apply_in(conn, task, event, &Actor::system()).await?;
    refs::raise_revision(conn, project).await?.ok_or(GitError::NoProject(project))?;
    if let Some(pack) = &pack {
        packs::insert(conn, project, pack).await?;
    }
    let branch = names::branch(&branch);
    let at = refs::target(conn, project, &branch).await?;
    if let Some(at) = &at
        && !refs::any_at(conn, project, &names::attempts_of(task), at).await?
    {
        return Err(GitError::ForeignBranch { branch, actual: at.clone() });
    }
    let own = names::attempt(task, AttemptId(fence.id));
    let own_at = refs::target(conn, project, &own).await?;
    for (name, at) in [(&branch, &at), (&own, &own_at)] {
        refs::move_ref(conn, project, name, at.as_deref(), &head).await?;
    }
    sculpt_failpoints::pass("refs.before_commit");
    Ok(moved)
}

//! The Publish call: an attempt's pack is taken into a file, then handed to [`crate::git`].

use std::time::Duration;

use futures_util::future::BoxFuture;
use sculpt_core::{shown::Shown, task::IllegalTransition};
use sculpt_proto::{
    FieldError, MAX_PACK_PIECE, commit_id,
    executor::v1::{PublishRequest, PublishResponse, publish_request},
    id::{AttemptId, ProjectId},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::who::Who;
use crate::{
    dispatch::{Dispatch, DispatchError},
    git::{self, GitError, Publication, Published, ReceivedPack, Repositories},
    store::{
        StoreError, attempts,
        sessions::{self, Epoch},
    },
};

/// Longest silence between two pieces of a pack.
const SILENCE: Duration = Duration::from_secs(60);

/// A checked header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    epoch: Epoch,
    attempt: AttemptId,
    head: String,
    pack_length: u64,
}

impl TryFrom<publish_request::Header> for Header {
    type Error = FieldError;

    fn try_from(header: publish_request::Header) -> Result<Self, FieldError> {
        let executor = FieldError::parse(&header.executor_id, "header.executor_id")?;
        Ok(Self {
            epoch: Epoch { executor, number: header.epoch },
            attempt: FieldError::parse(&header.attempt_id, "header.attempt_id")?,
            head: commit_id(&header.head, "header.head")?,
            pack_length: header.pack_length,
        })
    }
}

/// Takes one publication.
pub async fn publish(
    dispatch: &Dispatch,
    repositories: &Repositories,
    who: Who,
    mut pieces: impl Stream<Item = Result<PublishRequest, Status>> + Unpin,
) -> Result<PublishResponse, Status> {
    let header = match next(&mut pieces).await?.and_then(|request| request.part) {
        Some(publish_request::Part::Header(header)) => {
            let header = Header::try_from(header)?;
            who.is(header.epoch.executor)?;
            header
        }
        Some(publish_request::Part::Data(_)) | None => {
            return Err(Status::invalid_argument("the first message of Publish must be a header"));
        }
    };
    let publication = find(dispatch, &header).await?;
    let pack = take(repositories, &header, &mut pieces).await?;
    let (project, base, head) = (publication.project, publication.base.clone(), publication.head.clone());
    let epoch = header.epoch;
    let check: git::SessionCheck = Box::new(move |conn| Box::pin(sessions::holds(conn, epoch)));
    match hand_over(repositories, dispatch, publication, pack, check).await {
        Ok(Published::Moved) => Ok(PublishResponse { head }),
        Ok(Published::Nothing) => Ok(PublishResponse { head: String::new() }),
        Err(GitError::BadPack { .. } | GitError::Incomplete { .. }) if lacks(repositories, project, &base).await => {
            Err(baseless(&base))
        }
        Err(error) => Err(refuse(&header, error)),
    }
}

/// Whether the commit that the task begins at is not here.
fn lacks<'a>(repositories: &'a Repositories, project: ProjectId, base: &'a String) -> BoxFuture<'a, bool> {
    Box::pin(async move {
        let present = repositories.has_commits(project, std::slice::from_ref(base)).await;
        present.is_ok_and(|present| present.is_empty())
    })
}

/// Nothing is wrong with what was made: the controller has lost what it stands on.
fn baseless(base: &str) -> Status {
    Status::failed_precondition(format!(
        "the controller does not have the commit {base} that the task begins at, as after its database was lost; send it \
         with a `sculpt run` in the repository, then `sculpt retry --in-workspace` publishes what was made"
    ))
}

/// Boxed: the compiler cannot see through the whole of it that it may move between threads.
fn hand_over<'a>(
    repositories: &'a Repositories,
    dispatch: &'a Dispatch,
    publication: Publication,
    pack: ReceivedPack,
    check: git::SessionCheck,
) -> BoxFuture<'a, Result<Published, GitError>> {
    Box::pin(git::publish(repositories, dispatch, publication, pack, check))
}

/// What the attempt publishes, if it may at all: a stale one does not get to send its pack.
async fn find(dispatch: &Dispatch, header: &Header) -> Result<Publication, Status> {
    let found: Result<_, StoreError> = async {
        let mut conn = dispatch.store().read().await?;
        let current = sessions::holds(&mut conn, header.epoch).await?;
        Ok((current, attempts::target(&mut conn, header.attempt, header.epoch.executor).await?))
    }
    .await;
    let (current, target) = found.map_err(|error| unavailable(header, &error))?;
    if !current {
        return Err(Status::aborted("a newer session has this executor; end this one"));
    }
    let target = target.ok_or_else(|| Status::not_found(format!("there is no attempt {}", header.attempt)))?;
    if target.fenced {
        return Err(Status::failed_precondition("the task has gone on without this attempt; it publishes nothing"));
    }
    let Some((project, base)) = target.repository else {
        return Err(Status::failed_precondition("the task has no repository to publish to"));
    };
    Ok(Publication {
        task: target.task,
        fence: target.fence,
        project: ProjectId(project),
        base,
        head: header.head.clone(),
        branch: target.branch,
    })
}

async fn take(
    repositories: &Repositories,
    header: &Header,
    pieces: &mut (impl Stream<Item = Result<PublishRequest, Status>> + Unpin),
) -> Result<ReceivedPack, Status> {
    let mut pack = repositories.receive().await.map_err(|error| refuse(header, error))?;
    while let Some(request) = next(pieces).await? {
        match request.part {
            Some(publish_request::Part::Data(data)) if data.len() <= MAX_PACK_PIECE => {
                pack.write(&data).await.map_err(|error| refuse(header, error))?;
            }
            Some(publish_request::Part::Data(_)) => {
                return Err(Status::invalid_argument("a piece of a pack is over 1 MiB"));
            }
            Some(publish_request::Part::Header(_)) => return Err(Status::invalid_argument("a second header")),
            None => {}
        }
        if pack.length() > header.pack_length {
            return Err(Status::invalid_argument("the pack is longer than its header says"));
        }
    }
    if pack.length() != header.pack_length {
        return Err(Status::invalid_argument("the pack is shorter than its header says; send it again"));
    }
    Ok(pack)
}

async fn next(
    pieces: &mut (impl Stream<Item = Result<PublishRequest, Status>> + Unpin),
) -> Result<Option<PublishRequest>, Status> {
    let next = tokio::time::timeout(SILENCE, pieces.next()).await;
    next.map_err(|_| Status::deadline_exceeded("no piece of the pack came for 60 s"))?.transpose()
}

/// What the executor is told: whether to try again (UNAVAILABLE, ABORTED, NOT_FOUND) or to end the attempt (the rest).
fn refuse(header: &Header, error: GitError) -> Status {
    let text = error.to_string();
    match error {
        // NOT_FOUND says that the attempt is not known, and may be by and by.
        GitError::NoProject(_)
        | GitError::NoRepository(_)
        | GitError::NothingPublished(_)
        | GitError::ForeignBranch { .. } => Status::failed_precondition(text),
        GitError::Sha256(_)
        | GitError::NotAnId(_)
        | GitError::NotACommit(_)
        | GitError::BadPack { .. }
        | GitError::Incomplete { .. }
        | GitError::BadName(_) => Status::invalid_argument(text),
        GitError::TooLarge { .. } => Status::out_of_range(text),
        GitError::Superseded | GitError::Ref(_) => Status::aborted(text),
        // Its reports come in another stream and may be late, after an outage for one: no reason to refuse the result.
        GitError::Dispatch(DispatchError::Illegal(IllegalTransition::Unfit {
            state: Shown::Starting | Shown::Paused | Shown::Lost,
            ..
        })) => unavailable(header, &error),
        GitError::Dispatch(DispatchError::Illegal(illegal)) => Status::failed_precondition(illegal.to_string()),
        GitError::Dispatch(DispatchError::NotFound(_)) => Status::failed_precondition(text),
        GitError::Dispatch(DispatchError::Revision { .. } | DispatchError::Store(_))
        | GitError::Pack(_)
        | GitError::Store(_)
        | GitError::Blob(_)
        | GitError::Child(_)
        | GitError::Read(_)
        | GitError::Files { .. }
        | GitError::Damaged { .. } => unavailable(header, &error),
    }
}

fn unavailable(header: &Header, error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::warn!(executor = %header.epoch.executor, attempt = %header.attempt, error, "nothing was published");
    Status::unavailable("the controller cannot take the result now; send it again in a moment")
}

//! Commits in, diffs out.

use std::time::Duration;

use futures_util::StreamExt as _;
use sculpt_proto::{
    FieldError, commit_id, required,
    v1::{
        self, diff_response,
        git_server::Git,
        send_pack_request::{Header, Part},
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, Replies, caller, request_id, status::internal};
use crate::{
    access::{Create, Read},
    blobs::BlobError,
    git::{Change, ChangeKind, Diff, DiffLimits, DiffPart, GitError},
    store::{packs::PackError, refs::RefError, tasks_read::View},
};

/// Most commits that one call asks about.
const MOST_COMMITS: usize = 4096;

/// Longest silence of a caller who sends a pack.
const PATIENCE: Duration = Duration::from_secs(120);

#[tonic::async_trait]
impl Git for Api {
    type DiffStream = Replies<v1::DiffResponse>;

    async fn find_commits(
        &self,
        request: Request<v1::FindCommitsRequest>,
    ) -> Result<Response<v1::FindCommitsResponse>, Status> {
        let caller = caller(&request)?;
        let v1::FindCommitsRequest { project, commits } = request.into_inner();
        if commits.len() > MOST_COMMITS {
            let problem = format!("{} commits; ask about at most {MOST_COMMITS} at once", commits.len());
            return Err(FieldError::new("commits", problem).into());
        }
        for commit in &commits {
            commit_id(commit, "commits")?;
        }
        let found = self.store.project(&caller.sees(), &project).await?;
        let project = caller.within::<Read>(&found)?.project();
        let present = self.repositories.has_commits(project, &commits).await?;
        Ok(Response::new(v1::FindCommitsResponse { present }))
    }

    async fn send_pack(
        &self,
        request: Request<Streaming<v1::SendPackRequest>>,
    ) -> Result<Response<v1::SendPackResponse>, Status> {
        let caller = caller(&request)?;
        let mut parts = request.into_inner();
        let Some(Part::Header(Header { project, tip, request_id: id })) = next(&mut parts).await? else {
            return Err(Status::invalid_argument("part: the first message must be the header"));
        };
        request_id(&id)?;
        commit_id(&tip, "header.tip")?;
        let found = self.store.project(&caller.sees(), &project).await?;
        let project = caller.within::<Create>(&found)?.project();
        let mut pack = self.repositories.receive().await?;
        while let Some(part) = next(&mut parts).await? {
            match part {
                Part::Data(data) => pack.write(&data).await?,
                Part::Header(_) => return Err(Status::invalid_argument("part: a second header")),
            }
        }
        let objects = self.repositories.keep_base(project, &tip, &mut pack).await?;
        tracing::info!(%project, tip, objects, "a base was taken in");
        Ok(Response::new(v1::SendPackResponse { objects }))
    }

    async fn diff(&self, request: Request<v1::DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        let caller = caller(&request)?;
        let v1::DiffRequest { task, attempt } = request.into_inner();
        let readable = self.readable(&caller, &task).await?;
        let id = readable.task();
        let view = self.store.task(&readable).await?.ok_or_else(|| no_task(&task))?;
        let Some((project, base)) = view.tasks.first().and_then(|task| task.project_id.zip(task.base.clone())) else {
            return Err(GitError::NoRepository(id).into());
        };
        let head = head(&view, attempt, &task)?.ok_or(GitError::NothingPublished(id))?;
        let parts = self.repositories.diff(project.into(), &base, &head, DiffLimits::default()).await?;
        let replies = ReceiverStream::new(parts).map(move |part| match part {
            Ok(part) => Ok(v1::DiffResponse { part: Some(answer(part, &base, &head)) }),
            Err(error) => Err(error.into()),
        });
        Ok(Response::new(self.replies(replies)))
    }
}

/// The next message that says something; `None` at the end.
async fn next(parts: &mut Streaming<v1::SendPackRequest>) -> Result<Option<Part>, Status> {
    let silent = |_| Status::deadline_exceeded("nothing more of the pack has come; send it again");
    match tokio::time::timeout(PATIENCE, parts.message()).await.map_err(silent)?? {
        Some(message) => Ok(Some(required(message.part, "part")?)),
        None => Ok(None),
    }
}

fn no_task(name: &str) -> Status {
    Status::not_found(format!("there is no task {name:?}; `sculpt ls` lists those there are"))
}

/// What attempt `number` has published; 0: the newest.
fn head(view: &View, number: u32, task: &str) -> Result<Option<String>, Status> {
    let found = match number {
        0 => view.attempts.last(),
        number => {
            let attempt = view.attempts.iter().find(|attempt| i64::from(attempt.number) == i64::from(number));
            let text = || format!("task {task} has no attempt {number}; `sculpt show {task}` lists them");
            Some(attempt.ok_or_else(|| Status::not_found(text()))?)
        }
    };
    Ok(found.and_then(|attempt| attempt.head.clone()))
}

fn answer(part: DiffPart, base: &str, head: &str) -> diff_response::Part {
    match part {
        DiffPart::Summary(diff) => diff_response::Part::Summary(summary(diff, base, head)),
        DiffPart::Patch(bytes) => diff_response::Part::Patch(bytes),
        DiffPart::Truncated(text) => diff_response::Part::Truncated(text),
    }
}

fn summary(diff: Diff, base: &str, head: &str) -> diff_response::Summary {
    diff_response::Summary {
        base: base.to_owned(),
        head: head.to_owned(),
        files: diff.changes.into_iter().map(change).collect(),
        files_omitted: diff.omitted,
        additions: diff.additions,
        deletions: diff.deletions,
    }
}

fn change(change: Change) -> v1::FileChange {
    let status = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Modified => "modified",
        ChangeKind::Renamed => "renamed",
        ChangeKind::Copied => "copied",
        ChangeKind::TypeChanged => "typechange",
    };
    v1::FileChange {
        status: status.to_owned(),
        path: change.path,
        old_path: change.old_path,
        additions: change.additions,
        deletions: change.deletions,
        binary: change.binary,
    }
}

impl From<GitError> for Status {
    fn from(error: GitError) -> Self {
        match error {
            GitError::NoProject(_) => Self::not_found(error.to_string()),
            GitError::NotAnId(_)
            | GitError::Sha256(_)
            | GitError::NotACommit(_)
            | GitError::BadPack { .. }
            | GitError::Incomplete { .. } => Self::invalid_argument(error.to_string()),
            GitError::TooLarge { .. } | GitError::Blob(BlobError::Full(_)) => {
                Self::resource_exhausted(error.to_string())
            }
            GitError::Files { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                tracing::error!("the disk of the data directory is full");
                Self::resource_exhausted("the controller's disk is full; make room on it, then send it again")
            }
            GitError::NoRepository(_)
            | GitError::NothingPublished(_)
            | GitError::ForeignBranch { .. }
            | GitError::Superseded => Self::failed_precondition(error.to_string()),
            GitError::Ref(RefError::Stale { .. }) | GitError::Pack(PackError::Expired | PackError::Replaced) => {
                Self::aborted(error.to_string())
            }
            GitError::Dispatch(error) => error.into(),
            GitError::Ref(RefError::Store(error))
            | GitError::Pack(PackError::Store(error))
            | GitError::Store(error) => error.into(),
            GitError::BadName(_)
            | GitError::Blob(_)
            | GitError::Child(_)
            | GitError::Read(_)
            | GitError::Files { .. }
            | GitError::Damaged { .. } => internal(&error),
        }
    }
}
